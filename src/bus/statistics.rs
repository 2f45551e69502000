//! The state of a bus at a moment, for metrics.
use super::Bus;
use crate::journal::Reading;

/// The state of a bus at a moment, and the counters of its events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// How many messages are retained.
    pub retained: usize,
    /// About how many bytes the retained messages and their indexes take.
    pub bytes: usize,
    /// How many subscribers wait.
    pub waiting: usize,
    /// How many messages were published since the bus was made.
    pub published: u64,
    /// How many messages were evicted for lack of memory, so that no poll can
    /// resume after them.
    pub evicted: u64,
    /// How many payloads were skipped because they are not valid messages.
    pub skipped: u64,
    /// How often messages may have been lost with the connection, because there
    /// is no journal.
    pub gaps: u64,
    /// How often the numbers of the journal went back, so that all of it was
    /// read anew.
    pub rewinds: u64,
    /// Whether the connection by which messages arrive is open.
    pub listening: bool,
    /// The part of PostgreSQL's queue of notifications that is in use, from 0
    /// to 1, as of the last reading.
    pub queue_usage: f64,
    /// The greatest number of the journal that was read; zero before the
    /// first, and without a journal.
    pub number: u64,
}

impl Bus {
    /// The state of the bus now, with its counters.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let state = self.lock();
        Statistics {
            retained: state.history.len(),
            bytes: state.history.bytes(),
            waiting: state.waitlist.len(),
            published: state.published,
            evicted: state.history.forgotten(),
            skipped: state.skipped,
            gaps: state.gaps,
            rewinds: state.rewinds,
            listening: state.listening,
            queue_usage: state.queue_usage,
            number: state.journal.as_ref().map_or(0, Reading::last),
        }
    }
}
