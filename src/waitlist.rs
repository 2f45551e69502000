//! Who waits on which channels: found by channel, taken out of all of them
//! at once.
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;
use smallvec::SmallVec;

use crate::waiter::Waiter;

/// The name of a channel; one that is shared already is not copied.
pub trait Name: AsRef<str> + Clone + Into<Arc<str>> {}

impl<S: AsRef<str> + Clone + Into<Arc<str>>> Name for S {}

/// The waiters of one database by their channels.
///
/// A waiter knows its place in the list of each of its channels, so that
/// leaving costs the same however many others wait there. Most clients wait
/// on two or three channels, most channels have one waiter: both lists have
/// room for that without an allocation.
#[derive(Debug, Default)]
pub struct Waitlist {
    waiters: Slab<Registered>,
    channels: Slab<Channel>,
    /// The keys of `channels`, by the hash of their names.
    names: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Registered {
    waiter: Arc<Waiter>,
    places: SmallVec<[Place; 3]>,
}

#[derive(Debug)]
struct Channel {
    name: Arc<str>,
    waiters: SmallVec<[Place; 2]>,
}

/// The place of something in the list of something else.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The other's key.
    key: u32,
    /// The index in its list.
    index: u32,
}

impl Place {
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
        let mut places = SmallVec::new();
        for channel in channels {
            let name = channel.as_ref();
            let (slab, hasher) = (&mut self.channels, &self.hasher);
            let found = self.names.entry(
                hasher.hash_one(name),
                |other| *slab[*other as usize].name == *name,
                |other| hasher.hash_one(&*slab[*other as usize].name),
            );
            let index = match found {
                Entry::Occupied(found) => *found.get() as usize,
                Entry::Vacant(free) => {
                    let index = slab.insert(Channel {
                        name: channel.clone().into(),
                        waiters: SmallVec::new(),
                    });
                    free.insert(Place::new(index, 0).key);
                    index
                }
            };
            let list = &mut slab[index].waiters;
            // A channel that is asked for twice counts once.
            if list.last().is_none_or(|last| last.key as usize != key) {
                places.push(Place::new(index, list.len()));
                list.push(Place::new(key, places.len() - 1));
            }
        }
        entry.insert(Registered { waiter, places });
        key
    }

    /// Takes the waiter with `key` out of all its channels.
    ///
    /// It may have been taken out before, and the key be another's by now:
    /// nothing happens unless it is `waiter`'s.
    pub fn remove(&mut self, key: usize, waiter: &Arc<Waiter>) {
        let registered = self.waiters.get(key);
        if registered.is_some_and(|found| Arc::ptr_eq(&found.waiter, waiter)) {
            self.take_out(key);
            self.shrink();
        }
    }

    /// Takes the waiters of `channel` out of all their channels.
    pub fn take(&mut self, channel: &str) -> Vec<Arc<Waiter>> {
        let (channels, hash) = (&self.channels, self.hasher.hash_one(channel));
        let found = self
            .names
            .find(hash, |other| *channels[*other as usize].name == *channel);
        let Some(&found) = found else {
            return Vec::new();
        };
        // In the order of registration.
        let waiters = std::mem::take(&mut self.channels[found as usize].waiters);
        let woken = waiters
            .iter()
            .map(|place| {
                let Registered { waiter, places } =
                    self.waiters.remove(place.key as usize);
                for place in places.iter().filter(|place| place.key != found) {
                    self.leave(*place);
                }
                waiter
            })
            .collect();
        self.forget(found);
        self.shrink();
        woken
    }

    /// Takes all waiters out.
    pub fn take_all(&mut self) -> Vec<Arc<Waiter>> {
        let waiters = std::mem::take(&mut self.waiters);
        *self = Self::default();
        waiters.into_iter().map(|(_, found)| found.waiter).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    fn take_out(&mut self, key: usize) {
        let Registered { places, .. } = self.waiters.remove(key);
        for place in places {
            self.leave(place);
        }
    }

    /// Takes what is at `place` out of the list of its channel, where the
    /// last of the list then takes its place.
    fn leave(&mut self, place: Place) {
        let list = &mut self.channels[place.key as usize].waiters;
        list.swap_remove(place.index as usize);
        if let Some(moved) = list.get(place.index as usize) {
            self.waiters[moved.key as usize].places[moved.index as usize].index =
                place.index;
        } else if list.is_empty() {
            self.forget(place.key);
        }
    }

    fn forget(&mut self, channel: u32) {
        let name = self.channels.remove(channel as usize).name;
        let hash = self.hasher.hash_one(&*name);
        if let Ok(place) = self.names.find_entry(hash, |other| *other == channel) {
            place.remove();
        }
    }

    /// Gives the memory of a crowd back once it has gone.
    fn shrink(&mut self) {
        if self.waiters.is_empty() && self.waiters.capacity() > 64 {
            *self = Self::default();
        }
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

    fn empty(list: &Waitlist) -> bool {
        list.waiters.is_empty() && list.channels.is_empty() && list.names.is_empty()
    }

    #[test]
    fn channel_is_woken_and_the_others_forget_its_waiters() {
        let mut list = Waitlist::default();
        let (one, two) = (waiter(), waiter());
        list.insert(&["a", "b", "a"], one.clone());
        list.insert(&["b"], two.clone());
        assert!(list.take("c").is_empty());
        let woken = list.take("a");
        assert_eq!(woken.len(), 1);
        assert!(Arc::ptr_eq(&woken[0], &one));
        assert_eq!(list.take("b").len(), 1);
        assert!(empty(&list));
    }

    #[test]
    fn key_of_another_removes_nothing() {
        let mut list = Waitlist::default();
        let (gone, here) = (waiter(), waiter());
        let key = list.insert(&["a"], gone.clone());
        list.take("a");
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
        assert_eq!(list.take("all").len(), 1000);
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
        /// Each waiter is there until it is removed or one of its channels
        /// is taken, and not a moment longer.
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
                        let woken = list.take(&name);
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
