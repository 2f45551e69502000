//! The numbers of messages by their ids, of which several may be the same.
use crate::index::Index;
use crate::queue::Queue;

/// Numbers by the hashes of ids. As for an [`Index`], the caller hashes and
/// compares.
///
/// Any role of the database can send any number of messages with one id. Their
/// numbers are one value of the index, because equal hashes would make it slow.
#[derive(Debug, Default)]
pub(super) struct Ids(Index<Numbers>);

/// The numbers of the messages that have the same id, rising.
#[derive(Debug)]
pub(super) struct Numbers {
    first: u64,
    /// The others, if there are any.
    more: Option<Box<Queue<u64>>>,
}

impl Ids {
    /// Adds a number, greater than those before. `is_same` says of the number
    /// of another message whether the ids are equal.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        number: u64,
        is_same: impl Fn(u64) -> bool,
    ) {
        let same = self.0.find_mut(hash, |numbers| is_same(numbers.first));
        if let Some(Numbers { more, .. }) = same {
            more.get_or_insert_default().push_back(number);
            return;
        }
        let numbers = Numbers {
            first: number,
            more: None,
        };
        self.0.insert(hash, numbers);
    }

    /// Removes a number, the least of all.
    pub(super) fn remove(&mut self, hash: u64, number: u64) {
        let is_it = |numbers: &Numbers| numbers.first == number;
        let Some(Numbers { first, more }) = self.0.find_mut(hash, is_it) else {
            return;
        };
        match more.as_mut().and_then(|more| more.pop_front()) {
            Some(next) => *first = next,
            None => {
                self.0.remove(hash, is_it);
            }
        }
    }

    /// The numbers of the messages with an id, if there are any.
    pub(super) fn find(
        &self,
        hash: u64,
        is_same: impl Fn(u64) -> bool,
    ) -> Option<&Numbers> {
        self.0.find(hash, |numbers| is_same(numbers.first))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Numbers {
    /// The first of them, at most `most`.
    pub(super) fn first(&self, most: usize) -> impl Iterator<Item = u64> {
        let more = self.more.iter().flat_map(|more| more.iter_from(0));
        std::iter::once(self.first).chain(more.copied()).take(most)
    }

    /// The last of them.
    pub(super) fn last(&self) -> u64 {
        let last = self.more.as_ref().and_then(|more| more.back());
        last.copied().unwrap_or(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_id_are_found_in_their_order() {
        // The ids are the last digits of the numbers, and some share a hash.
        let hash = |number: u64| number % 10 / 2;
        let is_same = |number: u64| move |other: u64| number % 10 == other % 10;
        let mut ids = Ids::default();
        for number in 0..2000 {
            ids.insert(hash(number), number, is_same(number));
        }
        for removed in 0..2000 {
            let id = removed % 10;
            let found = ids.find(hash(id), is_same(id)).expect("the number");
            assert_eq!(found.last(), 1990 + id);
            let first: Vec<_> = found.first(3).collect();
            let all = [removed, removed + 10, removed + 20];
            let left = all.iter().filter(|number| **number < 2000);
            assert_eq!(first, left.copied().collect::<Vec<_>>());
            ids.remove(hash(removed), removed);
        }
        assert!(ids.is_empty());
    }
}
