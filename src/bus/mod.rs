//! The bus of one database: its history and its waiters behind one lock.
mod journal;
mod listening;
mod statistics;
mod subscribe;
#[cfg(all(test, not(loom)))]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use self::journal::{Journal, Row};
pub use self::statistics::Statistics;
pub use self::subscribe::{Found, Subscription, Ticket};
use crate::history::{Bounds, History, SLICE};
use crate::journal::Reading;
pub use crate::journal::{Mark, NUMBER_MAX, Request};
use crate::look::Looks;
use crate::message::Message;
pub use crate::settle::Settling;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::waiter::{Waiter, Wake};
use crate::waitlist::{Taken, Waitlist};

/// The bus of one database in this process; clones are the same bus.
///
/// ```
/// use std::time::Duration;
///
/// use trytond_fastbus::bus::{Bus, Settling, Subscription};
/// use trytond_fastbus::history::Bounds;
/// use trytond_fastbus::message::Message;
/// use trytond_fastbus::waiter::{Signal, Wake};
///
/// let bus = Bus::new(Bounds {
///     cache_timeout: Duration::from_secs(300),
///     journal_timeout: None,
///     cache_size: 1 << 20,
/// });
/// let now = Duration::ZERO;
/// let mut settling = Settling::default();
/// let found = bus.subscribe(&["user:1"], None, &mut settling, now, Signal::thread);
/// let Subscription::Waiting(ticket) = found else {
///     panic!("nothing was published");
/// };
///
/// let message = Message::new("user:1", r#"{"message_id": "a"}"#)?;
/// for crowd in bus.publish(vec![message], now) {
///     crowd.wake();
/// }
///
/// let wake = ticket.waiter().wait(Duration::MAX);
/// assert!(matches!(wake, Some(Wake::Message(message)) if message.channel() == "user:1"));
/// # Ok::<(), trytond_fastbus::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    shared: Arc<Mutex<State>>,
}

/// The limit of messages that are appended, and of waiters that are taken,
/// under one hold of the lock. The polls of the database wait for that lock.
const APPENDED: usize = 64;
const TAKEN: usize = 500;

#[derive(Debug)]
struct State {
    history: History,
    waitlist: Waitlist,
    /// The waiters that are being taken, in the order of their messages.
    taken: VecDeque<(Taken, Arc<Message>)>,
    /// None where no listener makes looks. The history is then complete.
    looks: Option<Looks>,
    /// None where messages arrive by NOTIFY only.
    journal: Option<Reading>,
    /// The last row that was read before the journal became unusable.
    mark: Option<Mark>,
    /// If set, every wait ends at once.
    closed: bool,
    published: u64,
    skipped: u64,
    gaps: u64,
    rewinds: u64,
    listening: bool,
    queue_usage: f64,
    /// Whether a poll has waited since [`Bus::has_waited`].
    has_waited: bool,
}

/// Waiters that have to be woken, all for the same reason.
#[derive(Debug)]
pub struct Crowd {
    /// The reason.
    pub wake: Wake,
    /// The waiters. They are no longer registered.
    pub waiters: Vec<Arc<Waiter>>,
}

