//! The waiters by channel. A waiter is found by any of its channels, and
//! removed from all of them at once.
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use crate::index::Index;
use crate::waiter::Waiter;

/// The name of a channel. A name that is already shared is not copied.
pub trait Name: AsRef<str> + Clone + Into<Arc<str>> {}

impl<S: AsRef<str> + Clone + Into<Arc<str>>> Name for S {}

/// The waiters of one database by their channels.
///
/// A waiter knows its place in the list of each of its channels, so the cost of
/// a removal does not depend on the number of other waiters. Most clients wait
/// on two or three channels, and most channels have one waiter. Both lists hold
/// that without an allocation.
#[derive(Debug, Default)]
pub struct Waitlist {
    waiters: Slab<Registered>,
    channels: Slab<Channel>,
    /// The keys of `channels`, by the hash of their names.
    names: Index<u32>,
    hasher: RandomState,
    /// How many [`Taken`] there are.
    taken: usize,
}

#[derive(Debug)]
struct Registered {
    waiter: Arc<Waiter>,
    links: SmallVec<[Link; 3]>,
}

#[derive(Debug)]
struct Channel {
    name: Arc<str>,
    waiters: SmallVec<[Link; 2]>,
    /// Whether its waiters are being taken. New waiters register in another
    /// channel of the same name.
    is_taken: bool,
}

/// The waiters of a channel that are being taken, a slice at a time.
#[derive(Debug)]
pub struct Taken(u32);

/// The link from a waiter to its entry in the list of a channel, or back.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The key of the list's owner.
    key: u32,
    /// The index in the list.
    index: u32,
}

impl Link {
    fn new(key: usize, index: usize) -> Self {
        let narrow = |number| {
            u32::try_from(number).expect("fewer than 2^32 of them fit the memory")
        };
        Self {
            key: narrow(key),
            index: narrow(index),
        }
    }
}

impl Waitlist {
    /// Registers a waiter on `channels`; returns the key to remove it with.
    pub fn insert<S: Name>(&mut self, channels: &[S], waiter: Arc<Waiter>) -> usize {
        let entry = self.waiters.vacant_entry();
        let key = entry.key();
        let mut links = SmallVec::new();
        for channel in channels {
            let name = channel.as_ref();
            let (slab, hasher) = (&mut self.channels, &self.hasher);
            let hash = hasher.hash_one(name);
            let is_it = |other: &u32| *slab[*other as usize].name == *name;
            let index = if let Some(found) = self.names.find(hash, is_it) {
                *found as usize
            } else {
                let index = slab.insert(Channel {
                    name: channel.clone().into(),
                    waiters: SmallVec::new(),
                    is_taken: false,
                });
                self.names.insert(hash, Link::new(index, 0).key);
                index
            };
            let list = &mut slab[index].waiters;
            // A channel that is named twice counts once.
            if list.last().is_none_or(|last| last.key as usize != key) {
                links.push(Link::new(index, list.len()));
                list.push(Link::new(key, links.len() - 1));
            }
        }
        entry.insert(Registered { waiter, links });
        key
    }

    /// Removes the waiter with `key` from all its channels.
    ///
    /// The waiter may have been taken before, and the key may belong to another
    /// one now. Nothing happens unless the key is `waiter`'s.
    pub fn remove(&mut self, key: usize, waiter: &Arc<Waiter>) {
        let registered = self.waiters.get(key);
        if registered.is_some_and(|found| Arc::ptr_eq(&found.waiter, waiter)) {
            self.take_out(key);
            self.shrink();
        }
    }

    /// Begins to take the waiters of `channel`, in constant time; none if there
    /// is no waiter. Waiters that register from now on are not included.
    pub fn take(&mut self, channel: &str) -> Option<Taken> {
        let channels = &self.channels;
        let key = self.names.remove(self.hasher.hash_one(channel), |other| {
            *channels[*other as usize].name == *channel
        })?;
        self.channels[key as usize].is_taken = true;
        self.taken += 1;
        Some(Taken(key))
    }

