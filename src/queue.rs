//! A queue that grows and shrinks a little at a time.
//!
//! A plain queue moves all of its values when it is full, under the lock of a
//! bus. This one consists of short queues, none of which is ever moved.
use std::collections::VecDeque;

/// The most values of a part.
const PART: usize = 512;

/// Values in their order.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// None is empty. All but the first and the last have [`PART`] values.
    parts: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            parts: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Appends a value.
    pub(crate) fn push_back(&mut self, value: T) {
        self.len += 1;
        match self.parts.back_mut() {
            Some(part) if part.len() < PART => part.push_back(value),
            _ => self.parts.push_back(VecDeque::from([value])),
        }
    }

    /// Removes the first value.
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let part = self.parts.front_mut()?;
        let value = part.pop_front();
        if part.is_empty() {
            self.parts.pop_front();
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        value
    }

    /// The value with this index.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let first = self.parts.front()?;
        match index.checked_sub(first.len()) {
            None => first.get(index),
            Some(rest) => self.parts.get(1 + rest / PART)?.get(rest % PART),
        }
    }

    /// The value with this index, to be changed.
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let first = self.parts.front()?.len();
        match index.checked_sub(first) {
            None => self.parts.front_mut()?.get_mut(index),
            Some(rest) => self.parts.get_mut(1 + rest / PART)?.get_mut(rest % PART),
        }
    }

    /// The values from this index on.
    pub(crate) fn iter_from(&self, index: usize) -> impl Iterator<Item = &T> {
        (index..self.len).filter_map(|index| self.get(index))
    }

    /// The first value.
    pub(crate) fn front(&self) -> Option<&T> {
        self.parts.front()?.front()
    }

    /// The last value.
    pub(crate) fn back(&self) -> Option<&T> {
        self.parts.back()?.back()
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index of the first value for which `is_before` returns false. It
    /// returns true for all values before that one.
    pub(crate) fn partition_point(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let (mut from, mut to) = (0, self.len);
        while from < to {
            let middle = from.midpoint(to);
            if self.get(middle).is_some_and(&is_before) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_not_moved_when_the_queue_grows() {
        let mut queue = Queue::default();
        queue.push_back(0);
        for number in 1..PART {
            queue.push_back(number);
        }
        let address: *const usize = queue.get(0).expect("a value");
        for number in PART..100 * PART {
            queue.push_back(number);
        }
        assert!(std::ptr::eq(address, queue.get(0).expect("a value")));
        assert!(queue.parts.iter().all(|part| part.len() == PART));
    }

    #[test]
    fn empty_queue_takes_no_memory() {
        let mut queue = Queue::default();
        for number in 0..10_000 {
            queue.push_back(number);
        }
        while queue.pop_front().is_some() {}
        assert_eq!(queue.parts.capacity(), 0);
    }

    proptest! {
        #[test]
        fn queue_agrees_with_a_plain_one(
            steps in prop::collection::vec((0..2000_usize, 0..1500_usize), 1..8)) {
            let (mut queue, mut plain) = (Queue::default(), VecDeque::new());
            let mut next = 0;
            for (pushed, popped) in steps {
                for _ in 0..pushed {
                    queue.push_back(next);
                    plain.push_back(next);
                    next += 1;
                }
                for _ in 0..popped {
                    prop_assert_eq!(queue.pop_front(), plain.pop_front());
                }
                prop_assert_eq!(queue.len(), plain.len());
                prop_assert_eq!(queue.is_empty(), plain.is_empty());
                prop_assert_eq!((queue.front(), queue.back()), (plain.front(), plain.back()));
                for index in [0, 1, 511, 512, 513, 1024, 1025, 3000] {
                    prop_assert_eq!(queue.get(index), plain.get(index));
                    prop_assert_eq!(queue.get_mut(index), plain.get_mut(index));
                    prop_assert!(queue.iter_from(index).eq(plain.iter().skip(index)));
                }
                for number in [0, next / 2, next] {
                    let is_before = |value: &usize| *value < number;
                    prop_assert_eq!(
                        queue.partition_point(is_before), plain.partition_point(is_before));
                }
            }
        }
    }
}
