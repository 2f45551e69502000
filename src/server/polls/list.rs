//! The polls of one client, each with the state of its wait.
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use smallvec::SmallVec;

use super::outcome::Outcome;
use crate::poll::Poll;

/// How many polls a client may have without a time limit. The desktop has a
/// living and an abandoned one, the web client two loops.
const POLLS_FOR_LONG: usize = 2;

/// The time after which the oldest of more polls than that is ended. If it were
/// ended at once, two living loops would end each other's polls.
const END_AFTER: Duration = Duration::from_secs(5);

/// The polls that a client may have in total, and the time after which the
/// oldest poll beyond that ends. It does not end at once, because living loops
/// would return as fast as the network allows. Until then it gets no message,
/// because a search over all polls would take too long.
const POLLS_MAX: usize = 8;
const END_SOON_AFTER: Duration = Duration::from_secs(1);

/// The polls that have something to do now, to be woken without any lock.
pub(crate) type Woken = SmallVec<[Waker; 2]>;

/// The polls of a client, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct PollList {
    all: SmallVec<[Entry; 1]>,
    /// The key of the next poll.
    next: u32,
}

#[derive(Debug)]
struct Entry {
    key: u32,
    since: Duration,
    poll: Arc<Poll>,
    state: State,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum State {
    /// The poll waits for a message.
    Waiting,
    /// The poll waits until the message in flight is acknowledged.
    Blocked,
    /// The poll has got its message.
    Given(Outcome),
    /// The answer is being written.
    Taken,
}

/// The next step of a poll after the client's messages were given out.
#[derive(Debug)]
pub(crate) enum Next {
    /// Answer.
    Answer(Outcome),
    /// Wait for a message, at most until then.
    Wait(Option<Duration>),
    /// Wait until it is told to look again, at most until the given time.
    Blocked(Duration),
}

impl PollList {
    /// Adds a poll that arrived at `now`; returns its key.
    pub(super) fn add(&mut self, poll: Arc<Poll>, now: Duration) -> u32 {
        let key = self.next;
        self.next = key.wrapping_add(1);
        self.all.push(Entry {
            key,
            since: now,
            poll,
            state: State::Waiting,
            waker: None,
        });
        key
    }

    /// Takes out a poll.
    pub(super) fn remove(&mut self, key: u32) -> Option<Arc<Poll>> {
        let index = self.all.iter().position(|entry| entry.key == key)?;
        Some(self.all.remove(index).poll)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All polls: first those beyond the number that a client may have, then
    /// the others.
    pub(super) fn split(
        &self,
    ) -> (
        impl Iterator<Item = &Arc<Poll>>,
        impl Iterator<Item = &Arc<Poll>>,
    ) {
        let beyond = self.all.len().saturating_sub(POLLS_MAX);
        let (oldest, newest) = self.all.split_at(beyond);
        (
            oldest.iter().map(|entry| &entry.poll),
            newest.iter().map(|entry| &entry.poll),
        )
    }

    /// The newest polls that wait, which may get a message.
    pub(super) fn wanting(&self) -> impl Iterator<Item = &Arc<Poll>> {
        let newest = self.waiting().rev().take(POLLS_MAX);
        newest.map(|entry| &entry.poll)
    }

    /// Whether a poll waits for the channel with this hash.
    pub(super) fn asks(&self, channel: u64) -> bool {
        self.waiting().any(|entry| entry.poll.asks(channel))
    }

    /// Whether the poll with this key waits for an answer.
    pub(super) fn waits(&self, key: u32) -> bool {
        self.waiting().any(|entry| entry.key == key)
    }

    /// Gives a message to the newest poll that waits for the channel with this
    /// hash; returns the poll and its key.
    pub(super) fn give(
        &mut self,
        channel: u64,
        outcome: Outcome,
        woken: &mut Woken,
    ) -> Option<(u32, &Arc<Poll>)> {
        let mut newest = self.all.iter_mut().rev();
        let entry = newest.find(|entry| entry.waits() && entry.poll.asks(channel))?;
        entry.give(outcome, woken);
        Some((entry.key, &entry.poll))
    }

    /// The next step of the poll with this key, while nothing is sent before
    /// `blocked`.
    pub(super) fn step(&mut self, key: u32, blocked: Option<Duration>) -> Next {
        let end = self.end_of_oldest();
        let Some(entry) = self.entry(key) else {
            return Next::Answer(Outcome::Empty);
        };
        let end = end.filter(|(oldest, _)| *oldest == key).map(|(_, end)| end);
        match std::mem::replace(&mut entry.state, State::Taken) {
            State::Given(outcome) => Next::Answer(outcome),
            State::Taken => Next::Answer(Outcome::Empty),
            State::Waiting | State::Blocked => match blocked {
                None => {
                    entry.state = State::Waiting;
                    Next::Wait(end)
                }
                Some(until) => {
                    entry.state = State::Blocked;
                    Next::Blocked(end.map_or(until, |end| end.min(until)))
                }
            },
        }
    }

    /// Sets the waker for the poll's next step.
    pub(super) fn set_waker(&mut self, key: u32, waker: &Waker) {
        if let Some(entry) = self.entry(key) {
            match &mut entry.waker {
                Some(old) => old.clone_from(waker),
                None => entry.waker = Some(waker.clone()),
            }
        }
    }

    /// Lets the polls look again that waited for an acknowledgement.
    pub(super) fn unblock(&mut self, woken: &mut Woken) {
        for entry in &mut self.all {
            if matches!(entry.state, State::Blocked) {
                woken.extend(entry.waker.take());
            }
        }
    }

    /// Ends the oldest polls of too many, once they have waited for long
    /// enough.
    pub(super) fn end_oldest(&mut self, now: Duration, woken: &mut Woken) {
        while self.end_of_oldest().is_some_and(|(_, end)| end <= now) {
            if let Some(oldest) = self.oldest() {
                oldest.give(Outcome::Empty, woken);
            }
            self.wake_oldest(woken);
        }
    }

    /// Lets the oldest of too many polls see when it is to end.
    pub(super) fn wake_oldest(&mut self, woken: &mut Woken) {
        if self.end_of_oldest().is_some() {
            let oldest = self.oldest();
            woken.extend(oldest.and_then(|oldest| oldest.waker.take()));
        }
    }

    /// The key of the oldest of too many polls, and when it is to end.
    fn end_of_oldest(&mut self) -> Option<(u32, Duration)> {
        let after = match self.waiting().count() {
            polls if polls <= POLLS_FOR_LONG => return None,
            polls if polls <= POLLS_MAX => END_AFTER,
            _ => END_SOON_AFTER,
        };
        let oldest = self.oldest()?;
        Some((oldest.key, oldest.since + after))
    }

    fn waiting(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.all.iter().filter(|entry| entry.waits())
    }

    fn oldest(&mut self) -> Option<&mut Entry> {
        self.all.iter_mut().find(|entry| entry.waits())
    }

    fn entry(&mut self, key: u32) -> Option<&mut Entry> {
        self.all.iter_mut().find(|entry| entry.key == key)
    }
}

impl Entry {
    fn waits(&self) -> bool {
        matches!(self.state, State::Waiting | State::Blocked)
    }

    fn give(&mut self, outcome: Outcome, woken: &mut Woken) {
        self.state = State::Given(outcome);
        woken.extend(self.waker.take());
    }
}
