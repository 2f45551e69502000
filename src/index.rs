//! A hash table that grows and shrinks a little at a time.
//!
//! A plain table moves all of its entries when it is full. For the messages of
//! a full history that takes 100 ms, under the lock of their bus. This index
//! consists of small tables. It grows by splitting one table, and shrinks by
//! joining two (linear hashing).
use hashbrown::HashTable;

/// The average number of values in a table above which one table is split.
const FULL: usize = 512;

/// The average number of values in a table below which two tables are joined.
const SPARSE: usize = 64;

/// Values by their hashes. As for a [`HashTable`], the caller hashes and
/// compares.
#[derive(Debug)]
pub(crate) struct Index<T> {
    /// The values with their hashes, so that a value can be moved without
    /// reading it. Empty while there is no value.
    tables: Vec<HashTable<(u64, T)>>,
    len: usize,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Index<T> {
    /// The value with this hash for which `is_it` returns true.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let table = self.tables.get(self.place(hash))?;
        let found = table.find(hash, |(other, value)| *other == hash && is_it(value));
        found.map(|(_, value)| value)
    }

    /// As [`Index::find`]. The hash of the value must stay the same.
    pub(crate) fn find_mut(
        &mut self,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
    ) -> Option<&mut T> {
        let place = self.place(hash);
        let table = self.tables.get_mut(place)?;
        let found =
            table.find_mut(hash, |(other, value)| *other == hash && is_it(value));
        found.map(|(_, value)| value)
    }

    /// Inserts a value, even if an equal one is there. Many values of one hash
    /// would make it slow.
    pub(crate) fn insert(&mut self, hash: u64, value: T) {
        if self.len >= self.tables.len() * FULL {
            self.split();
        }
        self.put(hash, value);
        self.len += 1;
    }

    /// Takes out the value with this hash for which `is_it` returns true.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        is_it: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let place = self.place(hash);
        let found = self
            .tables
            .get_mut(place)?
            .find_entry(hash, |(other, value)| *other == hash && is_it(value));
        let ((_, value), _) = found.ok()?.remove();
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.len < (self.tables.len() - 1) * SPARSE {
            self.join();
        }
        Some(value)
    }

    /// How many values there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn put(&mut self, hash: u64, value: T) {
        let place = self.place(hash);
        self.tables[place].insert_unique(hash, (hash, value), |(hash, _)| *hash);
    }

    /// The table of a hash. The bits of the hash that select the table are none
    /// of those by which a table finds a value.
    fn place(&self, hash: u64) -> usize {
        let bits = usize::try_from(hash >> 32 & 0xff_ffff).unwrap_or_default();
        let most = self.tables.len().next_power_of_two();
        let place = bits & (most - 1);
        if place < self.tables.len() {
            place
        } else {
            // That table will be split from this one.
            place - most / 2
        }
    }

    /// The table that the last table is split from.
    fn origin_of_last(&self) -> usize {
        let last = self.tables.len() - 1;
        last.checked_ilog2().map_or(0, |bits| last - (1 << bits))
    }

    /// Adds a table. It takes over values of its origin.
    fn split(&mut self) {
        self.tables.push(HashTable::new());
        let origin = self.origin_of_last();
        self.distribute(origin);
    }

    /// Removes the last table. Its origin takes over the values.
    fn join(&mut self) {
        let origin = self.origin_of_last();
        let last = self.tables.pop().unwrap_or_default();
        // The origin is rebuilt, because it may be mostly empty.
        self.distribute(origin);
        for (hash, value) in last {
            self.put(hash, value);
        }
        if self.tables.len() < self.tables.capacity() / 4 {
            self.tables.shrink_to(self.tables.len() * 2);
        }
    }

    /// Puts each value of a table where it belongs now.
    fn distribute(&mut self, table: usize) {
        for (hash, value) in std::mem::take(&mut self.tables[table]) {
            self.put(hash, value);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    fn filled(hasher: &RandomState, values: u64) -> Index<u64> {
        let mut index = Index::default();
        for value in 0..values {
            index.insert(hasher.hash_one(value), value);
        }
        index
    }

    #[test]
    fn no_step_moves_more_than_two_small_tables() {
        const VALUES: u64 = 60_000;
        let hasher = RandomState::new();
        let mut index = Index::default();
        let mut tables = 0;
        let mut check = |index: &Index<u64>, value| {
            // Only the last step rebuilds the index.
            assert!(index.tables.len().abs_diff(tables) <= 1, "{value}");
            tables = index.tables.len();
            if value % 1000 == 0 {
                let most = index.tables.iter().map(HashTable::len).max();
                assert!(most <= Some(3 * FULL), "{most:?}");
            }
        };
        for value in 0..VALUES {
            index.insert(hasher.hash_one(value), value);
            check(&index, value);
        }
        assert!(index.tables.len() > 100, "{}", index.tables.len());
        for value in 0..VALUES {
            let hash = hasher.hash_one(value);
            assert_eq!(index.remove(hash, |other| *other == value), Some(value));
            check(&index, value);
        }
        assert_eq!((index.len, index.tables.capacity()), (0, 0));
    }

    #[test]
    fn memory_of_a_crowd_is_given_back() {
        let hasher = RandomState::new();
        let mut index = filled(&hasher, 100_000);
        for value in 10..100_000 {
            index.remove(hasher.hash_one(value), |other| *other == value);
        }
        let capacity: usize = index.tables.iter().map(HashTable::capacity).sum();
        assert!(capacity < 8 * FULL, "{capacity}");
        assert!(index.tables.capacity() < 8, "{}", index.tables.capacity());
    }

    #[test]
    fn values_of_one_hash_are_all_found() {
        let hasher = RandomState::new();
        let mut index = filled(&hasher, 10_000);
        let hash = hasher.hash_one(0_u64);
        index.insert(hash, 10_001);
        index.insert(hash, 10_002);
        for value in [0, 10_001, 10_002] {
            let is_it = |other: &u64| *other == value;
            assert_eq!(index.find(hash, is_it), Some(&value));
            assert_eq!(index.remove(hash, is_it), Some(value));
            assert_eq!(index.remove(hash, is_it), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn index_agrees_with_a_set(steps in prop::collection::vec(0_u64..40_000, 0..6000)) {
            let hasher = RandomState::new();
            let (mut index, mut set) = (Index::default(), HashSet::new());
            for value in steps.iter().chain(steps.iter().rev()) {
                let hash = hasher.hash_one(value);
                let is_it = |other: &u64| other == value;
                prop_assert_eq!(index.find(hash, is_it).is_some(), set.contains(value));
                prop_assert_eq!(index.find_mut(hash, is_it).is_some(), set.contains(value));
                if set.remove(value) {
                    prop_assert_eq!(index.remove(hash, is_it), Some(*value));
                } else {
                    set.insert(*value);
                    index.insert(hash, *value);
                    prop_assert!(index.find(hash, is_it).is_some());
                }
                prop_assert_eq!(index.len, set.len());
            }
        }
    }
}
