//! A bounded memory of values that were recently seen.
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Stores hashes, not values. It takes about 20 bytes for each of `2 * most`
/// values, however long they are.
///
/// The hash has a random key, so that a client can't find two values of one
/// hash.
#[derive(Debug)]
pub(crate) struct Recent {
    keep: Duration,
    most: usize,
    hasher: RandomState,
    young: HashSet<u64>,
    /// The values of the previous period.
    old: HashSet<u64>,
    /// When `young` was begun; none before the first value.
    begun: Option<Instant>,
}

impl Recent {
    /// Keeps values for `keep`, and at most twice as long. After `most` values
    /// the older ones are forgotten earlier.
    pub(crate) fn new(keep: Duration, most: usize) -> Self {
        Self {
            keep,
            most,
            hasher: RandomState::new(),
            young: HashSet::new(),
            old: HashSet::new(),
            begun: None,
        }
    }

    /// Keeps the value from now on.
    pub(crate) fn insert(&mut self, value: &impl Hash, now: Instant) {
        self.age(now);
        if self.young.len() >= self.most {
            self.turn(now);
        }
        self.young.insert(self.hasher.hash_one(value));
    }

    /// Whether the value was inserted a short while ago.
    pub(crate) fn contains(&mut self, value: &impl Hash, now: Instant) -> bool {
        if self.is_empty() {
            return false;
        }
        self.age(now);
        let hash = self.hasher.hash_one(value);
        self.young.contains(&hash) || self.old.contains(&hash)
    }

    /// Forgets the value.
    pub(crate) fn remove(&mut self, value: &impl Hash) {
        if self.is_empty() {
            return;
        }
        let hash = self.hasher.hash_one(value);
        self.young.remove(&hash);
        self.old.remove(&hash);
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    fn age(&mut self, now: Instant) {
        let Some(begun) = self.begun else {
            self.begun = Some(now);
            return;
        };
        let age = now.saturating_duration_since(begun);
        if age >= self.keep * 2 {
            self.turn(now);
            self.old = HashSet::new();
        } else if age >= self.keep {
            self.turn(begun + self.keep);
        }
    }

    fn turn(&mut self, begun: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.begun = Some(begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_remembered_for_a_while() {
        let keep = Duration::from_secs(5);
        let mut recent = Recent::new(keep, 100);
        let start = Instant::now();
        assert!(!recent.contains(&"a", start));
        recent.insert(&"a", start);
        for (seconds, is_known) in [(0, true), (4, true), (9, true), (11, false)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(recent.contains(&"a", now), is_known, "{seconds}");
            assert!(!recent.contains(&"b", now));
        }
        recent.insert(&"a", start + keep * 3);
        recent.remove(&"a");
        assert!(!recent.contains(&"a", start + keep * 3));
        recent.insert(&"a", start + keep * 3);
        assert!(!recent.contains(&"a", start + keep * 6));
    }

    #[test]
    fn values_are_bounded_and_the_newest_are_kept() {
        let now = Instant::now();
        let mut recent = Recent::new(Duration::from_secs(5), 100);
        for value in 0..10_000 {
            recent.insert(&value, now);
            assert!(recent.young.len() + recent.old.len() <= 200);
        }
        assert!((9_900..10_000).all(|value| recent.contains(&value, now)));
        assert!(!recent.contains(&0, now));
    }
}
