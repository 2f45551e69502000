//! The class `Bus`, in the place of trytond's `LongPollingBus`.
use std::sync::Arc;
use std::thread;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyString, PyType};
use uuid::Uuid;

use super::access::restrict;
use super::decode::decode;
use super::encode::encode;
use super::imports::{
    END_WITH_WORKER, ENDS_AT_EXIT, ENSURE_LISTENER, LONG_POLLING_TIMEOUT, RELAY_USER,
    SEND, TRANSACTION,
};
use super::logging::{DEBUG, INFO, is_logged, log};
use super::process::seconds;
use super::state::{PyLocks, PyMessages};
use super::wait::next_message;
use super::wire;
use crate::bus::Bus;
use crate::message::{Message, is_channel};
use crate::poll::Poll;
use crate::registry::{self, Process, Visit};

/// The message bus.
#[pyclass(frozen, subclass, name = "Bus", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyBus;

#[pymethods]
impl PyBus {
    #[new]
    fn new() -> Self {
        Self
    }

    /// The channel of PostgreSQL.
    #[classattr]
    fn _channel() -> &'static str {
        "bus"
    }

    /// By process and database: the listener, and the time until which it
    /// listens.
    #[classattr]
    fn _queues(py: Python<'_>) -> Py<PyDict> {
        PyDict::new(py).unbind()
    }

    /// By process: the lock that a change of `_queues` has to hold.
    #[classattr]
    fn _queues_lock(py: Python<'_>) -> PyLocks {
        PyLocks::new(py)
    }

    /// By database: the retained messages of this process.
    #[classattr]
    fn _messages() -> PyMessages {
        PyMessages
    }

    /// Send a message to a channel when the transaction commits.
    #[classmethod]
    fn publish(
        cls: &Bound<'_, PyType>,
        channel: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = cls.py();
        let _visit = visit(py)?;
        let name = channel.cast::<PyString>().map_err(|_| {
            PyTypeError::new_err(format!(
                "channel must be a str, not {}",
                class(channel)
            ))
        })?;
        if !name.to_str().is_ok_and(is_channel) {
            return Err(PyValueError::new_err(format!(
                "channel must be Unicode text without control characters, not {}",
                channel.repr()?
            )));
        }
        let content = message.cast::<PyDict>().map_err(|_| {
            PyTypeError::new_err(format!(
                "message must be a dict, not {}",
                class(message)
            ))
        })?;
        let transaction = transaction(py)?;
        content.set_item("message_id", Uuid::new_v4().to_string())?;
        let mut json = String::new();
        encode(&mut json, message)?;
        SEND.get(py)?.call1((cls, &transaction, channel, json))?;
        let database = || transaction.getattr("database")?.getattr("name");
        log(py, DEBUG, "publish %r to %r on '%s'", || {
            (message, channel, database()?).into_pyobject(py)
        })
    }

    /// Wait for the next message in any of the channels.
    #[classmethod]
    #[pyo3(signature = (database, channels, last_message=None))]
    fn subscribe<'py>(
        cls: &Bound<'py, PyType>,
        database: &str,
        channels: &Bound<'py, PyAny>,
        last_message: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = cls.py();
        let visit = visit(py)?;
        let logged = is_logged(py, INFO)?;
        let (poll, message) =
            wait(&visit, cls, database, channels, last_message, logged)?;
        let Some(message) = message else {
            let none = py.None().into_bound(py);
            return respond(cls, none.clone(), none, logged);
        };
        let channel = match poll.relay(&message) {
            Some(channel) if relay_user(py)? => channel,
            _ => message.channel(),
        };
        let channel = PyString::new(py, channel).into_any();
        respond(cls, channel, decode(py, message.json())?, logged)
    }

    /// The response with a message of a channel.
    #[classmethod]
    fn create_response<'py>(
        cls: &Bound<'py, PyType>,
        channel: Bound<'py, PyAny>,
        message: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = cls.py();
        let response = response(channel, message)?;
        log(py, DEBUG, "Bus: %r", || (&response,).into_pyobject(py))?;
        Ok(response)
    }

    /// As `subscribe`, but returns JSON. The JSON of the message is as
    /// published.
    #[classmethod]
    #[pyo3(signature = (database, channels, last_message=None))]
    fn _subscribe_json(
        cls: &Bound<'_, PyType>,
        database: &str,
        channels: &Bound<'_, PyAny>,
        last_message: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let py = cls.py();
        let visit = visit(py)?;
        let logged = is_logged(py, INFO)?;
        let (poll, message) =
            wait(&visit, cls, database, channels, last_message, logged)?;
        let response = poll.response(message.as_deref(), relay_user(py)?);
        log(py, DEBUG, "Bus: %s", || (&response,).into_pyobject(py))?;
        Ok(response)
    }
}

