//! Looks into the database, and the polls that wait for one.
//!
//! A poll may name a message that this process has not received yet, because
//! its client got it from another process. To treat it as unknown would show
//! the client old messages again. Therefore the listener first makes a round
//! trip to the database: a look. When the look has ended, all messages that
//! were committed before it began are on the bus.
use std::sync::Arc;

use crate::alarm::Bell;
use crate::waiter::Waiter;
use crate::waitlist::{All, Waitlist};

/// The only channel of the list of waiters.
const LOOK: &str = "look";

/// The looks into one database.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// The number of the look that was begun last, and of the one that has
    /// ended last.
    begun: u64,
    ended: u64,
    /// Whether a poll waits for a look that has not begun.
    wanted: bool,
    waiting: Waitlist,
    /// Tells the listener that a look is wanted.
    bell: Option<Bell>,
}

impl Looks {
    /// Begins a look. A poll that arrives from now on waits for the next one.
    pub(crate) fn begin(&mut self) {
        self.begun += 1;
        self.wanted = false;
    }

    /// Ends the look that was begun last; returns the polls that waited.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn end(&mut self) -> All {
        self.ended = self.begun;
        self.waiting.take_all()
    }

    /// Whether a look has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended > 0
    }

    /// Whether the look with this number has ended.
    pub(crate) fn has_reached(&self, number: u64) -> bool {
        self.ended >= number
    }

    /// The number of the first look that begins from now on.
    pub(crate) fn next(&self) -> u64 {
        self.begun + 1
    }

    /// Registers a poll that waits until the look with this number has ended;
    /// returns the key to remove it with.
    pub(crate) fn wait(&mut self, number: u64, waiter: Arc<Waiter>) -> usize {
        if number > self.begun && !self.wanted {
            self.wanted = true;
            self.ring();
        }
        self.waiting.insert(&[LOOK], waiter)
    }

    /// Removes a waiter, if it still waits.
    pub(crate) fn remove(&mut self, key: usize, waiter: &Arc<Waiter>) {
        self.waiting.remove(key, waiter);
    }

    /// Takes out all waiters.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn take_all(&mut self) -> All {
        self.waiting.take_all()
    }

    /// The number of polls that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Sets the bell by which the listener is told that a look is wanted.
    pub(crate) fn set_bell(&mut self, bell: Bell) {
        self.bell = Some(bell);
        if self.wanted {
            self.ring();
        }
    }

    /// Tells the listener that a look is wanted.
    pub(crate) fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }
}
