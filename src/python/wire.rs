//! Input from outside: channels, ids and payloads of any shape.
use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::decode::decode_with_python;
use super::encode::encode;
use crate::error::Result;
use crate::message::{Id, Message, is_channel};

/// The maximum number of channels of a poll. Each takes time under the lock of
/// its bus.
pub(super) const CHANNELS_MAX: usize = 10_000;

/// The channels that a subscriber names.
///
/// A channel that is not Unicode text, or has control characters, is skipped,
/// because no message is ever published there.
///
/// # Errors
///
/// `TypeError` when it is not a collection of strings, `ValueError` when there
/// are too many.
pub(super) fn channels(channels: &Bound<'_, PyAny>) -> PyResult<Vec<Arc<str>>> {
    let wrong = |what: &Bound<'_, PyAny>| {
        let class = what.get_type().name()?;
        Err(PyTypeError::new_err(format!(
            "channels must be a collection of str, not of {class}"
        )))
    };
    if channels.is_instance_of::<PyString>() {
        let class = "channels must be a collection of str, not a str";
        return Err(PyTypeError::new_err(class));
    }
    let mut names = Vec::new();
    for channel in channels.try_iter()? {
        let channel = channel?;
        if names.len() == CHANNELS_MAX {
            return Err(PyValueError::new_err(format!(
                "more than {CHANNELS_MAX} channels"
            )));
        }
        match channel.cast::<PyString>() {
            Ok(name) => {
                let name = name.to_str().ok().filter(|name| is_channel(name));
                names.extend(name.map(Arc::from));
            }
            Err(_) => return wrong(&channel),
        }
    }
    Ok(names)
}

/// The id that a subscriber names; none if no message can have it.
pub(super) fn id(id: &Bound<'_, PyAny>) -> Option<Id> {
    if let Some(text) = id.cast::<PyString>().ok().and_then(|id| id.to_str().ok()) {
        return Some(Id::from_text(text));
    }
    let mut json = String::new();
    encode(&mut json, id).ok()?;
    Some(Id::from_json(&json))
}

/// Reads the payload of a NOTIFY. Python reads the JSON that `serde_json`
/// refuses and Python accepts.
///
/// # Errors
///
/// When it is not a valid message.
pub(super) fn payload(py: Python<'_>, payload: &str) -> Result<Message> {
    Message::parse(payload).or_else(|refused| {
        let lenient = || {
            let payload = decode_with_python(py, payload).ok()?;
            let payload = payload.cast::<PyDict>().ok()?;
            let channel = payload.get_item("channel").ok()??;
            let channel = channel.cast::<PyString>().ok()?.to_str().ok()?;
            let message = payload.get_item("message").ok()??;
            lenient_message(channel, message.cast::<PyDict>().ok()?)
        };
        lenient().ok_or(refused)
    })
}

/// Makes a message of its JSON, leniently in the same way.
///
/// # Errors
///
/// When it is not a valid message.
pub(super) fn message(py: Python<'_>, channel: &str, json: &str) -> Result<Message> {
    Message::new(channel, json).or_else(|refused| {
        let lenient = || {
            let message = decode_with_python(py, json).ok()?;
            lenient_message(channel, message.cast::<PyDict>().ok()?)
        };
        lenient().ok_or(refused)
    })
}

fn lenient_message(channel: &str, message: &Bound<'_, PyDict>) -> Option<Message> {
    let id = id(&message.get_item("message_id").ok()??)?;
    let mut json = String::new();
    encode(&mut json, message).ok()?;
    let kind = message.get_item("type").ok()?;
    let is_notification =
        kind.is_some_and(|kind| kind.eq("notification").unwrap_or(false));
    Some(Message::from_trusted(channel, id, &json, is_notification))
}
