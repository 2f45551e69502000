//! The retained messages of one database: their order, its indexes by channel
//! and by id, and the limits in time and bytes.
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::gone::Gone;
use crate::index::Index;
use crate::message::{Id, Message};

/// How many bytes an entry of the order and its places in the two indexes take,
/// without the message itself.
const ENTRY_SIZE: usize = size_of::<Entry>() + 3 * size_of::<u64>() + 16;

/// The entries of evicted messages may take the limit in bytes divided by this.
const GONE_PART: usize = 4;

/// How many messages are dropped at a time, because all polls of the database
/// wait meanwhile. Expired messages that are not dropped yet are never returned.
pub(crate) const SLICE: usize = 256;

/// The messages of one database, in the order in which they arrived.
///
/// Each has a number, one more than that of the message before. The history
/// reads no clock and no configuration. Times are those of the caller's clock,
/// which began so long ago that the age of any message can be subtracted.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<Entry>,
    /// The number of the first entry, or of the next entry if the history is
    /// empty.
    first: u64,
    /// The numbers of each channel's messages, rising. No list is empty.
    channels: Index<Channel>,
    /// The numbers of the messages, by the hash of their ids. The ids
    /// themselves are in the messages. Several messages may have the same id.
    ids: Index<u64>,
    hasher: RandomState,
    bytes: usize,
    /// The evicted messages, where there is a journal.
    gone: Gone,
    /// How many messages were evicted, so that no poll can resume after them.
    evicted: u64,
    bounds: Bounds,
}

#[derive(Debug)]
struct Entry {
    time: Duration,
    message: Arc<Message>,
}

/// The messages of one channel.
#[derive(Debug)]
struct Channel {
    name: Arc<str>,
    numbers: VecDeque<u64>,
}

