//! The pauses between one failed question and the next.
use std::time::Duration;

/// Pauses that double, from a least to a greatest one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) const fn new(min: Duration, max: Duration) -> Self {
        Self { next: min, max }
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let next = self.next;
        self.next = (next * 2).min(self.max);
        next
    }
}
