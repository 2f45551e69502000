//! The bus of one database: its history and its waiters behind one lock.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::alarm::Bell;
use crate::history::{Bounds, History, SLICE};
use crate::journal::Journal;
pub use crate::journal::{Mark, Request};
use crate::look::Looks;
use crate::message::{Id, Message};
pub use crate::settle::Settling;
use crate::settle::{SettlingPlace, Sources};
use crate::sync::{Mutex, MutexGuard, lock};
use crate::waiter::{Signal, Waiter, Wake};
use crate::waitlist::{Name, Taken, Waitlist};

/// The bus of one database in this process; clones are the same bus.
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
    journal: Option<Journal>,
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

/// The immediate result of a subscription.
#[derive(Debug)]
pub enum Subscription {
    /// The next message, which is in the history.
    Message(Arc<Message>),
    /// There is no message yet. The ticket is the subscriber's place on the
    /// waitlist.
    Waiting(Ticket),
}

/// A place on a waitlist, which is given up when this is dropped.
#[derive(Debug)]
pub struct Ticket {
    bus: Bus,
    place: Place,
    waiter: Arc<Waiter>,
}

/// The list that a place is on, with its key there.
#[derive(Debug)]
enum Place {
    Message(usize),
    Settling(SettlingPlace),
    /// No list, because all waits have ended already.
    Closed,
}

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