/// Notes a call that runs Python.
///
/// Before Python 3.14 the exit of the interpreter ends a running daemon thread
/// by an unwinding that no Rust function survives. Therefore the exit waits for
/// running calls, and daemon threads that call later block here, as they do in
/// Python from 3.14 on.
fn visit(py: Python<'_>) -> PyResult<Visit> {
    let process = registry::current();
    let visit = process.clone().visit();
    if process.is_closed() && ENDS_AT_EXIT.get(py)?.call0()?.is_truthy()? {
        drop(visit);
        py.detach(|| {
            loop {
                thread::park();
            }
        });
    }
    Ok(visit)
}

fn wait(
    visit: &Visit,
    cls: &Bound<'_, PyType>,
    database: &str,
    channels: &Bound<'_, PyAny>,
    last_message: Option<&Bound<'_, PyAny>>,
    logged: bool,
) -> PyResult<(Poll, Option<Arc<Message>>)> {
    let py = cls.py();
    let channels = wire::channels(channels)?;
    let last = last_message.and_then(wire::id);
    let process = visit.process();
    let Some(bus) = listened(process, cls, database)? else {
        return Ok((Poll::new(channels), None));
    };
    if logged {
        log(py, INFO, "subscribe to %r on '%s'", || {
            (channels.join(","), database).into_pyobject(py)
        })?;
    }
    let mut poll = Poll::new(channels);
    restrict(py, process, database, &mut poll)?;
    let message = next_message(py, process, &bus, &poll, last.as_ref(), || {
        LONG_POLLING_TIMEOUT
            .get(py)?
            .call0()?
            .extract()
            .map(seconds)
    })?;
    Ok((poll, message))
}

/// The bus of a database, which has a listener from now on; none where the
/// listener has found already that the database does not exist.
fn listened(
    process: &Process,
    cls: &Bound<'_, PyType>,
    database: &str,
) -> PyResult<Option<Bus>> {
    if let Some(bus) = process.ask(database) {
        return Ok(Some(bus));
    }
    END_WITH_WORKER.get(cls.py())?.call0()?;
    ENSURE_LISTENER.get(cls.py())?.call1((cls, database))?;
    Ok(process.bus(database))
}

/// The response of the class. It is made here if the class does not override
/// `create_response`.
fn respond<'py>(
    cls: &Bound<'py, PyType>,
    channel: Bound<'py, PyAny>,
    message: Bound<'py, PyAny>,
    logged: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = cls.py();
    let create_response = cls.getattr(pyo3::intern!(py, "create_response"))?;
    // A function that replaces ours in the class is written in Python.
    let ours = cls.is(py.get_type::<PyBus>())
        && create_response.is_instance_of::<PyCFunction>();
    if ours && !logged {
        return response(channel, message).map(Bound::into_any);
    }
    create_response.call1((channel, message))
}

fn response<'py>(
    channel: Bound<'py, PyAny>,
    message: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = channel.py();
    let response = PyDict::new(py);
    response.set_item(pyo3::intern!(py, "message"), message)?;
    response.set_item(pyo3::intern!(py, "channel"), channel)?;
    Ok(response)
}

fn relay_user(py: Python<'_>) -> PyResult<bool> {
    RELAY_USER.get(py)?.call0()?.extract()
}

/// The current transaction.
///
/// # Errors
///
/// `RuntimeError` when there is none.
pub(super) fn transaction(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let transaction = TRANSACTION.get(py)?.call0()?;
    if transaction
        .getattr(pyo3::intern!(py, "connection"))?
        .is_none()
    {
        return Err(PyRuntimeError::new_err(
            "no transaction is started: publish within one",
        ));
    }
    Ok(transaction)
}

fn class(object: &Bound<'_, PyAny>) -> String {
    object
        .get_type()
        .name()
        .map_or_else(|_| "an unknown type".into(), |name| name.to_string())
}
