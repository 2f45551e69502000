//! Finding the next message of a poll.
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use super::History;
use crate::message::{Id, Message};

/// How many messages with the same id are examined. `publish` makes only one.
const SAME_MAX: usize = 16;

/// The position from which a client continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of its last message; none if that message is unknown.
    pub last: Option<u64>,
    /// The number of the oldest [recent](History::recent) message.
    pub recent: u64,
}

impl History {
    /// The message after `last` in any of `channels`, at `now`.
    ///
    /// Without `last`, or if it is not retained, that is the oldest
    /// [recent](Self::recent) message in these channels. `last` itself may be
    /// in another channel.
    pub fn next<S: AsRef<str>>(
        &mut self,
        channels: &[S],
        last: Option<&Id>,
        now: Duration,
    ) -> Option<Arc<Message>> {
        self.expire(now);
        let from = last
            .and_then(|id| self.resume(id, channels))
            .map_or_else(|| self.recent(now), |number| number + 1);
        let asked = channels.iter().map(|channel| (channel.as_ref(), from));
        self.next_from(asked, now).map(|(_, message)| message)
    }

    /// The first message at `now` in any of the channels, with its number. Each
    /// channel has its own number from which on its messages count.
    pub fn next_from<'a>(
        &mut self,
        asked: impl IntoIterator<Item = (&'a str, u64)>,
        now: Duration,
    ) -> Option<(u64, Arc<Message>)> {
        self.expire(now);
        let young = self.young(now);
        let next = asked
            .into_iter()
            .filter_map(|(channel, from)| {
                let from = from.max(young);
                let numbers = self.numbers(channel)?;
                // Most polls start at the end or at the very beginning.
                if *numbers.back()? < from {
                    return None;
                }
                numbers
                    .get(numbers.partition_point(|number| *number < from))
                    .copied()
            })
            .min()?;
        Some((next, self.message(next).clone()))
    }

    /// The retained messages in any channel, from this number on, with the times
    /// at which they arrived.
    pub fn all_from(
        &self,
        number: u64,
    ) -> impl Iterator<Item = (Duration, &Arc<Message>)> {
        let skipped = usize::try_from(number.saturating_sub(self.first));
        let entries = self.entries.iter_from(skipped.unwrap_or(usize::MAX));
        entries.map(|entry| (entry.time, &entry.message))
    }

    /// As [`History::next_from`], for a poll that `woken_by` has woken. That
    /// message comes with the number from which on messages of its channel
    /// count. It is the result if it was evicted before the poll came to look.
    pub fn first_wanted<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = (&'a str, u64)>,
        woken_by: Option<(&Arc<Message>, u64)>,
        now: Duration,
    ) -> Option<(u64, Arc<Message>)> {
        let evicted = woken_by.and_then(|(message, from)| {
            if self.place::<&str>(message.id(), &[]).is_some() {
                return None;
            }
            let place = self.evicted.place(message.id());
            let place = place.unwrap_or(self.first.saturating_sub(1));
            (place >= from).then(|| (place, message.clone()))
        });
        evicted.or_else(|| self.next_from(wanted, now))
    }

    /// The position from which a client continues that has received `last`,
    /// even if that message was evicted.
    #[must_use]
    pub fn position<S: AsRef<str>>(
        &self,
        last: Option<&Id>,
        channels: &[S],
        now: Duration,
    ) -> Position {
        Position {
            last: last.and_then(|last| self.resume(last, channels)),
            recent: self.recent(now),
        }
    }

    /// The number of the oldest message at `now` for polls without a last
    /// message, or of the next message if there is none.
    #[must_use]
    pub fn recent(&self, now: Duration) -> u64 {
        if self.bounds.journal_timeout.is_none() {
            return self.first;
        }
        let oldest = now.saturating_sub(self.bounds.cache_timeout);
        let old = self.entries.partition_point(|entry| entry.time < oldest);
        self.first + old as u64
    }

    /// The position from which a client continues after message `id`, even if
    /// that message was evicted. Finding other evicted messages is the caller's
    /// job.
    pub(crate) fn resume<S: AsRef<str>>(&self, id: &Id, channels: &[S]) -> Option<u64> {
        let place = self.place(id, channels);
        place.or_else(|| self.evicted.place(id))
    }

    /// The number of the message with this id. If several messages have it, the
    /// first one in `channels` counts, as for trytond, otherwise the first of
    /// all. Only the first few of them are examined.
    #[must_use]
    pub fn place<S: AsRef<str>>(&self, id: &Id, channels: &[S]) -> Option<u64> {
        let hash = self.hasher.hash_one(id);
        let same = self
            .ids
            .find(hash, |number| self.message(number).id() == id)?;
        let is_asked = |number: &u64| {
            let channel = self.message(*number).channel();
            channels.iter().any(|asked| asked.as_ref() == channel)
        };
        let mut first = same.first(SAME_MAX);
        first.find(is_asked).or_else(|| same.first(1).next())
    }
}
