//! The bus of one database, for its listener.
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::alarm::PyBell;
use super::process::{self, py_error, seconds};
use super::wire;
use crate::bus::{Bus, Mark, Row};
use crate::error::Error;
use crate::history::Bounds;
use crate::message::{Hint, Message};
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

/// How many payloads announce rows, and the greatest number of these rows.
type Announced = (usize, u64);

/// The result of reading a payload.
enum Received {
    Message(Message),
    /// A part that does not complete its payload.
    Part,
    /// The payload was refused. Python tries again to read it.
    Refused(Option<String>, Error),
}

#[pymethods]
impl PyDatabase {
    #[new]
    fn new(
        name: String,
        cache_timeout: f64,
        cache_size: usize,
        payload_max: usize,
        journal_timeout: Option<f64>,
    ) -> Self {
        let bounds = Bounds {
            cache_timeout: seconds(cache_timeout),
            journal_timeout: journal_timeout.map(seconds),
            cache_size,
        };
        let bus = registry::current().open(&name, bounds);
        Self {
            bus,
            name,
            bounds,
            payload_max,
            assembly: Mutex::default(),
        }
    }

    /// Put the payloads of a batch on the bus, in their order. Each is a pair
    /// of whether it is a part, and its text. With a journal this ends before
    /// the first payload that announces a row, because rows have to be read
    /// then. If that is the next row of the table with the object identifier
    /// `table`, its message is put on the bus as well.
    ///
    /// Returns how many payloads were processed, the rows to be read, and the
    /// reasons of the payloads that were skipped. The rows are none, or the
    /// number of payloads that follow and announce rows, and the greatest
    /// number of these rows.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 passes values")]
    fn receive(
        &self,
        py: Python<'_>,
        notifications: Vec<(bool, Bound<'_, PyString>)>,
        table: Option<u32>,
    ) -> PyResult<(usize, Option<Announced>, Vec<String>)> {
        let has_journal = self.has_journal();
        let hint = |(is_part, payload): &(bool, Bound<'_, PyString>)| {
            let payload = payload.to_str().ok().filter(|_| has_journal)?;
            Hint::parse(*is_part, payload)
        };
        let live = notifications.iter().position(|other| hint(other).is_some());
        let (live, rest) = notifications.split_at(live.unwrap_or(notifications.len()));
        let hints: Vec<_> = rest.iter().map_while(hint).collect();
        let (mut messages, reasons) = self.read_all(py, live);
        let next = hints.first().and_then(|hint| {
            let journal = self.bus.journal()?;
            let is_next = hint.table == Some(table?) && journal.expects(hint.number);
            let payload = rest[0].1.to_str().ok().filter(|_| is_next)?;
            Some(Message::parse(payload).ok()?.announced(hint.number))
        });
        let is_next = usize::from(next.is_some());
        messages.extend(next);
        let greatest = hints.iter().map(|hint| hint.number).max();
        let announced = greatest.map(|number| (hints.len() - is_next, number));
        let reasons = self.publish(py, messages, reasons)?;
        Ok((live.len() + is_next, announced, reasons))
    }

    /// Put rows of the journal on the bus, in their order, except those that
    /// were read before. Each row is its number, the time of its commit and its
    /// age, both in seconds, and its payload: none for a row that was read
    /// before, empty for a row that is too large. Returns the reasons of the
    /// rows that were skipped because they are not valid messages.
    fn replay(
        &self,
        py: Python<'_>,
        rows: Vec<(u64, f64, f64, Option<String>)>,
    ) -> PyResult<Vec<String>> {
        let last = rows.last().map(|(number, created, ..)| Mark {
            number: *number,
            created: *created,
        });
        // The clock of the database may have been set. No row counts as younger
        // than the next one, or as younger than now.
        let mut youngest = Duration::ZERO;
        let mut ages: Vec<_> = rows
            .iter()
            .rev()
            .map(|(_, _, age, _)| {
                youngest = seconds(*age).max(youngest);
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
            let message = parsed.or_else(|payload| match &*payload {
                "" => Err(Error::TooLarge),
                _ => wire::payload(py, &payload),
            });
            match message {
                Ok(message) => messages.push(message.numbered(number).aged(age)),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let reasons = self.publish(py, messages, reasons)?;
        if let (Some(mark), Some(journal)) = (last, self.bus.journal()) {
            journal.pass(mark);
        }
        Ok(reasons)
    }

    /// The retained messages in any channel, from this place on. Returns the
    /// place after the last one, and for each message its age in seconds, its
    /// channel, and its JSON.
    fn messages(&self, place: u64) -> (u64, Vec<(f64, String, String)>) {
        let (end, found) = self.bus.messages(place);
        let now = registry::current().now();
        let shown = found.into_iter().map(|(time, message)| {
            (
                now.saturating_sub(time).as_secs_f64(),
                message.channel().to_owned(),
                message.json().to_owned(),
            )
        });
        (end, shown.collect())
    }

    /// Whether there is a journal that can be read.
    #[getter]
    fn has_journal(&self) -> bool {
        self.bus.journal().is_some()
    }

    /// The number of the last row that was read; zero before the first row, and
    /// while all rows are read anew.
    #[getter]
    fn position(&self) -> u64 {
        self.mark().map_or(0, |mark| mark.number)
    }

    /// Whether these are the number and the time of commit, in seconds, of the
    /// last row that was read.
    fn is_mark(&self, number: u64, created: f64) -> bool {
        self.mark() == Some(Mark { number, created })
    }

    /// Start to read all rows of the journal anew, because the last row that
    /// was read is not in the table. Known messages are not published again.
    fn rewind(&self) {
        if let Some(journal) = self.bus.journal() {
            journal.rewind();
        }
    }

    /// Note that the rows up to the number `until` were read. Returns the
    /// greatest numbers before and now if these are all rows, and numbers went
    /// back.
    fn end_read(&self, until: u64) -> Option<(u64, u64)> {
        self.bus.journal()?.end_read(until)
    }

    /// Set the bell that asks the listener for a look.
    fn set_bell(&self, bell: &PyBell) {
        self.bus.set_bell(bell.bell());
    }

    /// Ask the listener for a look.
    fn ring(&self) {
        self.bus.ring();
    }

    /// Whether a poll waits for a look.
    #[getter]
    fn is_look_awaited(&self) -> bool {
        self.bus.is_look_awaited()
    }

    /// Begin a look.
    fn begin_look(&self) {
        self.bus.begin_look();
    }

    /// End the look, whose messages are on the bus.
    fn end_look(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| registry::current().end_look(&self.bus))
            .map_err(|error| py_error(&error))
    }

    /// The first `limit` rows that polls wait for, because their last message
    /// was evicted. Each is a key, the channels, and two numbers. The number of
    /// the row is above the first one and at most the second one.
    fn requests(&self, limit: usize) -> Vec<(u64, Vec<String>, u64, u64)> {
        let journal = self.bus.journal();
        let requests = journal.map(|journal| journal.requests(limit));
        let requests = requests.unwrap_or_default().into_iter();
        requests
            .map(|request| {
                (request.key, request.channels, request.after, request.until)
            })
            .collect()
    }

    /// Answer the request with this key by the row that was found, or by none.
    /// Returns the reason if the row was skipped because it is not a valid
    /// message.
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
                    let message = message.numbered(number).aged(seconds(age));
                    (Row::Message(message), None)
                }
                Err(error) => (Row::Skipped(number), Some(error.to_string())),
            },
        };
        py.detach(|| registry::current().answer(&self.bus, key, row))
            .map_err(|error| py_error(&error))?;
        Ok(reason)
    }

    /// Set whether there is a journal that can be read. It has no effect if the
    /// journal is off.
    fn use_journal(&self, usable: bool) {
        let bounds = Bounds {
            journal_timeout: self.bounds.journal_timeout.filter(|_| usable),
            ..self.bounds
        };
        self.bus.set_bounds(bounds).wake();
    }

    /// Note the part of PostgreSQL's queue of notifications that is in use,
    /// from 0 to 1.
    fn set_queue_usage(&self, usage: f64) {
        self.bus.set_queue_usage(usage);
    }

    /// Note that the connection was lost, and drop an incomplete payload.
    fn disconnected(&self) {
        lock(&self.assembly).clear();
        self.bus.disconnected();
    }

    /// Note that the connection is open.
    fn connected(&self) {
        self.bus.connected();
    }

    /// Drop the messages that have expired.
    fn expire(&self, py: Python<'_>) {
        py.detach(|| self.bus.expire(registry::current().now()));
    }

    /// How many messages were evicted for lack of memory, so that no poll can
    /// resume after them.
    #[getter]
    fn evicted(&self) -> u64 {
        self.bus.statistics().evicted
    }

    /// Note that the database has a listener, and counts as polled now.
    fn listen(&self) {
        registry::current().listen(&self.name);
    }

    /// Note that the database has no listener any more. The next poll starts
    /// another one.
    fn abandon(&self) {
        registry::current().abandon(&self.name);
    }

    /// Whether there is no waiter, and no poll arrived in the last `seconds`
    /// seconds.
    fn is_idle(&self, seconds: f64) -> bool {
        registry::current().is_idle(&self.name, process::seconds(seconds))
    }

    /// Remove the bus and end its waits, because the database does not exist
    /// any more.
    fn forget(&self, py: Python<'_>) {
        py.detach(|| registry::current().forget(&self.name));
    }

    /// Remove the bus if it is idle for `seconds` seconds; returns whether it
    /// was.
    fn remove(&self, seconds: f64) -> bool {
        registry::current().remove(&self.name, process::seconds(seconds))
    }
}

impl PyDatabase {
    fn mark(&self) -> Option<Mark> {
        self.bus.journal()?.mark()
    }

    /// Puts the messages on the bus, and counts the payloads that were skipped.
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

    /// Reads payloads; returns their messages, and the reasons of the payloads
    /// that are not valid.
    fn read_all(
        &self,
        py: Python<'_>,
        payloads: &[(bool, Bound<'_, PyString>)],
    ) -> (Vec<Message>, Vec<String>) {
        let mut reasons = Vec::new();
        let mut received = Vec::with_capacity(payloads.len());
        for (is_part, payload) in payloads {
            match payload.to_str() {
                Ok(payload) => received.push((*is_part, payload.to_owned())),
                Err(_) => reasons.push("not a message: no Unicode text".to_owned()),
            }
        }
        let received: Vec<_> = py.detach(|| {
            let read = |(is_part, payload)| self.read(is_part, payload);
            received.into_iter().map(read).collect()
        });
        let mut messages = Vec::with_capacity(received.len() + 1);
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
        (messages, reasons)
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
