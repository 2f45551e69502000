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

use super::list::PollList;
pub(crate) use super::list::{Next, Woken};
use super::outcome::Outcome;
use super::places::{Others, Places};
use crate::history::Position;
use crate::message::{Id, Message};
use crate::poll::{Poll, hash};

/// How long a message is not sent again.
pub(crate) const RESEND_AFTER: Duration = Duration::from_secs(5);

/// A client of one user.
#[derive(Debug, Default)]
pub(crate) struct Client {
    polls: PollList,
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
        let key = self.polls.add(poll, now);
        self.polls.wake_oldest(woken);
        key
    }

    /// Ends polls, and gives up an answer that is not acknowledged, where their
    /// time is over at `now`. Returns whether the next message may be sent.
    pub(crate) fn may_send(&mut self, now: Duration, woken: &mut Woken) -> bool {
        self.polls.end_oldest(now, woken);
        if self.in_flight().is_some_and(|until| until <= now) {
            self.land(woken);
        }
        self.in_flight().is_none()
    }

    /// The channels that polls wait for, each with the number from which on its
    /// messages are wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&str, u64)> {
        self.polls.wanting().flat_map(|poll| self.asked(poll))
    }

    /// The number from which on messages of the channel of this message are
    /// wanted; none if no poll waits for that channel.
    pub(crate) fn wanted_from(&self, message: &Message) -> Option<u64> {
        let channel = hash(message.channel());
        self.polls.asks(channel).then(|| self.from(channel))
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
        let id = message.id().clone();
        let outcome = Outcome::Message(message);
        let Some((key, poll)) = self.polls.give(channel, outcome, woken) else {
            return;
        };
        self.unsent = self.unsent.max(number + 1);
        self.sent = Some(Sent {
            id,
            number,
            key,
            covered: Places::Same(poll.clone(), number),
            until: Some(now + RESEND_AFTER),
        });
    }

    /// Whether the poll with this key waits for an answer.
    pub(crate) fn waits(&self, key: u32) -> bool {
        self.polls.waits(key)
    }

    /// The next step of the poll with this key.
    pub(crate) fn step(&mut self, key: u32) -> Next {
        let blocked = self.in_flight();
        self.polls.step(key, blocked)
    }

    /// Sets the waker for the poll's next step.
    pub(crate) fn set_waker(&mut self, key: u32, waker: &Waker) {
        self.polls.set_waker(key, waker);
    }

    /// Takes out the poll, because its answer was `written`, or because its
    /// socket failed or was closed.
    pub(crate) fn leave(&mut self, key: u32, written: bool, woken: &mut Woken) {
        self.ended.extend(self.polls.remove(key));
        if !written && self.sent.as_ref().is_some_and(|sent| sent.key == key) {
            self.land(woken);
        }
        self.polls.wake_oldest(woken);
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
        let (oldest, newest) = self.polls.split();
        ended.extend(oldest.cloned());
        let others = Others {
            waiting: newest.collect(),
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
        self.polls.unblock(woken);
    }
}