    /// Removes at most `most` waiters of a channel from all their channels.
    /// Returns them, and whether they were the last ones.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn take_some(
        &mut self,
        taken: &Taken,
        most: usize,
    ) -> (Vec<Arc<Waiter>>, bool) {
        let key = taken.0 as usize;
        let list = &mut self.channels[key].waiters;
        // The order is that of registration if all are taken.
        let rest = list.len().saturating_sub(most);
        let links: SmallVec<[Link; 2]> = list.drain(rest..).collect();
        let waiters = links
            .iter()
            .map(|link| {
                let Registered { waiter, links } =
                    self.waiters.remove(link.key as usize);
                for link in links.iter().filter(|link| link.key != taken.0) {
                    self.leave(*link);
                }
                waiter
            })
            .collect();
        if rest == 0 {
            self.channels.remove(key);
            self.taken -= 1;
            self.shrink();
        }
        (waiters, rest == 0)
    }

    /// Takes all waiters, including those that are being taken.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub fn take_all(&mut self) -> All {
        All(std::mem::take(self))
    }

    /// The number of waiters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether there is no waiter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    fn take_out(&mut self, key: usize) {
        let Registered { links, .. } = self.waiters.remove(key);
        for link in links {
            self.leave(link);
        }
    }

    /// Removes the entry that `link` leads to from the list of its channel. The
    /// last entry of the list takes its index.
    fn leave(&mut self, link: Link) {
        let list = &mut self.channels[link.key as usize].waiters;
        list.swap_remove(link.index as usize);
        if let Some(moved) = list.get(link.index as usize) {
            self.waiters[moved.key as usize].links[moved.index as usize].index =
                link.index;
        } else if list.is_empty() && !self.channels[link.key as usize].is_taken {
            self.forget(link.key);
        }
    }

    fn forget(&mut self, channel: u32) {
        let name = self.channels.remove(channel as usize).name;
        self.names
            .remove(self.hasher.hash_one(&*name), |other| *other == channel);
    }

    /// Frees the memory of a crowd after its waits have ended.
    fn shrink(&mut self) {
        if self.waiters.is_empty() && self.taken == 0 && self.waiters.capacity() > 64 {
            *self = Self::default();
        }
    }
}

/// All waiters of a list. Freeing the rest of the list takes a while, so it is
/// dropped without a lock.
#[derive(Debug)]
pub struct All(Waitlist);

