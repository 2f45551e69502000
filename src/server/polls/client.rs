//! The messages that one client was sent and has acknowledged, over all its
//! polls.
//!
//! A client has more than one poll at a time. The desktop starts another one,
//! without a last message, for each view that wants a channel of its own, and
//! leaves the old one unread. The web client has two loops after its session
//! was renewed, each with its own last message. Therefore the client, and not
//! the poll, has a position in the history for each channel, and it is sent one
//! message at a time. This file knows no clock and no socket.
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use smallvec::SmallVec;

use super::outcome::Outcome;
use super::places::{Others, Places};
use crate::history::Position;
use crate::message::{Id, Message};
use crate::poll::{Poll, hash};

/// How long a message is not sent again.
pub(crate) const RESEND_AFTER: Duration = Duration::from_secs(5);

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

/// A client of one user.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// In the order in which they came.
    polls: SmallVec<[Entry; 1]>,
    /// The number from which the client wants the messages of each channel.
    places: Places,
    /// The polls that have ended since the last one arrived.
    ended: SmallVec<[Arc<Poll>; 1]>,
    /// The message that was sent last, unless it was acknowledged.
    sent: Option<Sent>,
    /// The number after the greatest one that was ever sent.
    unsent: u64,
    /// The number after the greatest one that was ever acknowledged.
    acknowledged: u64,
    /// The time of the last poll.
    seen: Duration,
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

#[derive(Debug)]
struct Sent {
    id: Id,
    number: u64,
    /// The key of the poll that it was given to.
    key: u32,
    /// The channels that the poll asked for.
    covered: Places,
    /// Until when nothing else is sent; none once the answer could not be
    /// written.
    until: Option<Duration>,
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

impl Client {
    /// Registers a poll that arrived at `now`; returns its key.
    /// [`Client::step`] tells its next step.
    ///
    /// The last message, if it is the one that was sent last, acknowledges all
    /// messages before it in the channels of the poll that received it. If
    /// another process has sent the last message, all channels begin after it.
    /// A channel that is opened, for the first time or again, begins after the
    /// last message, and after the newest message that the client is known to
    /// have.
    pub(crate) fn arrive(
        &mut self,
        poll: Arc<Poll>,
        last: Option<&Id>,
        position: Position,
        now: Duration,
        woken: &mut Woken,
    ) -> u32 {
        self.seen = now;
        self.acknowledge(&poll, last, position, now, woken);
        let key = self.next;
        self.next = key.wrapping_add(1);
        self.polls.push(Entry {
            key,
            since: now,
            poll,
            state: State::Waiting,
            waker: None,
        });
        self.wake_oldest(woken);
        key
    }

    /// Ends polls, and gives up an answer that is not acknowledged, where their
    /// time is over at `now`. Returns whether the next message may be sent.
    pub(crate) fn may_send(&mut self, now: Duration, woken: &mut Woken) -> bool {
        self.end_oldest(now, woken);
        if self.in_flight().is_some_and(|until| until <= now) {
            self.land(woken);
        }
        self.in_flight().is_none()
    }

    /// The channels that polls wait for, each with the number from which on its
    /// messages are wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&str, u64)> {
        let newest = self.waiting().rev().take(POLLS_MAX);
        newest.flat_map(|entry| self.asked(&entry.poll))
    }

    /// The number from which on messages of the channel of this message are
    /// wanted; none if no poll waits for that channel.
    pub(crate) fn wanted_from(&self, message: &Message) -> Option<u64> {
        let channel = hash(message.channel());
        let is_asked = self.waiting().any(|entry| entry.poll.asks(channel));
        is_asked.then(|| self.from(channel))
    }

    /// Sends a message that is wanted to the newest poll that asks for its
    /// channel.
    pub(crate) fn send(
        &mut self,
        number: u64,
        message: Arc<Message>,
        now: Duration,
        woken: &mut Woken,
    ) {
        let channel = hash(message.channel());
        let mut newest = self.polls.iter_mut().rev();
        let Some(entry) =
            newest.find(|entry| entry.waits() && entry.poll.asks(channel))
        else {
            return;
        };
        self.unsent = self.unsent.max(number + 1);
        self.sent = Some(Sent {
            id: message.id().clone(),
            number,
            key: entry.key,
            covered: Places::Same(entry.poll.clone(), number),
            until: Some(now + RESEND_AFTER),
        });
        entry.give(Outcome::Message(message), woken);
    }

    /// Whether the poll with this key waits for an answer.
    pub(crate) fn waits(&self, key: u32) -> bool {
        self.waiting().any(|entry| entry.key == key)
    }

