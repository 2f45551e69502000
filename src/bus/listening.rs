//! The part of a bus that its listener uses: the connection, and looks into the
//! database.
use super::{Bus, Crowd};
use crate::alarm::Bell;
use crate::look::Looks;
use crate::waiter::Wake;

impl Bus {
    /// Makes polls wait for the looks that they need, because the database has
    /// a listener, or will have one.
    pub fn expect_looks(&self) {
        self.lock().looks.get_or_insert_default();
    }

    /// Sets the bell by which the listener is told that a look is wanted.
    pub fn set_bell(&self, bell: Bell) {
        let mut state = self.lock();
        let has_requests = state.journal.as_ref().is_some_and(|j| j.requested() > 0);
        if has_requests {
            bell.ring();
        }
        state.looks.get_or_insert_default().set_bell(bell);
    }

    /// Tells the listener that a look is wanted.
    pub fn ring(&self) {
        if let Some(looks) = &self.lock().looks {
            looks.ring();
        }
    }

    /// Whether a poll waits for a look.
    #[must_use]
    pub fn is_look_awaited(&self) -> bool {
        let state = self.lock();
        state.looks.as_ref().is_some_and(|looks| looks.len() > 0)
    }

    /// Notes that a look begins.
    pub fn begin_look(&self) {
        if let Some(looks) = &mut self.lock().looks {
            looks.begin();
        }
    }

    /// Notes that the look has ended and that its messages are published.
    /// Returns the polls that waited for it, still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn end_look(&self) -> Crowd {
        let all = self.lock().looks.as_mut().map(Looks::end);
        Crowd {
            wake: Wake::Looked,
            waiters: all.map(Into::into).unwrap_or_default(),
        }
    }

    /// Counts payloads that are not valid messages.
    pub fn count_skipped(&self, payloads: usize) {
        self.lock().skipped += payloads as u64;
    }

    /// Notes that the connection is open.
    pub fn connected(&self) {
        self.lock().listening = true;
    }

    /// Notes that the connection is lost, and counts a gap unless there is a
    /// journal.
    pub fn disconnected(&self) {
        let mut state = self.lock();
        state.listening = false;
        if state.journal.is_none() {
            state.gaps += 1;
        }
    }

    /// Notes the part of PostgreSQL's queue of notifications that is in use.
    pub fn set_queue_usage(&self, usage: f64) {
        self.lock().queue_usage = usage;
    }
}