impl From<All> for Vec<Arc<Waiter>> {
    fn from(All(list): All) -> Self {
        let waiters = list.waiters.into_iter();
        waiters.map(|(_, found)| found.waiter).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::waiter::Signal;

    fn waiter() -> Arc<Waiter> {
        Arc::new(Waiter::new(Signal::thread()))
    }

    fn take(list: &mut Waitlist, channel: &str) -> Vec<Arc<Waiter>> {
        let Some(taken) = list.take(channel) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let mut is_last = false;
        while !is_last {
            let some;
            (some, is_last) = list.take_some(&taken, 2);
            all.extend(some);
        }
        all
    }

    fn empty(list: &Waitlist) -> bool {
        list.waiters.is_empty() && list.channels.is_empty() && list.names.is_empty()
    }

    #[test]
    fn channel_is_woken_and_the_others_forget_its_waiters() {
        let mut list = Waitlist::default();
        let (one, two) = (waiter(), waiter());
        list.insert(&["a", "b", "a"], one.clone());
        list.insert(&["b"], two.clone());
        assert!(take(&mut list, "c").is_empty());
        let woken = take(&mut list, "a");
        assert_eq!(woken.len(), 1);
        assert!(Arc::ptr_eq(&woken[0], &one));
        assert_eq!(take(&mut list, "b").len(), 1);
        assert!(empty(&list));
    }

    #[test]
    fn waiters_are_taken_in_slices_while_others_come_and_leave() {
        let mut list = Waitlist::default();
        let waiters: Vec<_> = (0..10).map(|_| waiter()).collect();
        let keys: Vec<_> = waiters
            .iter()
            .map(|waiter| list.insert(&["a", "b"], waiter.clone()))
            .collect();
        let first = list.take("a").expect("waiters");
        let (some, is_last) = list.take_some(&first, 4);
        assert_eq!((some.len(), is_last), (4, false));
        // One waiter is removed, one registers, and the others are taken by
        // another channel.
        list.remove(keys[0], &waiters[0]);
        let late = waiter();
        list.insert(&["a"], late.clone());
        let second = list.take("b").expect("waiters");
        let (some, is_last) = list.take_some(&first, 4);
        assert_eq!((some.len(), is_last), (4, false));
        let (some, is_last) = list.take_some(&first, 4);
        assert_eq!((some.len(), is_last), (1, true));
        let (some, is_last) = list.take_some(&second, 4);
        assert_eq!((some.len(), is_last), (0, true));
        let rest = take(&mut list, "a");
        assert!(rest.len() == 1 && Arc::ptr_eq(&rest[0], &late));
        assert!(empty(&list));
    }

    #[test]
    fn key_of_another_removes_nothing() {
        let mut list = Waitlist::default();
        let (gone, here) = (waiter(), waiter());
        let key = list.insert(&["a"], gone.clone());
        take(&mut list, "a");
        assert_eq!(list.insert(&["a"], here.clone()), key);
        list.remove(key, &gone);
        assert_eq!(list.len(), 1);
        list.remove(key, &here);
        assert!(empty(&list));
    }

    #[test]
    fn a_crowd_gives_its_memory_back() {
        let mut list = Waitlist::default();
        for number in 0..1000 {
            list.insert(&[format!("c{number}"), "all".into()], waiter());
        }
        assert_eq!(take(&mut list, "all").len(), 1000);
        assert!(empty(&list));
        assert!(list.waiters.capacity() < 64 && list.channels.capacity() < 64);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>),
        Remove(prop::sample::Index),
        Take(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec(0_u8..5, 0..5).prop_map(Step::Insert),
            any::<prop::sample::Index>().prop_map(Step::Remove),
            (0_u8..5).prop_map(Step::Take),
        ]
    }

    proptest! {
        /// Each waiter is registered exactly until it is removed or one of its
        /// channels is taken.
        #[test]
        fn list_agrees_with_a_plain_one(steps in prop::collection::vec(step(), 1..80)) {
            let mut list = Waitlist::default();
            let mut plain: Vec<(usize, Arc<Waiter>, Vec<String>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(channels) => {
                        let names: Vec<_> = channels.iter().map(u8::to_string).collect();
                        let waiter = waiter();
                        let key = list.insert(&names, waiter.clone());
                        plain.push((key, waiter, names));
                    }
                    Step::Remove(index) if !plain.is_empty() => {
                        let (key, waiter, _) = plain.swap_remove(index.index(plain.len()));
                        list.remove(key, &waiter);
                        list.remove(key, &waiter);
                    }
                    Step::Remove(_) => {}
                    Step::Take(channel) => {
                        let name = channel.to_string();
                        let woken = take(&mut list, &name);
                        let (expected, rest): (Vec<_>, Vec<_>) = plain
                            .into_iter()
                            .partition(|(_, _, names)| names.contains(&name));
                        plain = rest;
                        prop_assert_eq!(woken.len(), expected.len());
                        for (_, waiter, _) in &expected {
                            prop_assert!(woken.iter().any(|other| Arc::ptr_eq(waiter, other)));
                        }
                    }
                }
                prop_assert_eq!(list.len(), plain.len());
            }
            for (key, waiter, _) in plain {
                list.remove(key, &waiter);
            }
            prop_assert!(empty(&list));
        }
    }
}