/// Waiters that have to be woken, all for the same reason.
#[derive(Debug)]
pub struct Wakeup {
    /// The reason.
    pub wake: Wake,
    /// The waiters to wake.
    pub waiters: Vec<Arc<Waiter>>,
}

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
    /// A bus that retains messages within `bounds`.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let history = History::new(bounds);
        Self {
            shared: Arc::new(Mutex::new(State {
                waitlist: Waitlist::default(),
                taken: VecDeque::new(),
                looks: bounds.journal_timeout.map(|_| Looks::default()),
                journal: bounds.journal_timeout.map(|_| Journal::new(None, &history)),
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

    /// Looks for the message after `last` in `channels` at `now`, as
    /// [`History::next`] does, and registers a waiter if there is none.
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
        Subscription::Waiting(self.register(&mut state, channels, signal))
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

    /// The first `limit` rows of the journal that polls wait for. The caller
    /// reads them after a look has ended. The bell rings if there are more.
    #[must_use]
    pub fn requests(&self, limit: usize) -> Vec<Request> {
        let state = self.lock();
        let Some(journal) = &state.journal else {
            return Vec::new();
        };
        if journal.requested() > limit {
            state.ring();
        }
        journal.requests(limit)
    }

    /// Answers a request with a row, or with the fact that there is none.
    /// Returns the waiters of the request, still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn answer(&self, key: u64, row: Row) -> Wakeup {
        let mut state = self.lock();
        let taken = state.journal.as_mut();
        let (waiters, until) = match taken.and_then(|journal| journal.take_request(key))
        {
            Some((waiter, until)) => (vec![waiter], until),
            None => (Vec::new(), 0),
        };
        let wake = match row {
            Row::Message(message) => Wake::Message(Arc::new(message)),
            Row::Skipped(number) => Wake::Read(number),
            Row::None => Wake::Read(until),
        };
        Wakeup { wake, waiters }
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

    /// Calls `look` with the history, to read several things at the same
    /// moment. It must be quick, because it holds the lock.
    pub fn look<T>(&self, look: impl FnOnce(&mut History) -> T) -> T {
        look(&mut self.lock().history)
    }

    /// As [`Bus::look`], and registers a waiter in the same step if `waits`
    /// returns true for the result.
    pub fn look_or_wait<T, S: Name>(
        &self,
        look: impl FnOnce(&mut History) -> T,
        waits: impl FnOnce(&T) -> bool,
        channels: &[S],
        signal: impl FnOnce() -> Signal,
    ) -> (T, Option<Ticket>) {
        let mut state = self.lock();
        let found = look(&mut state.history);
        let ticket = waits(&found).then(|| self.register(&mut state, channels, signal));
        (found, ticket)
    }

    /// Whether both are the same bus.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Appends messages to the history, in this order, except those of the
    /// journal that it already has. Returns their waiters, still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn publish(&self, messages: Vec<Message>, now: Duration) -> Vec<Wakeup> {
        let mut wakeups = Vec::new();
        self.publish_to(messages, now, |wakeup| wakeups.push(wakeup));
        wakeups
    }

    /// As [`Bus::publish`], but passes waiters to `deliver` while it takes
    /// others. The lock is held for a slice of the work at a time. A waiter
    /// that is not taken yet may end its wait, and no waiter gets a later
    /// message before an earlier one.
    pub fn publish_to(
        &self,
        messages: Vec<Message>,
        now: Duration,
        mut wake: impl FnMut(Wakeup),
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
                let wakeups = self.lock().take_slice();
                if wakeups.is_empty() {
                    break;
                }
                wakeups.into_iter().for_each(&mut wake);
            }
            // Above the limit in bytes, older messages are evicted only now
            // that the new ones are delivered.
            self.expire(now);
        }
    }

    /// Changes how much is retained, and whether there is a journal; returns
    /// the waiters that this concerns, still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn set_bounds(&self, bounds: Bounds) -> Wakeup {
        let mut state = self.lock();
        state.history.set_bounds(bounds);
        let mut waiters = Vec::new();
        if bounds.journal_timeout.is_some() {
            if state.journal.is_none() {
                state.journal = Some(Journal::new(state.mark, &state.history));
            }
            state.looks.get_or_insert_default();
        } else if let Some(mut journal) = state.journal.take() {
            state.mark = journal.mark();
            waiters = journal.take_all();
            if let Some(looks) = &mut state.looks {
                waiters.extend(Vec::from(looks.take_all()));
            }
        }
        Wakeup {
            wake: Wake::Looked,
            waiters,
        }
    }

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
        self.lock().ring();
    }

    /// Whether there is a journal.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.lock().journal.is_some()
    }

    /// Notes that the rows of the journal were read up to this one.
    pub fn pass(&self, mark: Mark) {
        if let Some(journal) = &mut self.lock().journal {
            journal.pass(mark);
        }
    }

    /// The last row of the journal that was read; none before the first row,
    /// and while all rows are read anew.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.lock().journal.as_ref().and_then(Journal::mark)
    }

    /// Starts to read all rows of the journal anew, because the mark is not
    /// among them.
    pub fn rewind(&self) {
        let state = &mut *self.lock();
        if let Some(journal) = &mut state.journal {
            journal.rewind(&state.history);
        }
    }

    /// Notes that all rows were read; returns the greatest numbers before and
    /// now if numbers went back, which is counted.
    #[must_use]
    pub fn end_rewind(&self) -> Option<(u64, u64)> {
        let state = &mut *self.lock();
        let back = state.journal.as_mut()?.end_rewind(&mut state.history);
        state.rewinds += u64::from(back.is_some());
        back
    }

    /// Whether a poll waits for a look.
    #[must_use]
    pub fn is_look_awaited(&self) -> bool {
        self.lock()
            .looks
            .as_ref()
            .is_some_and(|looks| looks.len() > 0)
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
    pub fn end_look(&self) -> Wakeup {
        let all = self.lock().looks.as_mut().map(Looks::end);
        Wakeup {
            wake: Wake::Looked,
            waiters: all.map(Into::into).unwrap_or_default(),
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

    /// Ends all waits, and makes later waits end at once. Returns the waiters,
    /// still to be woken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn close(&self) -> Wakeup {
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
        Wakeup {
            wake: Wake::Closed,
            waiters,
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

    /// The state of the bus now, with its counters.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let state = self.lock();
        Statistics {
            retained: state.history.len(),
            bytes: state.history.bytes(),
            waiting: state.waitlist.len(),
            published: state.published,
            evicted: state.history.evicted(),
            skipped: state.skipped,
            gaps: state.gaps,
            rewinds: state.rewinds,
            listening: state.listening,
            queue_usage: state.queue_usage,
            number: state.journal.as_ref().map_or(0, Journal::last),
        }
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
            place: Place::Settling(place),
            waiter,
        })
    }

    fn register<S: Name>(
        &self,
        state: &mut State,
        channels: &[S],
        signal: impl FnOnce() -> Signal,
    ) -> Ticket {
        let waiter = Arc::new(Waiter::new(signal()));
        state.has_waited = true;
        let place = if state.closed {
            waiter.wake(Wake::Closed);
            Place::Closed
        } else {
            Place::Message(state.waitlist.insert(channels, waiter.clone()))
        };
        Ticket {
            bus: self.clone(),
            place,
            waiter,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }
}

impl State {
    /// Appends a message, and begins to take the waiters for it.
    fn append(&mut self, message: Message, now: Duration) {
        if let Some(journal) = &mut self.journal {
            if !journal.admits(&message, &self.history) {
                return;
            }
        }
        self.published += 1;
        let message = self.history.append(message, now);
        if let Some(taken) = self.waitlist.take(message.channel()) {
            self.taken.push_back((taken, message));
        }
    }

    /// Takes a slice of the waiters, those for earlier messages first. The
    /// result is empty when all are taken.
    fn take_slice(&mut self) -> Vec<Wakeup> {
        let (mut wakeups, mut left) = (Vec::new(), TAKEN);
        while let Some((taken, message)) = self.taken.front() {
            let (waiters, are_all) = self.waitlist.take_some(taken, left);
            left -= waiters.len();
            if !waiters.is_empty() {
                wakeups.push(Wakeup {
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
        wakeups
    }

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
        let rows = self.journal.as_ref().map_or(0, Journal::requested);
        self.waitlist.len() + looks + rows > 0
    }

    fn ring(&self) {
        if let Some(looks) = &self.looks {
            looks.ring();
        }
    }
}

impl Ticket {
    /// The waiter of this place.
    #[must_use]
    pub fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Whether this waits for a message, rather than for a look or a row of the
    /// journal.
    #[must_use]
    pub fn is_for_message(&self) -> bool {
        matches!(self.place, Place::Message(_))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(Wake::Message(_)) = self.waiter.woken() {
            // A waiter that was given a message is already removed.
            return;
        }
        let mut state = self.bus.lock();
        match self.place {
            Place::Message(key) => state.waitlist.remove(key, &self.waiter),
            Place::Settling(SettlingPlace::Look(key)) => {
                if let Some(looks) = &mut state.looks {
                    looks.remove(key, &self.waiter);
                }
            }
            Place::Settling(SettlingPlace::Request(key)) => {
                if let Some(journal) = &mut state.journal {
                    journal.remove(key);
                }
            }
            Place::Closed => {}
        }
    }
}

impl Wakeup {
    /// Wakes all waiters, in this thread.
    pub fn run(&self) {
        for waiter in &self.waiters {
            waiter.wake(self.wake.clone());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::ZERO;
    const BOUNDS: Bounds = Bounds {
        cache_timeout: Duration::from_secs(5),
        journal_timeout: None,
        cache_size: usize::MAX,
    };

    fn message(channel: &str, id: u64) -> Message {
        Message::new(channel, &format!("{{\"message_id\":{id}}}"))
            .expect("a good message")
    }

    fn subscribe(bus: &Bus, channels: &[&str], last: Option<u64>) -> Subscription {
        let last = last.map(|id| Id::from_json(&id.to_string()));
        bus.subscribe(
            channels,
            last.as_ref(),
            &mut Settling::default(),
            NOW,
            Signal::thread,
        )
    }

    fn waiting(subscription: Subscription) -> Ticket {
        match subscription {
            Subscription::Waiting(ticket) => ticket,
            Subscription::Message(message) => panic!("{message:?} was there"),
        }
    }

    #[test]
    fn crowd_is_taken_in_slices_each_with_the_first_of_its_messages() {
        const CROWD: usize = 4 * TAKEN;
        let bus = Bus::new(BOUNDS);
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| waiting(subscribe(&bus, &["a", "b"], None)))
            .collect();
        let mut left = CROWD;
        let messages = vec![message("b", 1), message("a", 2)];
        bus.publish_to(messages, NOW, |wakeup| {
            // The lock is not held during the call.
            let waiting = bus.statistics().waiting;
            assert!(left - waiting <= TAKEN, "{left} {waiting}");
            left = waiting;
            wakeup.run();
        });
        assert_eq!(left, 0);
        for ticket in crowd {
            let Some(Wake::Message(message)) = ticket.waiter().woken() else {
                panic!("not woken");
            };
            assert_eq!(message.channel(), "b");
        }
    }

    #[test]
    fn waiter_gets_the_first_message_of_its_channels() {
        let bus = Bus::new(BOUNDS);
        let ticket = waiting(subscribe(&bus, &["a", "b"], None));
        assert!(bus.publish(vec![message("c", 1)], NOW).is_empty());
        for wakeup in bus.publish(vec![message("b", 2), message("a", 3)], NOW) {
            wakeup.run();
        }
        let wake = ticket.waiter().wait(Duration::MAX);
        assert!(
            matches!(wake, Some(Wake::Message(message)) if *message.id() == Id::from_json("2"))
        );
        let next = subscribe(&bus, &["a", "b"], Some(2));
        assert!(
            matches!(next, Subscription::Message(message) if *message.id() == Id::from_json("3"))
        );
    }

    #[test]
    fn ticket_that_is_dropped_leaves() {
        let bus = Bus::new(BOUNDS);
        let ticket = waiting(subscribe(&bus, &["a"], None));
        assert_eq!(bus.statistics().waiting, 1);
        drop(ticket);
        assert_eq!(bus.statistics().waiting, 0);
        assert!(bus.publish(vec![message("a", 1)], NOW).is_empty());
    }

    #[test]
    fn close_ends_waits_now_and_later() {
        let bus = Bus::new(BOUNDS);
        let before = waiting(subscribe(&bus, &["a"], None));
        bus.close().run();
        let after = waiting(subscribe(&bus, &["a"], None));
        for ticket in [before, after] {
            let wake = ticket.waiter().wait(Duration::MAX);
            assert!(matches!(wake, Some(Wake::Closed)));
        }
        assert_eq!(bus.statistics().waiting, 0);
    }

    #[test]
    fn cleared_history_is_empty_and_waiters_stay() {
        let bus = Bus::new(BOUNDS);
        let _ = bus.publish(vec![message("a", 1)], NOW);
        let ticket = waiting(subscribe(&bus, &["b"], None));
        bus.clear();
        assert_eq!(
            bus.statistics(),
            Statistics {
                waiting: 1,
                published: 1,
                ..Statistics::default()
            }
        );
        drop(ticket);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(Vec<u8>, Option<u64>),
        Leave(prop::sample::Index),
        Publish(Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let channels = || prop::collection::vec(0_u8..4, 0..4);
        prop_oneof![
            (channels(), prop::option::of(0_u64..40))
                .prop_map(|(channels, last)| Step::Subscribe(channels, last)),
            any::<prop::sample::Index>().prop_map(Step::Leave),
            channels().prop_map(Step::Publish),
        ]
    }

    proptest! {
        /// A poll that waits gets the first message of its channels. A poll
        /// that does not wait finds its next message in the history. No other
        /// poll is woken.
        #[test]
        fn every_subscriber_gets_its_next_message(steps in prop::collection::vec(step(), 1..60)) {
            let names = ["a", "b", "c", "d"];
            let bus = Bus::new(BOUNDS);
            let mut published: Vec<u8> = Vec::new();
            let mut waiting: Vec<(Ticket, Vec<u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Subscribe(channels, last) => {
                        let asked: Vec<_> = channels.iter().map(|c| names[*c as usize]).collect();
                        let from = last.filter(|last| *last < published.len() as u64);
                        let from = from.map_or(0, |last| usize::try_from(last).unwrap() + 1);
                        let next = published[from..].iter().position(|c| channels.contains(c));
                        match subscribe(&bus, &asked, last) {
                            Subscription::Message(message) => {
                                let id = (from + next.expect("none was published")) as u64;
                                prop_assert_eq!(message.id(), &Id::from_json(&id.to_string()));
                            }
                            Subscription::Waiting(ticket) => {
                                prop_assert_eq!(next, None);
                                waiting.push((ticket, channels));
                            }
                        }
                    }
                    Step::Leave(index) if !waiting.is_empty() => {
                        waiting.swap_remove(index.index(waiting.len()));
                    }
                    Step::Leave(_) => {}
                    Step::Publish(channels) => {
                        let first = published.len();
                        let id = |index: usize| (first + index) as u64;
                        let messages = channels.iter().enumerate();
                        let messages = messages.map(|(index, c)| message(names[*c as usize], id(index)));
                        bus.publish(messages.collect(), NOW).iter().for_each(Wakeup::run);
                        published.extend(&channels);
                        let mut still = Vec::new();
                        for (ticket, asked) in waiting {
                            match channels.iter().position(|c| asked.contains(c)) {
                                None => {
                                    prop_assert!(ticket.waiter().woken().is_none());
                                    still.push((ticket, asked));
                                }
                                Some(index) => {
                                    let expected = Id::from_json(&id(index).to_string());
                                    let woken = ticket.waiter().woken();
                                    prop_assert!(
                                        matches!(woken, Some(Wake::Message(m)) if *m.id() == expected)
                                    );
                                }
                            }
                        }
                        waiting = still;
                    }
                }
                prop_assert_eq!(bus.statistics().waiting, waiting.len());
            }
        }
    }
}
