//! How far the journal of a database was read, and the polls that wait for a row
//! of their own.
//!
//! A poll may name a message that was evicted for lack of memory. It is served
//! row by row from the journal until it catches up with the history.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::history::History;
use crate::message::{Message, Number};
use crate::waiter::Waiter;

/// A request of a poll for the first row in its channels.
#[derive(Clone, Debug)]
pub struct Request {
    /// The key by which the request is answered.
    pub key: u64,
    /// The channels.
    pub channels: Vec<String>,
    /// The row's number is above this one.
    pub after: u64,
    /// The row's number is at most this one.
    pub until: u64,
}

/// The last row that was read. As long as this row is in the table, numbers
/// mean the same as before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Its number.
    pub number: u64,
    /// When it was committed, in seconds on the clock of the database.
    pub created: f64,
}

/// The greatest journal number, which is that of PostgreSQL and SQLite.
pub const NUMBER_MAX: u64 = i64::MAX as u64;

/// How far the journal of one database was read.
///
/// Only rows advance it. The number in a NOTIFY is no more than a hint to read,
/// because any role of the database may have sent it. If that number is the one
/// after the last row, no row can be missing in between. The message is then
/// published at once, as a message without a number. When the rows are read,
/// the row with this number and the same content confirms it. Otherwise the
/// NOTIFY was forged, and has spoiled nothing: a role that can forge it can also
/// send a message without a number.
#[derive(Debug)]
pub(crate) struct Reading {
    /// None before the first row, and while all rows are read anew.
    mark: Option<Mark>,
    again: Option<Again>,
    announced: Option<Announced>,
    /// The requests of polls that wait for a row, by key.
    requests: BTreeMap<u64, (Request, Arc<Waiter>)>,
    /// The key of the next request.
    next: u64,
}

/// A message that was published before its row was read. There is one at a time.
/// If a second number were believed before the row of the first one is seen, a
/// forged NOTIFY could publish messages in another order than their rows have.
#[derive(Debug)]
struct Announced {
    number: u64,
    /// Its place in the history.
    place: u64,
    message: Arc<Message>,
}

/// The state while rows are read that may have been read before.
#[derive(Debug)]
struct Again {
    before: Option<Mark>,
    /// The place in the history of the first message that arrived since. A row
    /// whose message is before that place is not new.
    known: u64,
    /// Whether a number that was used before belongs to a new message.
    is_back: bool,
}

impl Reading {
    /// A journal that was read up to the mark. The rows that follow may contain
    /// messages of the history that arrived while the journal was not used.
    pub(crate) fn new(mark: Option<Mark>, history: &History) -> Self {
        Self {
            mark,
            again: Some(Again {
                before: mark,
                known: history.end(),
                is_back: false,
            }),
            announced: None,
            requests: BTreeMap::new(),
            next: 0,
        }
    }

    /// Appends a message to the history if it is new. A message without a
    /// number always is. A message of a row is new unless the row was read
    /// before, or its message was published before. The row of an announced
    /// message is read if that is not expected.
    pub(crate) fn append(
        &mut self,
        message: Message,
        history: &mut History,
        now: Duration,
    ) -> Option<Arc<Message>> {
        let number = match message.source() {
            Number::None => return Some(history.append(message, now)),
            Number::Announced(number) => {
                // A known message may have been announced before numbers went
                // back.
                let is_known = history.resume::<&str>(message.id(), &[]).is_some();
                if is_known || !self.expects(number) {
                    return None;
                }
                let place = history.end();
                let message = history.append(message, now);
                self.announced = Some(Announced {
                    number,
                    place,
                    message: message.clone(),
                });
                return Some(message);
            }
            Number::Read(number) => number,
        };
        if self.mark.is_some_and(|mark| number <= mark.number) {
            return None;
        }
        match self.place(number, &message, history) {
            Some(place) => {
                history.confirm(place, message);
                None
            }
            None => Some(history.append(message, now)),
        }
    }

