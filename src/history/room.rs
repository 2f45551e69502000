//! Dropping messages that have expired, or that exceed the limit in bytes.
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Duration;

use super::evicted::Evicted;
use super::{Bounds, Channel, Entry, History, size};

/// The entries of evicted messages may take the limit in bytes divided by this.
pub(super) const EVICTED_PART: usize = 4;

/// How many messages are dropped at a time, because all polls of the database
/// wait meanwhile. Expired messages that are not dropped yet are never returned.
pub(crate) const SLICE: usize = 256;

impl History {
    /// Drops a slice of the messages that have expired at `now`, or that exceed
    /// the limit in bytes; returns whether there may be more.
    pub fn expire(&mut self, now: Duration) -> bool {
        let oldest = self.oldest(now);
        for _ in 0..SLICE {
            // In the order of their age
            if self.evicted.is_first_old(oldest) {
                self.evicted.pop();
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
    pub(super) fn young(&self, now: Duration) -> u64 {
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
            std::mem::take(&mut self.evicted),
        )
    }

    /// Removes the entries of evicted messages.
    pub(crate) fn forget_evicted(&mut self) {
        self.evicted = Evicted::default();
    }

    /// Evicts the first message. Its id and journal number are kept if it is in
    /// the journal.
    fn evict_first(&mut self) {
        let first = self.entries.front();
        if let Some(Entry { time, message }) =
            first.filter(|_| self.bounds.journal_timeout.is_some())
        {
            let (id, number) = (message.id().clone(), message.number());
            self.evicted.push(self.first, *time, id, number);
            if self.evicted.bytes() > self.bounds.cache_size / EVICTED_PART
                && self.evicted.pop()
            {
                self.forgotten += 1;
            }
        } else {
            self.forgotten += 1;
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
        self.ids.remove(self.hasher.hash_one(message.id()), number);
        let hash = self.hasher.hash_one(message.channel());
        let is_it = |channel: &Channel| *channel.name == *message.channel();
        if let Some(Channel { numbers, .. }) = self.channels.find_mut(hash, is_it) {
            numbers.pop_front();
            shrink(numbers);
            if numbers.is_empty() {
                self.channels.remove(hash, is_it);
            }
        }
    }
}

/// Frees the memory of a burst after it is over. The removals before each such
/// call outweigh its cost.
fn shrink(list: &mut VecDeque<u64>) {
    if list.capacity() > 64 && list.len() < list.capacity() / 8 {
        list.shrink_to(list.len() * 2);
    }
}
