//! The bus of one database, as the code that listens to it sees it.
use std::os::fd::{AsRawFd, RawFd};

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::process::py_error;
use super::wire;
use crate::alarm::{Alarm, Bell};
use crate::bus::{Bus, Mark, Row};
use crate::error::Error;
use crate::history::Bounds;
use crate::message::{Message, hint};
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
    bounds: Bounds,
}

/// Wakes the thread that listens.
#[pyclass(frozen, name = "Alarm", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyAlarm(Alarm);

/// Rings an alarm for one database.
#[pyclass(frozen, name = "Bell", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyBell(Bell);

#[pymethods]
impl PyAlarm {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Alarm::new()?))
    }

    /// A descriptor that is readable while a bell has rung.
    fn fileno(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// A bell with this key.
    fn bell(&self, key: u64) -> PyBell {
        PyBell(self.0.bell(key))
    }

    /// The keys of the bells that rang since the last call.
    fn take(&self) -> Vec<u64> {
        self.0.take()
    }
}

#[pymethods]
impl PyBell {
    /// Ring.
    fn ring(&self) {
        self.0.ring();
    }
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
        journal_timeout: Option<f64>,
    ) -> Self {
        let bounds = Bounds {
            seconds: cache_timeout,
            journal: journal_timeout,
            bytes: cache_size,
        };
        let bus = registry::current().open(&name, bounds);
        Self {
            bus,
            name,
            bounds,
            // The newest message is retained even where it is larger than
            // all that is to be retained. Another process may allow larger
            // messages than this one.
            payload_max: cache_size.max(message_size),
            assembly: Mutex::default(),
        }
    }

    /// Put the notifications of a batch on the bus, in their order: each is
    /// whether it is a part, and its payload. Where there is a journal it ends
    /// before the first that has a number, for which rows are to be read.
    /// Returns how many were dealt with, and why some of these were skipped.
    fn receive(
        &self,
        py: Python<'_>,
        notifications: Vec<(bool, Bound<'_, PyString>)>,
    ) -> PyResult<(usize, Vec<String>)> {
        let has_journal = self.bus.has_journal();
        let mut taken = 0;
        let mut received = Vec::with_capacity(notifications.len());
        let mut reasons = Vec::new();
        for (is_part, payload) in notifications {
            match payload.to_str() {
                Ok(payload) if has_journal && hint(is_part, payload).is_some() => break,
                Ok(payload) => received.push((is_part, payload.to_owned())),
                Err(_) => reasons.push("not a message: no Unicode text".to_owned()),
            }
            taken += 1;
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
        Ok((taken, self.publish(py, messages, reasons)?))
    }

    /// How many notifications at the beginning of a batch have a number, and
    /// the greatest of these numbers.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 passes values")]
    #[staticmethod]
    fn hinted(notifications: Vec<(bool, Bound<'_, PyString>)>) -> (usize, u64) {
        let hints = notifications.iter().map_while(|(is_part, payload)| {
            payload
                .to_str()
                .ok()
                .and_then(|payload| hint(*is_part, payload))
        });
        hints.fold((0, 0), |(count, most), number| {
            (count + 1, most.max(number))
        })
    }

    /// Put rows of the journal on the bus, in their order, but for those that
    /// were read before: each is its number, when it was committed and how
    /// long ago that is, in seconds, and its payload, none for a row that was
    /// read before. Returns why others than messages were skipped.
    fn replay(
        &self,
        py: Python<'_>,
        rows: Vec<(u64, f64, f64, Option<String>)>,
    ) -> PyResult<Vec<String>> {
        let last = rows.last().map(|(number, created, ..)| Mark {
            number: *number,
            created: *created,
        });
        // The clock of the database may have been set: no row is younger than
        // one that follows it, or than nothing.
        let mut youngest = 0.0;
        let mut ages: Vec<f64> = rows
            .iter()
            .rev()
            .map(|(_, _, age, _)| {
                youngest = age.max(youngest);
                youngest
            })
            .collect();
        let parsed: Vec<_> = py.detach(|| {
            let mut parsed = Vec::with_capacity(rows.len());
            for (number, _, _, payload) in rows {
                let age = ages.pop().unwrap_or_default();
                if let Some(payload) = payload {
                    let message = Message::parse(&payload).map_err(|_| payload);
                    parsed.push((number, age, message));
                }
            }
            parsed
        });
        let mut messages = Vec::with_capacity(parsed.len());
        let mut reasons = Vec::new();
        for (number, age, parsed) in parsed {
            match parsed.or_else(|payload| wire::payload(py, &payload)) {
                Ok(message) => messages.push(message.numbered(number).aged(age)),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let reasons = self.publish(py, messages, reasons)?;
        if let Some(mark) = last {
            self.bus.pass(mark);
        }
        Ok(reasons)
    }

    /// Whether there is a journal that can be read.
    #[getter]
    fn has_journal(&self) -> bool {
        self.bus.has_journal()
    }

    /// The number of the row that was read last; zero before the first, and
    /// while all rows are read anew.
    #[getter]
    fn position(&self) -> u64 {
        self.bus.mark().map_or(0, |mark| mark.number)
    }

    /// Whether this is the number of the row that was read last, and when that
    /// was committed, in seconds.
    fn is_mark(&self, number: u64, created: f64) -> bool {
        self.bus.mark() == Some(Mark { number, created })
    }

    /// Have all rows of the journal read anew, but for the messages that are
    /// known: the row that was read last is not among them.
    fn rewind(&self) {
        self.bus.rewind();
    }

    /// Note that all rows were read. Returns the greatest numbers before and
    /// now if numbers went back.
    fn end_rewind(&self) -> Option<(u64, u64)> {
        self.bus.end_rewind()
    }

    /// Set the bell by which the listener is told that a look is wanted.
    fn set_bell(&self, bell: &PyBell) {
        self.bus.set_bell(bell.0.clone());
    }

    /// Tell the listener that a look is wanted.
    fn ring(&self) {
        self.bus.ring();
    }

    /// Whether a poll waits for a look.
    #[getter]
    fn is_look_awaited(&self) -> bool {
        self.bus.is_look_awaited()
    }

    /// Begin a look into the database.
    fn begin_look(&self) {
        self.bus.begin_look();
    }

    /// End the look: all that was found is on the bus.
    fn end_look(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| registry::current().end_look(&self.bus))
            .map_err(|error| py_error(&error))
    }

    /// The rows that polls wait for which know a message that left for want
    /// of room, at most so many: the key of each, its channels, and the
    /// numbers that it is above and up to.
    fn requests(&self, limit: usize) -> Vec<(u64, Vec<String>, u64, u64)> {
        let requests = self.bus.requests(limit).into_iter();
        requests
            .map(|request| {
                (request.key, request.channels, request.after, request.until)
            })
            .collect()
    }

    /// Answer the request with this key by the row that was found, if one
    /// was. Returns why it was skipped where it is no message.
    fn answer(
        &self,
        py: Python<'_>,
        key: u64,
        row: Option<(u64, f64, String)>,
    ) -> PyResult<Option<String>> {
        let (row, reason) = match row {
            None => (Row::None, None),
            Some((number, age, payload)) => match wire::payload(py, &payload) {
                Ok(message) => {
                    let message = message.numbered(number).aged(age.max(0.0));
                    (Row::Message(message), None)
                }
                Err(error) => (Row::Skipped(number), Some(error.to_string())),
            },
        };
        py.detach(|| registry::current().answer(&self.bus, key, row))
            .map_err(|error| py_error(&error))?;
        Ok(reason)
    }

    /// Say whether there is a journal that can be read, where it is wanted.
    fn use_journal(&self, usable: bool) {
        let journal = self.bounds.journal.filter(|_| usable);
        let bounds = Bounds {
            journal,
            ..self.bounds
        };
        self.bus.set_bounds(bounds).run();
    }

    /// Note the part of PostgreSQL's queue of notifications that is in use,
    /// from 0 to 1.
    fn set_queue_usage(&self, usage: f64) {
        self.bus.set_queue_usage(usage);
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

    /// How many messages can't be asked for any more before their time, for
    /// want of room.
    #[getter]
    fn evicted(&self) -> u64 {
        self.bus.statistics().evicted
    }

    /// Note that the database has a listener, and that somebody asked.
    fn listen(&self) {
        registry::current().listen(&self.name);
    }

    /// Note that it has none any more: the next poll starts another one.
    fn abandon(&self) {
        registry::current().abandon(&self.name);
    }

    /// Whether nobody waits, nor has asked for so many seconds.
    fn is_idle(&self, seconds: f64) -> bool {
        registry::current().is_idle(&self.name, seconds)
    }

    /// Forget the bus, whose database does not exist any more: all waits end.
    fn forget(&self, py: Python<'_>) {
        py.detach(|| registry::current().forget(&self.name));
    }

    /// Forget the bus if it is idle for so long; whether it was.
    fn remove(&self, seconds: f64) -> bool {
        registry::current().remove(&self.name, seconds)
    }
}

impl PyDatabase {
    /// Puts the messages on the bus, and counts those that were none.
    fn publish(
        &self,
        py: Python<'_>,
        messages: Vec<Message>,
        reasons: Vec<String>,
    ) -> PyResult<Vec<String>> {
        self.bus.count_skipped(reasons.len());
        py.detach(|| registry::current().publish(&self.bus, messages))
            .map_err(|error| py_error(&error))?;
        Ok(reasons)
    }

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
