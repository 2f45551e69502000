//! The bus of one database, as the code that listens to PostgreSQL sees it.
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::process::py_error;
use super::wire;
use crate::bus::Bus;
use crate::error::Error;
use crate::history::Bounds;
use crate::message::Message;
use crate::parts::Assembly;
use crate::registry;
use crate::sync::{Mutex, lock};

/// The bus of one database in this process.
#[pyclass(frozen, name = "DatabaseBus", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyDatabase {
    name: String,
    bus: Bus,
    /// The most bytes that a payload in parts may have.
    payload_max: usize,
    assembly: Mutex<Assembly>,
}

/// What has become of a notification.
enum Received {
    Message(Message),
    /// A part of a payload of which more are to come.
    Part,
    /// Refused; the second chance is Python's.
    Refused(Option<String>, Error),
}

#[pymethods]
impl PyDatabase {
    #[new]
    fn new(
        name: String,
        cache_timeout: f64,
        cache_size: usize,
        message_size: usize,
    ) -> Self {
        let bounds = Bounds {
            seconds: cache_timeout,
            bytes: cache_size,
        };
        Self {
            bus: registry::current().open(&name, bounds),
            name,
            // The newest message is retained even where it is larger than
            // all that is to be retained. Another process may allow larger
            // messages than this one.
            payload_max: cache_size.max(message_size),
            assembly: Mutex::default(),
        }
    }

    /// Put the notifications of a batch on the bus, in their order: each is
    /// whether it is a part, and its payload. Returns why others than
    /// messages were skipped.
    fn receive(
        &self,
        py: Python<'_>,
        notifications: Vec<(bool, Bound<'_, PyString>)>,
    ) -> PyResult<Vec<String>> {
        let mut received = Vec::with_capacity(notifications.len());
        let mut reasons = Vec::new();
        for (is_part, payload) in notifications {
            match payload.to_str() {
                Ok(payload) => received.push((is_part, payload.to_owned())),
                Err(_) => reasons.push("not a message: no Unicode text".to_owned()),
            }
        }
        let received: Vec<_> = py.detach(|| {
            let read = |(is_part, payload)| self.read(is_part, payload);
            received.into_iter().map(read).collect()
        });
        let mut messages = Vec::with_capacity(received.len());
        for received in received {
            match received {
                Received::Message(message) => messages.push(message),
                Received::Part => {}
                Received::Refused(payload, error) => {
                    match payload.map(|payload| wire::payload(py, &payload)) {
                        Some(Ok(message)) => messages.push(message),
                        Some(Err(error)) => reasons.push(error.to_string()),
                        None => reasons.push(error.to_string()),
                    }
                }
            }
        }
        self.bus.count_skipped(reasons.len());
        py.detach(|| registry::current().publish(&self.bus, messages))
            .map_err(|error| py_error(&error))?;
        Ok(reasons)
    }

    /// Note that the connection was lost, and with it what was under way.
    fn disconnected(&self) {
        lock(&self.assembly).clear();
        self.bus.disconnected();
    }

    /// Note that the database is listened to from now on.
    fn connected(&self) {
        self.bus.connected();
    }

    /// Drop the messages that are too old.
    fn expire(&self, py: Python<'_>) {
        py.detach(|| self.bus.expire(registry::current().now()));
    }

    /// How many subscribers wait.
    #[getter]
    fn waiting(&self) -> usize {
        self.bus.statistics().waiting
    }

    /// Forget the bus, unless somebody waits.
    fn remove(&self) {
        registry::current().remove(&self.name);
    }
}

impl PyDatabase {
    fn read(&self, is_part: bool, payload: String) -> Received {
        let whole = if is_part {
            let pushed = lock(&self.assembly).push(&payload, self.payload_max);
            match pushed {
                Ok(Some(whole)) => whole,
                Ok(None) => return Received::Part,
                Err(error) => return Received::Refused(None, error),
            }
        } else {
            payload
        };
        match Message::parse(&whole) {
            Ok(message) => Received::Message(message),
            Err(error) => Received::Refused(Some(whole), error),
        }
    }
}
