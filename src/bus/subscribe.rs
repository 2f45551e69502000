//! The part of a bus that polls use: looking for a message, and waiting.
use std::sync::Arc;
use std::time::Duration;

use super::{Bus, State};
use crate::history::Position;
use crate::journal::Reading;
use crate::look::Looks;
use crate::message::{Id, Message};
use crate::settle::{Settling, SettlingPlace, Sources};
use crate::waiter::{Signal, Waiter, Wake};
use crate::waitlist::Name;

/// The immediate result of a subscription.
#[derive(Debug)]
pub enum Subscription {
    /// The next message, which is in the history.
    Message(Arc<Message>),
    /// There is no message yet. The ticket is the subscriber's place on the
    /// waitlist.
    Waiting(Ticket),
}

/// The result of [`Bus::first_or_wait`].
#[derive(Debug)]
pub enum Found {
    /// The first message, with its number in the history.
    Message(u64, Arc<Message>),
    /// There is no message yet.
    Waiting(Ticket),
    /// There is no message yet, and no waiter was to be registered.
    Nothing,
}

/// The registration of a waiter, which ends when this is dropped.
#[derive(Debug)]
pub struct Ticket {
    bus: Bus,
    list: List,
    waiter: Arc<Waiter>,
}

/// The list that a waiter is on, with its key there.
#[derive(Debug)]
enum List {
    Message(usize),
    Settling(SettlingPlace),
    /// No list, because all waits have ended already.
    Closed,
}

impl Bus {
    /// The retained messages in any channel, from this number on, with the times
    /// at which they arrived; and the number of the next message.
    #[must_use]
    pub fn messages(&self, number: u64) -> (u64, Vec<(Duration, Arc<Message>)>) {
        let history = &self.lock().history;
        let found = history.all_from(number);
        let found = found.map(|(time, message)| (time, message.clone()));
        (history.end(), found.collect())
    }

    /// Looks for the message after `last` in `channels` at `now`, as
    /// [`History::next`](crate::history::History::next) does, and registers a
    /// waiter if there is none.
    ///
    /// No message can be missed in between, because a message that is published
    /// after the look finds the waiter.
    ///
    /// Where the poll needs a look first, the waiter waits for that, as for
    /// [`Bus::settle`]. Unless it is woken with a message, the caller calls
    /// this again.
    pub fn subscribe<S: Name>(
        &self,
        channels: &[S],
        last: Option<&Id>,
        settling: &mut Settling,
        now: Duration,
        signal: impl Fn() -> Signal,
    ) -> Subscription {
        let mut state = self.lock();
        let ticket = self.wait_to_settle(&mut state, channels, last, settling, &signal);
        if let Some(ticket) = ticket {
            return Subscription::Waiting(ticket);
        }
        if let Some(message) = state.history.next(channels, last, now) {
            return Subscription::Message(message);
        }
        Subscription::Waiting(self.register(&mut state, channels, signal()))
    }

    /// Registers a waiter where the listener has to make a look before the
    /// history is complete for `channels` after `last`.
    ///
    /// The waiter is woken with the message, or its owner passes the wake to
    /// [`Settling::woken`] and calls this again with the same `settling`.
    pub fn settle<S: AsRef<str>>(
        &self,
        channels: &[S],
        last: Option<&Id>,
        settling: &mut Settling,
        signal: impl Fn() -> Signal,
    ) -> Option<Ticket> {
        self.wait_to_settle(&mut self.lock(), channels, last, settling, signal)
    }

    /// Whether a poll after `last` can be answered without [`Bus::settle`].
    #[must_use]
    pub fn is_settled(&self, last: Option<&Id>) -> bool {
        self.lock().is_settled(last)
    }

    /// Looks for the message after `last` in `channels` at `now`, without
    /// waiting for a message or a look.
    #[must_use]
    pub fn next<S: AsRef<str>>(
        &self,
        channels: &[S],
        last: Option<&Id>,
        now: Duration,
    ) -> Option<Arc<Message>> {
        let mut state = self.lock();
        if !state.is_settled(last) {
            return None;
        }
        state.history.next(channels, last, now)
    }