    /// The place at which the message of a row was published before the row was
    /// read; none if it is new.
    fn place(
        &mut self,
        number: u64,
        message: &Message,
        history: &History,
    ) -> Option<u64> {
        let is_announced = |announced: &&Announced| {
            announced.number == number && announced.message.is_same(message)
        };
        if let Some(announced) = self.announced.as_ref().filter(is_announced) {
            return Some(announced.place);
        }
        let again = self.again.as_mut()?;
        let place = history.resume::<&str>(message.id(), &[]);
        let place = place.filter(|place| *place < again.known);
        again.is_back |=
            place.is_none() && again.before.is_some_and(|mark| number <= mark.number);
        place
    }

    /// Whether a message whose row is announced with this number can be
    /// published before the row is read: no row is between it and the last one,
    /// and no other announced row has to be read.
    pub(crate) fn expects(&self, number: u64) -> bool {
        let is_next = |mark: Mark| mark.number.checked_add(1) == Some(number);
        self.again.is_none()
            && self.announced.is_none()
            && self.mark.is_some_and(is_next)
    }

    /// Notes that the rows were read up to this one.
    pub(crate) fn pass(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    /// The last row that was read; none while all rows are read anew.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// The greatest number that was read; zero before the first.
    pub(crate) fn last(&self) -> u64 {
        let before = || self.again.as_ref()?.before;
        self.mark.or_else(before).map_or(0, |mark| mark.number)
    }

    /// Starts to read all rows anew. The mark is not in the table, so the
    /// numbers may mean something else. Messages in the history are not new.
    pub(crate) fn rewind(&mut self, history: &History) {
        let again = self.again.take();
        let (before, is_back) =
            again.map_or((None, false), |again| (again.before, again.is_back));
        self.again = Some(Again {
            before: self.mark.take().or(before),
            known: history.end(),
            is_back,
        });
    }

    /// Notes that the rows up to this number were read; returns the greatest
    /// numbers before and now if these are all rows and numbers went back.
    pub(crate) fn end_read(
        &mut self,
        until: u64,
        history: &mut History,
    ) -> Option<(u64, u64)> {
        // A row that was announced and not found does not exist.
        self.announced
            .take_if(|announced| announced.number <= until);
        if until < NUMBER_MAX {
            return None;
        }
        let again = self.again.take()?;
        if self.mark.is_none() {
            // An empty table proves nothing, because all rows may have expired,
            // or may be restored later.
            self.mark = again.before;
            self.again = Some(again);
            return None;
        }
        let (before, now) = (again.before?.number, self.last());
        if !again.is_back && now >= before {
            return None;
        }
        // The evicted messages have the old numbers.
        history.forget_evicted();
        Some((before, now))
    }

    /// Registers a poll that waits for the first row in its channels with a
    /// number above `after`, up to `until`; returns the key of its request.
    pub(crate) fn request(
        &mut self,
        channels: &[impl AsRef<str>],
        after: u64,
        until: u64,
        waiter: Arc<Waiter>,
    ) -> u64 {
        let key = self.next;
        self.next += 1;
        let channels = channels.iter().map(|name| name.as_ref().to_owned());
        let request = Request {
            key,
            channels: channels.collect(),
            after,
            until,
        };
        self.requests.insert(key, (request, waiter));
        key
    }

    /// Removes a request, if it is still there.
    pub(crate) fn remove(&mut self, key: u64) {
        self.requests.remove(&key);
    }

    /// The number of requests.
    pub(crate) fn requested(&self) -> usize {
        self.requests.len()
    }

    /// The first `limit` rows that polls wait for.
    pub(crate) fn requests(&self, limit: usize) -> Vec<Request> {
        let requests = self.requests.values().take(limit);
        requests.map(|(request, _)| request.clone()).collect()
    }

    /// Takes out the waiter of this request; returns it with the greatest
    /// number of the request.
    pub(crate) fn take_request(&mut self, key: u64) -> Option<(Arc<Waiter>, u64)> {
        let (request, waiter) = self.requests.remove(&key)?;
        Some((waiter, request.until))
    }

    /// Takes out all requests; returns the polls that waited.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Waiter>> {
        let requests = std::mem::take(&mut self.requests);
        requests.into_values().map(|(_, waiter)| waiter).collect()
    }
}