    /// The next step of the poll with this key.
    pub(crate) fn step(&mut self, key: u32) -> Next {
        let end = self.end_of_oldest();
        let until = self.in_flight();
        let Some(entry) = self.entry(key) else {
            return Next::Answer(Outcome::Empty);
        };
        let end = end.filter(|(oldest, _)| *oldest == key).map(|(_, end)| end);
        match std::mem::replace(&mut entry.state, State::Taken) {
            State::Given(outcome) => Next::Answer(outcome),
            State::Taken => Next::Answer(Outcome::Empty),
            State::Waiting | State::Blocked => match until {
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
    pub(crate) fn set_waker(&mut self, key: u32, waker: &Waker) {
        if let Some(entry) = self.entry(key) {
            match &mut entry.waker {
                Some(old) => old.clone_from(waker),
                None => entry.waker = Some(waker.clone()),
            }
        }
    }

    /// Takes out the poll, because its answer was `written`, or because its
    /// socket failed or was closed.
    pub(crate) fn leave(&mut self, key: u32, written: bool, woken: &mut Woken) {
        if let Some(index) = self.polls.iter().position(|entry| entry.key == key) {
            self.ended.push(self.polls.remove(index).poll);
        }
        if !written && self.sent.as_ref().is_some_and(|sent| sent.key == key) {
            self.land(woken);
        }
        self.wake_oldest(woken);
    }

    /// Each channel that the poll asks for, and from which number on.
    fn asked<'a>(
        &'a self,
        poll: &'a Poll,
    ) -> impl Iterator<Item = (&'a str, u64)> + Clone {
        let same = self.places.same(poll);
        let channels = poll.channels().iter().zip(poll.hashes());
        channels.map(move |(name, channel)| {
            (&**name, same.unwrap_or_else(|| self.from(*channel)))
        })
    }

    /// The poll with the same channels, if the client has one to share.
    pub(crate) fn shared(&self, poll: &Poll) -> Option<&Arc<Poll>> {
        self.places.shared(poll)
    }

    /// Keeps only numbers of a client that has no poll.
    pub(crate) fn forget_names(&mut self) {
        self.places.forget_names();
        self.ended = SmallVec::new();
        if let Some(sent) = &mut self.sent {
            sent.covered.forget_names();
        }
    }

    /// Since when the client has no poll.
    pub(crate) fn idle_since(&self) -> Option<Duration> {
        self.polls.is_empty().then_some(self.seen)
    }

    fn acknowledge(
        &mut self,
        poll: &Arc<Poll>,
        last: Option<&Id>,
        position: Position,
        now: Duration,
        woken: &mut Woken,
    ) {
        let mut place = position.last;
        // The channels of the poll that received the last message, if the
        // message is known to have been sent to it.
        let mut covered = None;
        let is_sent = |sent: &Sent| last == Some(&sent.id);
        // A message that was not sent here comes from another process. The
        // client is only known to have continued there.
        let is_foreign = place.is_some_and(|place| place >= self.unsent);
        if self.sent.as_ref().is_some_and(is_sent) {
            if let Some(sent) = self.sent.take() {
                place = place.max(Some(sent.number));
                covered = Some(sent.covered);
            }
            self.land(woken);
        } else if is_foreign {
            self.sent = None;
            self.land(woken);
        }
        let begin = place.map_or(position.recent, |place| place + 1);
        if covered.is_some() || is_foreign {
            self.acknowledged = self.acknowledged.max(begin);
        }
        // Any other message says nothing about the channels that are known
        // already, because it may have been sent to a poll that did not ask for
        // them.
        let is_covered = |channel| {
            let covered = covered.as_ref();
            covered.is_some_and(|covered| covered.get(channel).is_some())
                || (is_foreign && poll.asks(channel))
        };
        let mut ended = std::mem::take(&mut self.ended);
        let (oldest, newest) = self
            .polls
            .split_at(self.polls.len().saturating_sub(POLLS_MAX));
        ended.extend(oldest.iter().map(|entry| entry.poll.clone()));
        let others = Others {
            waiting: newest.iter().map(|entry| &entry.poll).collect(),
            ended: &ended,
            acknowledged: covered.as_ref(),
        };
        let newest = self.acknowledged;
        self.places
            .arrive(poll, &others, now, |channel, old| match old {
                None => begin.max(newest),
                Some(from) if is_covered(channel) => from.max(begin),
                Some(from) => from,
            });
    }

    fn from(&self, channel: u64) -> u64 {
        self.places.get(channel).unwrap_or(0)
    }

    /// Until when nothing is sent, if something is in flight.
    fn in_flight(&self) -> Option<Duration> {
        self.sent.as_ref().and_then(|sent| sent.until)
    }

    /// No message is in flight any more, so the polls that waited for that look
    /// again.
    fn land(&mut self, woken: &mut Woken) {
        if let Some(sent) = &mut self.sent {
            sent.until = None;
        }
        for entry in &mut self.polls {
            if matches!(entry.state, State::Blocked) {
                woken.extend(entry.waker.take());
            }
        }
    }

    /// Ends the oldest polls of too many, once they have waited for long
    /// enough.
    fn end_oldest(&mut self, now: Duration, woken: &mut Woken) {
        while self.end_of_oldest().is_some_and(|(_, end)| end <= now) {
            if let Some(oldest) = self.oldest() {
                oldest.give(Outcome::Empty, woken);
            }
            self.wake_oldest(woken);
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

    /// Lets the oldest of too many polls see when it is to end.
    fn wake_oldest(&mut self, woken: &mut Woken) {
        if self.end_of_oldest().is_some() {
            let oldest = self.oldest();
            woken.extend(oldest.and_then(|oldest| oldest.waker.take()));
        }
    }

    fn waiting(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.polls.iter().filter(|entry| entry.waits())
    }

    fn oldest(&mut self) -> Option<&mut Entry> {
        self.polls.iter_mut().find(|entry| entry.waits())
    }

    fn entry(&mut self, key: u32) -> Option<&mut Entry> {
        self.polls.iter_mut().find(|entry| entry.key == key)
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
