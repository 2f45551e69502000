//! The ids and journal numbers of messages that were evicted from the history
//! and are still in the journal.
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::ids::Ids;
use crate::message::Id;
use crate::queue::Queue;

/// About how many bytes an entry takes, in the order and in the index.
const ENTRY_SIZE: usize = size_of::<Entry>() + 5 * size_of::<u64>();

/// Evicted messages in their order: for each its id, and the journal number
/// after which a client that has received it continues.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    order: Queue<Entry>,
    /// How many entries were removed from the front of the order.
    removed: u64,
    /// By the hash of the id: how many entries were pushed before.
    ids: Ids,
    hasher: RandomState,
    /// The greatest journal number that was pushed.
    last: u64,
    /// How many bytes the ids have allocated.
    allocated: usize,
}

#[derive(Debug)]
struct Entry {
    /// The place that the message had in the history. Places rise, but not all
    /// evicted messages are here.
    place: u64,
    time: Duration,
    id: Id,
    number: u64,
}

impl Evicted {
    /// Notes that the message with this place in the history was evicted. A
    /// message without a number gets the number of the one before it.
    pub(crate) fn push(&mut self, place: u64, time: Duration, id: Id, number: u64) {
        self.last = self.last.max(number);
        let pushed = self.removed + self.order.len() as u64;
        let (order, removed) = (&self.order, self.removed);
        self.ids.insert(self.hasher.hash_one(&id), pushed, |other| {
            entry(order, removed, other).id == id
        });
        self.allocated += id.allocated();
        self.order.push_back(Entry {
            place,
            time,
            id,
            number: self.last,
        });
    }

    /// The place that the message with this id had in the history.
    pub(crate) fn place(&self, id: &Id) -> Option<u64> {
        self.find(id).map(|entry| entry.place)
    }

    /// The journal number after which a client that has received this message
    /// continues.
    pub(crate) fn number(&self, id: &Id) -> Option<u64> {
        self.find(id).map(|entry| entry.number)
    }

    /// The last message with this id.
    fn find(&self, id: &Id) -> Option<&Entry> {
        let entry = |pushed| entry(&self.order, self.removed, pushed);
        let hash = self.hasher.hash_one(id);
        let same = self.ids.find(hash, |pushed| entry(pushed).id == *id)?;
        Some(entry(same.last()))
    }

    /// The greatest number of an evicted message.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Removes the oldest entry; returns whether there was one.
    pub(crate) fn pop(&mut self) -> bool {
        let Some(Entry { id, .. }) = self.order.pop_front() else {
            return false;
        };
        self.ids.remove(self.hasher.hash_one(&id), self.removed);
        self.allocated -= id.allocated();
        self.removed += 1;
        true
    }

    /// Whether the oldest entry is older than `oldest`.
    pub(crate) fn is_first_old(&self, oldest: Duration) -> bool {
        let first = self.order.front();
        first.is_some_and(|entry| entry.time < oldest)
    }

    /// About how many bytes this takes.
    pub(crate) fn bytes(&self) -> usize {
        self.order.len() * ENTRY_SIZE + self.allocated
    }
}

/// The entry before which `pushed` entries were pushed, and of those `removed`
/// were removed.
fn entry(order: &Queue<Entry>, removed: u64, pushed: u64) -> &Entry {
    let index = usize::try_from(pushed - removed);
    let entry = index.ok().and_then(|index| order.get(index));
    entry.expect("its place is in the index")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id(id: u64) -> Id {
        Id::from_json(&id.to_string())
    }

    #[test]
    fn evicted_id_is_known_until_it_expires() {
        let mut evicted = Evicted::default();
        for (place, time, number) in [(5, at(1), 10), (6, at(2), 0), (7, at(3), 12)] {
            evicted.push(place, time, id(number), number);
        }
        let number = |evicted: &Evicted, number| evicted.number(&id(number));
        assert_eq!(number(&evicted, 10), Some(10));
        // The message had no number.
        assert_eq!(number(&evicted, 0), Some(10));
        assert_eq!((number(&evicted, 12), evicted.last()), (Some(12), 12));
        assert_eq!(evicted.place(&id(0)), Some(6));
        while evicted.is_first_old(at(2) + at(1) / 2) {
            assert!(evicted.pop());
        }
        assert_eq!(
            (evicted.place(&id(0)), evicted.place(&id(12))),
            (None, Some(7))
        );
        assert_eq!((number(&evicted, 10), number(&evicted, 0)), (None, None));
        assert_eq!(number(&evicted, 12), Some(12));
        assert!(evicted.pop() && !evicted.pop());
        assert_eq!((evicted.bytes(), evicted.last()), (0, 12));
    }

    #[test]
    fn the_later_of_two_with_one_id_counts() {
        let mut evicted = Evicted::default();
        evicted.push(0, at(1), id(1), 10);
        evicted.push(1, at(1), id(1), 11);
        evicted.pop();
        assert_eq!(evicted.number(&id(1)), Some(11));
        evicted.pop();
        assert_eq!(evicted.number(&id(1)), None);
    }
}