impl Bus {
    /// A bus that retains messages within `bounds`.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let history = History::new(bounds);
        let has_journal = bounds.journal_timeout.is_some();
        Self {
            shared: Arc::new(Mutex::new(State {
                waitlist: Waitlist::default(),
                taken: VecDeque::new(),
                looks: has_journal.then(Looks::default),
                journal: has_journal.then(|| Reading::new(None, &history)),
                mark: None,
                history,
                closed: false,
                published: 0,
                skipped: 0,
                gaps: 0,
                rewinds: 0,
                listening: false,
                queue_usage: 0.0,
                has_waited: false,
            })),
        }
    }

    /// Whether both are the same bus.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Appends messages to the history, in this order, except those of the
    /// journal that it already has. Returns their waiters, still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn publish(&self, messages: Vec<Message>, now: Duration) -> Vec<Crowd> {
        let mut crowds = Vec::new();
        self.publish_to(messages, now, |crowd| crowds.push(crowd));
        crowds
    }

    /// As [`Bus::publish`], but passes waiters to `wake` while it takes others.
    /// The lock is held for a slice of the work at a time. A waiter that is not
    /// taken yet may end its wait, and no waiter gets a later message before an
    /// earlier one.
    pub fn publish_to(
        &self,
        messages: Vec<Message>,
        now: Duration,
        mut wake: impl FnMut(Crowd),
    ) {
        let mut messages = messages.into_iter();
        while messages.len() > 0 {
            let mut state = self.lock();
            let first = state.history.first();
            for message in messages.by_ref().take(APPENDED) {
                state.append(message, now);
                if state.history.first() - first > SLICE as u64 {
                    break;
                }
            }
            drop(state);
            loop {
                let crowds = self.lock().take_slice();
                if crowds.is_empty() {
                    break;
                }
                crowds.into_iter().for_each(&mut wake);
            }
            // Above the limit in bytes, older messages are evicted only now
            // that the new ones are delivered.
            self.expire(now);
        }
    }

    /// Drops the messages that have expired at `now`, or that exceed the limit
    /// in bytes.
    pub fn expire(&self, now: Duration) {
        while self.lock().history.expire(now) {}
    }

    /// Drops all retained messages.
    pub fn clear(&self) {
        let dropped = self.lock().history.clear();
        drop(dropped);
    }

    /// Changes how much is retained, and whether there is a journal; returns
    /// the waiters that this concerns, still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn set_bounds(&self, bounds: Bounds) -> Crowd {
        let mut state = self.lock();
        state.history.set_bounds(bounds);
        let mut waiters = Vec::new();
        if bounds.journal_timeout.is_some() {
            if state.journal.is_none() {
                state.journal = Some(Reading::new(state.mark, &state.history));
            }
            state.looks.get_or_insert_default();
        } else if let Some(mut journal) = state.journal.take() {
            state.mark = journal.mark();
            waiters = journal.take_all();
            if let Some(looks) = &mut state.looks {
                waiters.extend(Vec::from(looks.take_all()));
            }
        }
        Crowd {
            wake: Wake::Looked,
            waiters,
        }
    }

    /// Ends all waits, and makes later waits end at once. Returns the waiters,
    /// still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn close(&self) -> Crowd {
        let mut state = self.lock();
        state.closed = true;
        state.taken.clear();
        let mut waiters = Vec::from(state.waitlist.take_all());
        if let Some(looks) = &mut state.looks {
            waiters.extend(Vec::from(looks.take_all()));
        }
        if let Some(journal) = &mut state.journal {
            waiters.extend(journal.take_all());
        }
        Crowd {
            wake: Wake::Closed,
            waiters,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }
}

impl State {
    /// Appends a message, and begins to take the waiters for it.
    fn append(&mut self, message: Message, now: Duration) {
        let history = &mut self.history;
        let message = match &mut self.journal {
            Some(journal) => journal.append(message, history, now),
            None => Some(history.append(message, now)),
        };
        let Some(message) = message else {
            return;
        };
        self.published += 1;
        if let Some(taken) = self.waitlist.take(message.channel()) {
            self.taken.push_back((taken, message));
        }
    }

    /// Takes a slice of the waiters, those for earlier messages first. The
    /// result is empty when all are taken.
    fn take_slice(&mut self) -> Vec<Crowd> {
        let (mut crowds, mut left) = (Vec::new(), TAKEN);
        while let Some((taken, message)) = self.taken.front() {
            let (waiters, are_all) = self.waitlist.take_some(taken, left);
            left -= waiters.len();
            if !waiters.is_empty() {
                crowds.push(Crowd {
                    wake: Wake::Message(message.clone()),
                    waiters,
                });
            }
            if are_all {
                self.taken.pop_front();
            }
            if left == 0 {
                break;
            }
        }
        crowds
    }
}

impl Crowd {
    /// Wakes all waiters, in this thread.
    pub fn wake(&self) {
        for waiter in &self.waiters {
            waiter.wake(self.wake.clone());
        }
    }
}
