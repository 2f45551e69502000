//! The journal of a bus, for its listener.
use std::sync::Arc;

use super::{Bus, Crowd, State};
use crate::journal::{Mark, Reading, Request};
use crate::look::Looks;
use crate::message::Message;
use crate::waiter::Wake;

/// The journal of a bus. After the journal has become unusable, nothing here
/// has an effect.
#[derive(Clone, Copy, Debug)]
pub struct Journal<'a>(&'a Bus);

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Row {
    /// The message.
    Message(Message),
    /// The row has this number, and its payload is not a valid message.
    Skipped(u64),
    /// Nothing.
    None,
}

impl Bus {
    /// The journal, if there is one that can be read.
    #[must_use]
    pub fn journal(&self) -> Option<Journal<'_>> {
        self.lock().journal.is_some().then_some(Journal(self))
    }
}

impl Journal<'_> {
    /// Notes that the rows were read up to this one.
    pub fn pass(&self, mark: Mark) {
        if let Some(journal) = &mut self.0.lock().journal {
            journal.pass(mark);
        }
    }

    /// The last row that was read; none before the first row, and while all
    /// rows are read anew.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.0.lock().journal.as_ref().and_then(Reading::mark)
    }

    /// Starts to read all rows anew, because the mark is not among them.
    pub fn rewind(&self) {
        let State {
            journal, history, ..
        } = &mut *self.0.lock();
        if let Some(journal) = journal {
            journal.rewind(history);
        }
    }

    /// Whether a message whose row is announced with this number is published
    /// before the row is read.
    #[must_use]
    pub fn expects(&self, number: u64) -> bool {
        let state = self.0.lock();
        let journal = state.journal.as_ref();
        journal.is_some_and(|journal| journal.expects(number))
    }

    /// Notes that the rows up to this number were read. Returns the greatest
    /// numbers before and now if these are all rows and numbers went back,
    /// which is counted.
    #[must_use]
    pub fn end_read(&self, until: u64) -> Option<(u64, u64)> {
        let state = &mut *self.0.lock();
        let journal = state.journal.as_mut()?;
        let back = journal.end_read(until, &mut state.history);
        state.rewinds += u64::from(back.is_some());
        back
    }

    /// The first `limit` rows that polls wait for. The caller reads them after
    /// a look has ended. The bell rings if there are more.
    #[must_use]
    pub fn requests(&self, limit: usize) -> Vec<Request> {
        let state = self.0.lock();
        let Some(journal) = &state.journal else {
            return Vec::new();
        };
        if journal.requested() > limit {
            state.looks.iter().for_each(Looks::ring);
        }
        journal.requests(limit)
    }

    /// Answers a request with a row, or with the fact that there is none.
    /// Returns the waiter of the request, still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn answer(&self, key: u64, row: Row) -> Crowd {
        let mut state = self.0.lock();
        let taken = state.journal.as_mut();
        let taken = taken.and_then(|journal| journal.take_request(key));
        let (waiters, until) =
            taken.map_or((Vec::new(), 0), |(waiter, until)| (vec![waiter], until));
        let wake = match row {
            Row::Message(message) => Wake::Message(Arc::new(message)),
            Row::Skipped(number) => Wake::Read(number),
            Row::None => Wake::Read(until),
        };
        Crowd { wake, waiters }
    }
}