    /// The position from which a client continues that has received `last`.
    #[must_use]
    pub fn position<S: AsRef<str>>(
        &self,
        last: Option<&Id>,
        channels: &[S],
        now: Duration,
    ) -> Position {
        self.lock().history.position(last, channels, now)
    }

    /// Looks for the first message at `now` that is `wanted`, as
    /// [`History::first_wanted`](crate::history::History::first_wanted) does.
    /// If there is none, it registers a waiter in the same step, on the
    /// channels and with the signal in `wait`.
    pub fn first_or_wait<'a, S: Name>(
        &self,
        wanted: impl IntoIterator<Item = (&'a str, u64)>,
        woken_by: Option<(&Arc<Message>, u64)>,
        now: Duration,
        wait: Option<(&[S], Signal)>,
    ) -> Found {
        let mut state = self.lock();
        if let Some((number, message)) =
            state.history.first_wanted(wanted, woken_by, now)
        {
            return Found::Message(number, message);
        }
        match wait {
            Some((channels, signal)) => {
                Found::Waiting(self.register(&mut state, channels, signal))
            }
            None => Found::Nothing,
        }
    }

    /// Whether a poll waits, or has waited since the last call.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        let mut state = self.lock();
        let is_waiting = state.is_waiting();
        std::mem::take(&mut state.has_waited) || is_waiting
    }

    /// Whether a poll waits, for a message or for a look.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.lock().is_waiting()
    }

    fn wait_to_settle<S: AsRef<str>>(
        &self,
        state: &mut State,
        channels: &[S],
        last: Option<&Id>,
        settling: &mut Settling,
        signal: impl FnOnce() -> Signal,
    ) -> Option<Ticket> {
        let sources = state.sources()?;
        let (waiter, place) = sources.settle(last, channels, settling, signal)?;
        state.has_waited = true;
        Some(Ticket {
            bus: self.clone(),
            list: List::Settling(place),
            waiter,
        })
    }

    fn register<S: Name>(
        &self,
        state: &mut State,
        channels: &[S],
        signal: Signal,
    ) -> Ticket {
        let waiter = Arc::new(Waiter::new(signal));
        state.has_waited = true;
        let list = if state.closed {
            waiter.wake(Wake::Closed);
            List::Closed
        } else {
            List::Message(state.waitlist.insert(channels, waiter.clone()))
        };
        Ticket {
            bus: self.clone(),
            list,
            waiter,
        }
    }
}

impl State {
    /// The looks and the journal; none without a listener, and after all waits
    /// have ended.
    fn sources(&mut self) -> Option<Sources<'_>> {
        Some(Sources {
            looks: self.looks.as_mut().filter(|_| !self.closed)?,
            journal: self.journal.as_mut(),
            history: &self.history,
        })
    }

    fn is_settled(&mut self, last: Option<&Id>) -> bool {
        self.sources()
            .is_none_or(|sources| sources.is_settled(last))
    }

    fn is_waiting(&self) -> bool {
        let looks = self.looks.as_ref().map_or(0, Looks::len);
        let rows = self.journal.as_ref().map_or(0, Reading::requested);
        self.waitlist.len() + looks + rows > 0
    }
}

impl Ticket {
    /// The waiter.
    #[must_use]
    pub fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Whether this waits for a message, rather than for a look or a row of the
    /// journal.
    #[must_use]
    pub fn is_for_message(&self) -> bool {
        matches!(self.list, List::Message(_))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(Wake::Message(_)) = self.waiter.woken() {
            // A waiter that was given a message is already removed.
            return;
        }
        let mut state = self.bus.lock();
        match self.list {
            List::Message(key) => state.waitlist.remove(key, &self.waiter),
            List::Settling(SettlingPlace::Look(key)) => {
                if let Some(looks) = &mut state.looks {
                    looks.remove(key, &self.waiter);
                }
            }
            List::Settling(SettlingPlace::Request(key)) => {
                if let Some(journal) = &mut state.journal {
                    journal.remove(key);
                }
            }
            List::Closed => {}
        }
    }
}