/// How much is retained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// How long a message is retained.
    pub cache_timeout: Duration,
    /// With a journal: how long a message is retained for polls that resume
    /// after a known message.
    pub journal_timeout: Option<Duration>,
    /// The limit of bytes for the messages. The newest message is retained even
    /// if it is larger.
    pub cache_size: usize,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            channels: Index::default(),
            ids: Index::default(),
            hasher: RandomState::new(),
            bytes: 0,
            gone: Gone::default(),
            evicted: 0,
            bounds,
        }
    }

    /// Changes the bounds, which hold from the next operation on.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Appends a message that arrived at `now`, and drops up to two slices of
    /// messages as [`History::expire`] does.
    pub fn append(&mut self, mut message: Message, now: Duration) -> Arc<Message> {
        self.expire(now);
        let number = self.end();
        let time = now.saturating_sub(message.age());
        // A message must not be older than those before it, even if the clock
        // is set back. Otherwise they would hide that it has expired.
        let time = self.entries.back().map_or(time, |last| last.time.max(time));
        self.note(&mut message, number);
        message.set_arrived(now);
        self.bytes += size(&message);
        let message = Arc::new(message);
        self.entries.push_back(Entry {
            time,
            message: message.clone(),
        });
        self.ids.insert(self.hasher.hash_one(message.id()), number);
        self.expire(now);
        message
    }

    /// Notes that the message with this number is in its channel, whose name
    /// it shares with the other messages there.
    fn note(&mut self, message: &mut Message, number: u64) {
        let hash = self.hasher.hash_one(message.channel());
        let is_it = |channel: &Channel| *channel.name == *message.channel();
        if let Some(channel) = self.channels.find_mut(hash, is_it) {
            *message.shared_channel() = channel.name.clone();
            channel.numbers.push_back(number);
            return;
        }
        let channel = Channel {
            name: message.shared_channel().clone(),
            numbers: VecDeque::from([number]),
        };
        self.channels.insert(hash, channel);
    }

    /// The numbers of the messages in a channel, if there are any.
    fn numbers(&self, channel: &str) -> Option<&VecDeque<u64>> {
        let hash = self.hasher.hash_one(channel);
        let found = self.channels.find(hash, |other| *other.name == *channel);
        found.map(|channel| &channel.numbers)
    }

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

    /// Drops a slice of the messages that have expired at `now`, or that exceed
    /// the limit in bytes; returns whether there may be more.
    pub fn expire(&mut self, now: Duration) -> bool {
        let oldest = self.oldest(now);
        for _ in 0..SLICE {
            // In the order of their age
            if self.gone.is_first_old(oldest) {
                self.gone.pop();
            } else if self.is_first_old(oldest) {
                self.remove_first();
            } else if self.is_full() {
                self.evict_first();
            } else {
                return false;
            }
        }
        true
    }

    /// Whether the messages exceed the limit in bytes. The newest message is
    /// retained in any case.
    fn is_full(&self) -> bool {
        self.bytes() > self.bounds.cache_size && self.entries.len() > 1
    }

    /// Messages that arrived before this time have expired at `now`.
    fn oldest(&self, now: Duration) -> Duration {
        let Bounds {
            cache_timeout,
            journal_timeout,
            ..
        } = self.bounds;
        now.saturating_sub(cache_timeout.max(journal_timeout.unwrap_or_default()))
    }

    fn is_first_old(&self, oldest: Duration) -> bool {
        let first = self.entries.front();
        first.is_some_and(|entry| entry.time < oldest)
    }

    /// The number of the first message that has not expired at `now`.
    fn young(&self, now: Duration) -> u64 {
        let oldest = self.oldest(now);
        if !self.is_first_old(oldest) {
            return self.first;
        }
        let old = self.entries.partition_point(|entry| entry.time < oldest);
        self.first + old as u64
    }

    /// Removes all messages and returns them. Freeing them takes a while, so
    /// the caller does it without a lock.
    #[must_use = "it is to be dropped without a lock"]
    pub fn clear(&mut self) -> impl Sized + use<> {
        self.first += self.entries.len() as u64;
        self.bytes = 0;
        (
            std::mem::take(&mut self.entries),
            std::mem::take(&mut self.channels),
            std::mem::take(&mut self.ids),
            std::mem::take(&mut self.gone),
        )
    }

    /// Removes the entries of evicted messages.
    pub(crate) fn forget_gone(&mut self) {
        self.gone = Gone::default();
    }

    /// The number of the oldest retained message, or of the next message if the
    /// history is empty.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next message.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
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

    /// How many messages are retained.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no message is retained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes the retained messages and their indexes take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.gone.bytes()
    }

    /// How many messages were evicted for lack of memory, so that no poll can
    /// resume after them.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The evicted messages that are in the journal.
    pub(crate) fn gone(&self) -> &Gone {
        &self.gone
    }

    /// The position from which a client continues after message `id`, even if
    /// that message was evicted. Finding other evicted messages is the caller's
    /// job.
    pub(crate) fn resume<S: AsRef<str>>(&self, id: &Id, channels: &[S]) -> Option<u64> {
        let place = self.place(id, channels);
        place.or_else(|| self.gone.place(id))
    }

    /// The number of the message with this id. If several messages have it, the
    /// first one in `channels` counts, as for trytond, otherwise the first of
    /// all.
    #[must_use]
    pub fn place<S: AsRef<str>>(&self, id: &Id, channels: &[S]) -> Option<u64> {
        let mut anywhere = None;
        let mut asked = None;
        for &number in self.ids.with_hash(self.hasher.hash_one(id)) {
            let message = self.message(number);
            if message.id() == id {
                let place = if channels.iter().any(|c| c.as_ref() == message.channel())
                {
                    &mut asked
                } else {
                    &mut anywhere
                };
                *place = Some(place.map_or(number, |other: u64| other.min(number)));
            }
        }
        asked.or(anywhere)
    }

    fn message(&self, number: u64) -> &Arc<Message> {
        let index = usize::try_from(number - self.first);
        &self.entries[index.expect("it was an index before")].message
    }

    /// Evicts the first message. Its id and journal number are kept if it is in
    /// the journal.
    fn evict_first(&mut self) {
        let first = self.entries.front();
        if let Some(Entry { time, message }) =
            first.filter(|_| self.bounds.journal_timeout.is_some())
        {
            let (id, number) = (message.id().clone(), message.number());
            self.gone.push(self.first, *time, id, number);
            if self.gone.bytes() > self.bounds.cache_size / GONE_PART && self.gone.pop()
            {
                self.evicted += 1;
            }
        } else {
            self.evicted += 1;
        }
        self.remove_first();
    }

    fn remove_first(&mut self) {
        let Some(Entry { message, .. }) = self.entries.pop_front() else {
            return;
        };
        let number = self.first;
        self.first += 1;
        self.bytes -= size(&message);
        self.ids
            .remove(self.hasher.hash_one(message.id()), |other| *other == number);
        let hash = self.hasher.hash_one(message.channel());
        let is_it = |channel: &Channel| *channel.name == *message.channel();
        if let Some(Channel { numbers, .. }) = self.channels.find_mut(hash, is_it) {
            numbers.pop_front();
            shrink(numbers);
            if numbers.is_empty() {
                self.channels.remove(hash, is_it);
            }
        }
        shrink(&mut self.entries);
    }
}

