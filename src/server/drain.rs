//! The end of the server, without a client that notices.
use std::future::poll_fn;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::time::{Instant, sleep_until};

use crate::sync::{Mutex, lock};

/// How long, after the drain, a connection that has had an answer may wait to
/// begin its next request.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// The time before the end in which no connection is accepted any more: its
/// maximum, and its share of the drain. A client that is answered at the end
/// would otherwise return to this server.
const CLOSED: Duration = Duration::from_millis(500);
const CLOSED_PART: u32 = 4;

/// Whether the server is about to stop, and when each poll then ends.
///
/// Clients whose polls end at once would return at once. So the polls that wait
/// when the drain begins are answered one after the other, and later polls at
/// its end, when another server can take them.
#[derive(Debug, Default)]
pub(super) struct Drain {
    period: OnceLock<Period>,
    /// The tasks to wake when the drain begins.
    tasks: Mutex<Slab<Waker>>,
    /// How many polls have taken a turn.
    polls: AtomicU32,
}

/// A task that is woken when the drain begins, until this is dropped.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    drain: &'a Drain,
    key: usize,
}

/// The time of a drain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    from: Instant,
    length: Duration,
}

impl Period {
    /// When the last connections are accepted.
    pub(super) fn closing(&self) -> Instant {
        let closed = CLOSED.min(self.length / CLOSED_PART);
        self.from + self.length.saturating_sub(closed)
    }

    /// The end of the drain.
    pub(super) fn end(&self) -> Instant {
        self.from + self.length
    }
}

impl Drain {
    /// Begins the drain, which takes `length`; returns its period. Only the
    /// first call counts.
    pub(super) fn begin(&self, length: Duration) -> Period {
        let from = Instant::now();
        let period = *self.period.get_or_init(|| Period { from, length });
        let tasks: Vec<_> = {
            let tasks = lock(&self.tasks);
            tasks.iter().map(|(_, waker)| waker.clone()).collect()
        };
        tasks.into_iter().for_each(Waker::wake);
        period
    }

    /// Whether the drain has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.period.get().is_some()
    }

    /// Has this task woken when the drain begins. Registered once for each
    /// connection, rather than for each wait. The woken task asks
    /// [`Drain::end`].
    pub(super) async fn watch(&self) -> Watch<'_> {
        poll_fn(|context| {
            let key = lock(&self.tasks).insert(context.waker().clone());
            Poll::Ready(Watch { drain: self, key })
        })
        .await
    }

    /// Ready when a connection tells its client that no other request is taken.
    /// A connection that exists when the drain begins does so at once, a later
    /// one at the end, because its client would return to this server. The task
    /// watches the drain.
    pub(super) async fn farewell(&self) {
        if let Some(end) = self.end() {
            sleep_until(end).await;
        } else {
            poll_fn(|_| match self.end() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            })
            .await;
        }
    }

    /// The end of the drain, if it has begun.
    pub(super) fn end(&self) -> Option<Instant> {
        self.period.get().map(Period::end)
    }

    /// Until when a connection that has waited for a request since `since` may
    /// begin one, if the drain has begun.
    pub(super) fn last_request(&self, since: Instant) -> Option<Instant> {
        self.end().map(|end| end.max(since) + LAST_REQUESTS)
    }

    /// When a poll that was waiting when the drain began is answered. Each call
    /// returns another time. The times are evenly spread over the drain.
    pub(super) fn turn(&self) -> Option<Instant> {
        let period = self.period.get()?;
        let number = self.polls.fetch_add(1, Ordering::Relaxed);
        // The multiples of the golden ratio fill the circle evenly.
        let part = number.wrapping_mul(0x9e37_79b9);
        let part = f64::from(part) / f64::from(u32::MAX);
        Some(period.from + period.length.mul_f64(part))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _waker = lock(&self.drain.tasks).remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_is_accepted_shortly_before_the_end() {
        for (length, open) in [(10_000, 9_500), (2_000, 1_500), (100, 75), (0, 0)] {
            let period = Drain::default().begin(Duration::from_millis(length));
            let open = Duration::from_millis(open);
            assert_eq!(period.closing(), period.from + open);
        }
    }

    #[test]
    fn turns_are_spread_evenly() {
        let drain = Drain::default();
        assert!(drain.turn().is_none());
        drain.begin(Duration::from_secs(10));
        let end = drain.end().expect("it has begun");
        let from = end - Duration::from_secs(10);
        let mut seconds = [0; 10];
        for _ in 0..1000 {
            let turn = drain.turn().expect("it has begun");
            let second = turn.duration_since(from).as_secs();
            seconds[usize::try_from(second.min(9)).expect("small")] += 1;
        }
        assert!(
            seconds.iter().all(|polls| (95..=105).contains(polls)),
            "{seconds:?}"
        );
    }
}
