//! `notify`: a text message to a user's client.
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::bus::transaction;

/// The priorities that clients accept, from low to urgent.
const PRIORITIES: std::ops::RangeInclusive<i64> = 0..=3;

/// Send a text message to a user's client, to be shown as a popup.
///
/// It goes to the first of these that is set: the client `client`, all clients
/// of the user `user`, the client in the transaction's context, all clients of
/// the current user. The current user is the transaction's. If that is root, it
/// is the user for which root acts (`set_user(0, set_context=True)`). Root
/// itself never logs in, so nothing is sent if there is no other user.
#[pyfunction]
#[pyo3(signature = (title, body=None, priority=1, user=None, client=None))]
pub(super) fn notify<'py>(
    py: Python<'py>,
    title: &Bound<'py, PyAny>,
    body: Option<&Bound<'py, PyAny>>,
    priority: i64,
    user: Option<&Bound<'py, PyAny>>,
    client: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if !PRIORITIES.contains(&priority) {
        return Err(PyValueError::new_err(format!(
            "priority must be from 0 (low) to 3 (urgent), not {priority}"
        )));
    }
    let channel = match (client, user) {
        (Some(client), _) => format!("client:{client}"),
        (None, Some(user)) => format!("user:{user}"),
        (None, None) => match own_channel(py)? {
            Some(channel) => channel,
            None => return Ok(None),
        },
    };
    let message = PyDict::new(py);
    message.set_item("type", "notification")?;
    message.set_item("title", title)?;
    message.set_item("body", body)?;
    message.set_item("priority", priority)?;
    // The class that the administrator has configured.
    let bus = py.import("trytond.bus")?.getattr("Bus")?;
    bus.call_method1("publish", (channel, message)).map(Some)
}

/// The channel of the client, or else the user, of the transaction.
fn own_channel(py: Python<'_>) -> PyResult<Option<String>> {
    let transaction = transaction(py)?;
    let context = transaction.getattr("context")?;
    let client = context.call_method1("get", ("client",))?;
    if client.is_truthy()? {
        return Ok(Some(format!("client:{client}")));
    }
    let mut user = transaction.getattr("user")?;
    if !user.is_truthy()? {
        // `set_user(0, set_context=True)` stores there the user that trytond
        // takes as the current one.
        user = context.call_method1("get", ("user", &user))?;
    }
    Ok(user.is_truthy()?.then(|| format!("user:{user}")))
}
