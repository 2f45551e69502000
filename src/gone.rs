//! The ids and journal numbers of messages that were evicted from the history
//! and are still in the journal.
use std::collections::{HashMap, VecDeque};

use crate::message::Id;

/// About how many bytes an entry takes: its place in the order and in the map.
const ENTRY_SIZE: usize = 2 * (size_of::<Id>() + size_of::<u64>()) + 16;

/// Evicted messages in their order: for each its id, and the journal number
/// after which a client that has received it continues.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    order: VecDeque<Left>,
    /// By id: the place that the message had in the history. The last evicted
    /// message has the place before the first retained one.
    places: HashMap<Id, u64>,
    /// The place of the first entry in the order.
    first: u64,
    last: u64,
}

#[derive(Debug)]
struct Left {
    time: f64,
    id: Id,
    number: u64,
}

impl Gone {
    /// Notes that the message with this place in the history was evicted. A
    /// message without a number gets the number of the one before it.
    pub(crate) fn push(&mut self, place: u64, time: f64, id: Id, number: u64) {
        if self.order.is_empty() {
            self.first = place;
        }
        self.last = self.last.max(number);
        let number = self.last;
        self.places.insert(id.clone(), place);
        self.order.push_back(Left { time, id, number });
    }

    /// The place that the message with this id had in the history.
    pub(crate) fn place(&self, id: &Id) -> Option<u64> {
        self.places.get(id).copied()
    }

    /// The journal number after which a client that has received this message
    /// continues.
    pub(crate) fn number(&self, id: &Id) -> Option<u64> {
        let index = usize::try_from(self.place(id)? - self.first).ok()?;
        Some(self.order.get(index)?.number)
    }

    /// The greatest number of an evicted message.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Removes the oldest entry; returns whether there was one.
    pub(crate) fn pop(&mut self) -> bool {
        let Some(Left { id, .. }) = self.order.pop_front() else {
            return false;
        };
        // A later one may have the same id.
        if self.places.get(&id) == Some(&self.first) {
            self.places.remove(&id);
        }
        self.first += 1;
        if self.order.is_empty() {
            self.order = VecDeque::new();
            self.places = HashMap::new();
        }
        true
    }

    /// Removes the entries that are older than `oldest`.
    pub(crate) fn expire(&mut self, oldest: f64) {
        while self.order.front().is_some_and(|left| left.time < oldest) {
            self.pop();
        }
    }

    /// About how many bytes this takes.
    pub(crate) fn bytes(&self) -> usize {
        self.order.len() * ENTRY_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> Id {
        Id::from_json(&id.to_string())
    }

    #[test]
    fn evicted_id_is_known_until_it_expires() {
        let mut gone = Gone::default();
        for (place, time, number) in [(5, 1.0, 10), (6, 2.0, 0), (7, 3.0, 12)] {
            gone.push(place, time, id(number), number);
        }
        let number = |gone: &Gone, number| gone.number(&id(number));
        assert_eq!(number(&gone, 10), Some(10));
        // The message had no number.
        assert_eq!(number(&gone, 0), Some(10));
        assert_eq!((number(&gone, 12), gone.last()), (Some(12), 12));
        assert_eq!(gone.place(&id(0)), Some(6));
        gone.expire(2.5);
        assert_eq!((gone.place(&id(0)), gone.place(&id(12))), (None, Some(7)));
        assert_eq!((number(&gone, 10), number(&gone, 0)), (None, None));
        assert_eq!(number(&gone, 12), Some(12));
        assert!(gone.pop() && !gone.pop());
        assert_eq!((gone.bytes(), gone.last()), (0, 12));
    }

    #[test]
    fn the_later_of_two_with_one_id_counts() {
        let mut gone = Gone::default();
        gone.push(0, 1.0, id(1), 10);
        gone.push(1, 1.0, id(1), 11);
        gone.pop();
        assert_eq!(gone.number(&id(1)), Some(11));
        gone.pop();
        assert_eq!(gone.number(&id(1)), None);
    }
}