/// Frees the memory of a burst after it is over. The removals before each such
/// call outweigh its cost.
fn shrink<T>(list: &mut VecDeque<T>) {
    if list.capacity() > 64 && list.len() < list.capacity() / 8 {
        list.shrink_to(list.len() * 2);
    }
}

fn size(message: &Message) -> usize {
    message.size() + ENTRY_SIZE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDE: Bounds = Bounds {
        cache_timeout: Duration::from_secs(5),
        journal_timeout: None,
        cache_size: usize::MAX,
    };

    fn message(channel: &str, id: u64) -> Message {
        Message::new(channel, &format!("{{\"message_id\":{id}}}"))
            .expect("a good message")
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id(id: u64) -> Id {
        Id::from_json(&id.to_string())
    }

    /// The id of the next message, as a number.
    fn next(
        history: &mut History,
        channels: &[&str],
        last: Option<u64>,
        now: Duration,
    ) -> Option<u64> {
        let next = history.next(channels, last.map(id).as_ref(), now)?;
        let json = next.json();
        Some(
            json["{\"message_id\":".len()..json.len() - 1]
                .parse()
                .expect("a number"),
        )
    }

    fn filled(count: u64) -> History {
        let mut history = History::new(WIDE);
        for number in 0..count {
            history.append(
                message(if number % 2 == 0 { "even" } else { "odd" }, number),
                at(0),
            );
        }
        history
    }

    #[test]
    fn next_is_the_first_after_the_last_in_the_asked_channels() {
        let mut history = filled(10);
        for (channels, last, expected) in [
            (&["even", "odd"][..], Some(3), Some(4)),
            (&["odd"], Some(3), Some(5)),
            (&["odd"], Some(9), None),
            (&["even", "odd"], Some(9), None),
            (&["even", "odd"], None, Some(0)),
            (&["odd"], None, Some(1)),
            // The last message is in a channel that the poll no longer names.
            (&["odd"], Some(4), Some(5)),
            (&["even"], Some(9), None),
            // The last message is unknown.
            (&["odd"], Some(99), Some(1)),
            (&["other"], None, None),
            (&["other"], Some(3), None),
            (&[], Some(3), None),
        ] {
            assert_eq!(
                next(&mut history, channels, last, at(0)),
                expected,
                "{channels:?} after {last:?}"
            );
        }
    }

    #[test]
    fn expired_message_is_not_returned_and_its_id_is_unknown() {
        let mut history = History::new(WIDE);
        for number in 0..15 {
            history.append(message("c", number), at(number));
        }
        assert_eq!(next(&mut history, &["c"], None, at(15)), Some(10));
        assert_eq!(next(&mut history, &["c"], Some(0), at(15)), Some(10));
        assert_eq!(next(&mut history, &["c"], Some(11), at(15)), Some(12));
        assert_eq!(next(&mut history, &["c"], None, at(100)), None);
        assert!(history.is_empty());
        assert_eq!(history.bytes(), 0);
    }

    #[test]
    fn old_message_is_for_polls_that_resume_only() {
        let mut history = History::new(Bounds {
            journal_timeout: Some(Duration::from_secs(100)),
            ..WIDE
        });
        for number in 0..15 {
            history.append(message("c", number), at(number));
        }
        for (last, now, expected) in [
            (None, at(15), Some(10)),
            (Some(99), at(15), Some(10)),
            (Some(0), at(15), Some(1)),
            (Some(12), at(15), Some(13)),
            (None, at(50), None),
            (Some(13), at(50), Some(14)),
            (Some(13), at(150), None),
        ] {
            assert_eq!(
                next(&mut history, &["c"], last, now),
                expected,
                "after {last:?} at {now:?}"
            );
        }
    }

    #[test]
    fn a_clock_set_back_does_not_keep_messages_for_ever() {
        let mut history = History::new(WIDE);
        history.append(message("c", 1), at(1000));
        history.append(message("c", 2), at(10));
        assert_eq!(next(&mut history, &["c"], Some(1), at(10)), Some(2));
        history.expire(at(1006));
        assert!(history.is_empty());
    }

    #[test]
    fn bytes_bound_drops_the_oldest_but_never_the_newest() {
        let one = size(&message("c", 1));
        let mut history = History::new(Bounds {
            cache_size: 3 * one,
            ..WIDE
        });
        for number in 0..9 {
            history.append(message("c", number), at(0));
        }
        assert_eq!(history.len(), 3);
        assert_eq!(history.evicted(), 6);
        assert_eq!(next(&mut history, &["c"], None, at(0)), Some(6));
        let large = format!("{{\"message_id\":9,\"x\":\"{}\"}}", "x".repeat(9 * one));
        history.append(Message::new("c", &large).expect("a good message"), at(0));
        assert_eq!(history.len(), 1);
        assert!(history.next(&["c"], None, at(0)).is_some());
    }

    #[test]
    fn room_for_a_large_message_is_made_in_slices() {
        let one = size(&message("c", 1_000_000));
        let count = 10 * SLICE;
        let mut history = History::new(Bounds {
            cache_size: count * one,
            ..WIDE
        });
        for number in 0..count as u64 {
            history.append(message("c", 1_000_000 + number), at(0));
        }
        let text = "x".repeat(count * one);
        let large =
            Message::new("c", &format!("{{\"message_id\":1,\"x\":\"{text}\"}}"));
        history.append(large.expect("a good message"), at(0));
        let mut before = count + 1;
        loop {
            assert!(
                history.len() + SLICE >= before,
                "{} of {before}",
                history.len()
            );
            before = history.len();
            if !history.expire(at(0)) {
                break;
            }
        }
        assert_eq!(history.len(), 1);
    }

    #[test]
    fn evicted_message_is_before_all_retained_ones() {
        let one = size(&message("c", 1));
        let bytes = 8 * one;
        let mut history = History::new(Bounds {
            cache_timeout: Duration::from_secs(5),
            journal_timeout: Some(Duration::from_secs(100)),
            cache_size: bytes,
        });
        for number in 1..=20 {
            history.append(message("c", number).numbered(number), at(0));
            assert!(history.bytes() <= bytes);
        }
        let last = history.gone().last();
        assert_eq!(
            next(&mut history, &["c"], Some(last), at(0)),
            Some(last + 1)
        );
        assert_eq!(history.gone().number(&id(last)), Some(last));
        assert!(history.gone().bytes() <= bytes / GONE_PART);
        let known =
            (1..=last).filter(|known| history.gone().number(&id(*known)).is_some());
        assert_eq!(history.evicted() + known.count() as u64, last);
        history.expire(at(101));
        assert_eq!(history.bytes(), 0);
    }

    #[test]
    fn evicted_messages_keep_their_numbers_over_a_time_without_the_journal() {
        let bounds = |journal_timeout| Bounds {
            cache_timeout: Duration::from_secs(5),
            journal_timeout,
            cache_size: 50 * size(&message("c", 1000)),
        };
        let mut history = History::new(bounds(Some(at(100))));
        for (numbers, journal) in [
            (1000..1100, Some(at(100))),
            (1100..1120, None),
            (1120..1140, Some(at(100))),
        ] {
            history.set_bounds(bounds(journal));
            for number in numbers {
                history.append(message("c", number).numbered(number), at(0));
            }
        }
        let known: Vec<_> = (1000..1140)
            .filter_map(|number| Some((number, history.gone().number(&id(number))?)))
            .collect();
        assert!(known.iter().all(|(id, number)| id == number), "{known:?}");
        let gaps = known.windows(2).filter(|pair| pair[1].0 != pair[0].0 + 1);
        assert_eq!(gaps.count(), 1, "{known:?}");
    }

    #[test]
    fn messages_are_evicted_while_older_ones_expire() {
        let journal = Bounds {
            cache_timeout: Duration::from_secs(5),
            journal_timeout: Some(Duration::from_secs(100)),
            cache_size: 20 * SLICE * size(&message("c", 10_000)),
        };
        let mut history = History::new(journal);
        let count = 30 * SLICE as u64;
        for number in 10_000..10_000 + count {
            let time = if number < 10_000 + count / 2 {
                at(0)
            } else {
                at(50)
            };
            history.append(message("c", number).numbered(number), time);
        }
        assert!(history.gone().bytes() > 2 * SLICE * size_of::<Id>());
        history.set_bounds(Bounds {
            cache_size: journal.cache_size / 2,
            ..journal
        });
        let mut before = history.end() - history.first();
        while history.expire(at(101)) {
            let now = history.end() - history.first();
            assert!(before - now <= SLICE as u64);
            before = now;
        }
        assert!(history.bytes() <= journal.cache_size / 2);
        let last = history.gone().last();
        assert_eq!(
            next(&mut history, &["c"], Some(last), at(101)),
            Some(last + 1)
        );
    }

    #[test]
    fn old_messages_are_dropped_in_slices_and_not_returned_meanwhile() {
        let mut history = History::new(WIDE);
        for number in 0..10 * SLICE {
            let message = Message::new("a", &format!("{{\"message_id\":{number}}}"));
            history.append(message.expect("good"), at(0));
        }
        assert!(history.next(&["a"], None, at(6)).is_none());
        assert!(history.len() >= 8 * SLICE, "{}", history.len());
        let message = Message::new("a", r#"{"message_id":"young"}"#).expect("good");
        let young = history.append(message, at(6));
        let next = history.next(&["a"], None, at(6)).expect("the young one");
        assert_eq!(next.id(), young.id());
        while history.expire(at(6)) {}
        assert_eq!(history.len(), 1);
    }

    #[test]
    fn channels_without_messages_cost_nothing() {
        let mut history = History::new(WIDE);
        for number in 0..10_000 {
            history.append(message(&format!("c{number}"), number), at(0));
        }
        while history.expire(at(6)) {}
        assert_eq!(history.channels.len(), 0);
        assert!(history.entries.capacity() <= 64);
    }

    #[test]
    fn clear_forgets_all() {
        let mut history = filled(10);
        drop(history.clear());
        assert_eq!(next(&mut history, &["even"], Some(3), at(0)), None);
        history.append(message("even", 20), at(0));
        assert_eq!(next(&mut history, &["even"], Some(3), at(0)), Some(20));
    }

    /// The rule in its simplest form, which examines every retained message.
    fn slow_next(
        all: &[(u8, u64, Duration)],
        channels: &[u8],
        last: Option<u64>,
        now: Duration,
    ) -> Option<u64> {
        let fresh = all.iter().filter(|(_, _, time)| *time + at(5) >= now);
        let fresh: Vec<_> = fresh.collect();
        let place = last.and_then(|last| {
            let asked = |(channel, id, _): &&(u8, u64, Duration)| {
                *id == last && channels.contains(channel)
            };
            let anywhere = |(_, id, _): &&(u8, u64, Duration)| *id == last;
            fresh
                .iter()
                .position(asked)
                .or_else(|| fresh.iter().position(anywhere))
        });
        fresh[place.map_or(0, |place| place + 1)..]
            .iter()
            .find(|(channel, _, _)| channels.contains(channel))
            .map(|(_, id, _)| *id)
    }

    proptest! {
        #[test]
        fn next_agrees_with_a_scan(
            steps in prop::collection::vec((0_u8..4, 0_u64..30, 0_u64..2000), 1..80),
            polls in prop::collection::vec(
                (prop::collection::vec(0_u8..4, 0..4), prop::option::of(0_u64..30)), 1..20),
        ) {
            let names = ["a", "b", "c", "d"];
            let mut history = History::new(WIDE);
            let mut all = Vec::new();
            let mut now = Duration::ZERO;
            for (channel, id, passed) in steps {
                now += Duration::from_millis(passed);
                history.append(message(names[channel as usize], id), now);
                all.push((channel, id, now));
                for (channels, last) in &polls {
                    let asked: Vec<_> = channels.iter().map(|c| names[*c as usize]).collect();
                    prop_assert_eq!(
                        next(&mut history, &asked, *last, now),
                        slow_next(&all, channels, *last, now)
                    );
                }
            }
            history.expire(now + at(6));
            prop_assert!(history.is_empty());
            prop_assert_eq!(history.bytes(), 0);
            prop_assert!(history.channels.is_empty() && history.ids.is_empty());
        }
    }
}
