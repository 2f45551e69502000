//! The sessions that are known, each with its polls.
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use futures_util::future::{Shared, WeakShared};
use hashbrown::HashTable;
use slab::Slab;
use tokio::time::Instant;

use super::admission::Polls;
use crate::server::trytond::{Answered, Check, Session};

/// Sessions that are cached, that are checked, or that have a poll.
#[derive(Default)]
pub(super) struct Entries {
    all: Slab<Entry>,
    /// The keys of `all`, by the hash of their sessions.
    keys: HashTable<u32>,
    hasher: RandomState,
    /// The number of polls of each user.
    users: HashMap<(Box<str>, u32), Weak<AtomicUsize>>,
}

pub(super) struct Entry {
    pub(super) session: Arc<Session>,
    /// Until when the session counts as valid.
    pub(super) valid: Option<Instant>,
    /// The check under way, unless all its waiters are gone.
    pub(super) check: Option<WeakShared<Answered<Check>>>,
    /// Whether the session is checked again in the background.
    pub(super) is_renewed: bool,
    pub(super) polls: Arc<Polls>,
}

impl Entries {
    fn find(&self, session: &Session) -> Option<usize> {
        let hash = self.hasher.hash_one(session);
        let is_it = |key: &u32| *self.all[*key as usize].session == *session;
        self.keys.find(hash, is_it).map(|key| *key as usize)
    }

    /// The entry of a session, if there is one.
    pub(super) fn get(&mut self, session: &Session) -> Option<&mut Entry> {
        let key = self.find(session)?;
        self.all.get_mut(key)
    }

    /// The entry of a session, made if need be.
    pub(super) fn get_or_add(&mut self, session: &Arc<Session>) -> &mut Entry {
        let key = self.find(session).unwrap_or_else(|| self.add(session));
        &mut self.all[key]
    }

    fn add(&mut self, session: &Arc<Session>) -> usize {
        let name = (session.database.clone(), session.user);
        let user = self.users.entry(name).or_default();
        let polls = user.upgrade().unwrap_or_default();
        *user = Arc::downgrade(&polls);
        let key = self.all.insert(Entry {
            session: session.clone(),
            valid: None,
            check: None,
            is_renewed: false,
            polls: Arc::new(Polls::new(polls)),
        });
        let (all, hasher) = (&self.all, &self.hasher);
        let hash = |key: &u32| hasher.hash_one(&all[*key as usize].session);
        let short =
            u32::try_from(key).expect("fewer than 2^32 sessions fit the memory");
        self.keys.insert_unique(hash(&short), short, hash);
        key
    }

    /// Forgets a session, if there is an entry of it.
    pub(super) fn remove(&mut self, session: &Session) {
        let hash = self.hasher.hash_one(session);
        let is_it = |key: &u32| *self.all[*key as usize].session == *session;
        if let Ok(found) = self.keys.find_entry(hash, is_it) {
            let (key, _) = found.remove();
            self.all.remove(key as usize);
        }
    }

    /// Forgets the entries that have become empty, and gives memory back.
    pub(super) fn tidy(&mut self, now: Instant) {
        let (all, keys, hasher) = (&mut self.all, &mut self.keys, &self.hasher);
        all.retain(|key, entry| {
            entry.valid = entry.valid.filter(|valid| now < *valid);
            let stays = !entry.is_empty();
            if !stays {
                let hash = hasher.hash_one(&entry.session);
                let found = keys.find_entry(hash, |other| *other as usize == key);
                if let Ok(found) = found {
                    found.remove();
                }
            }
            stays
        });
        self.users.retain(|_, polls| polls.strong_count() > 0);
        all.shrink_to_fit();
        if keys.capacity() > 64 && keys.len() < keys.capacity() / 8 {
            keys.shrink_to_fit(|key| hasher.hash_one(&all[*key as usize].session));
            self.users.shrink_to_fit();
        }
    }

    /// The number of places for entries, of which some may be free.
    pub(super) fn places(&self) -> usize {
        self.all.capacity()
    }

    /// The entry at one of the [`Entries::places`].
    pub(super) fn at(&mut self, place: usize) -> Option<&mut Entry> {
        self.all.get_mut(place)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        assert_eq!(self.all.len(), self.keys.len());
        self.all.is_empty() && self.users.is_empty()
    }
}

impl Entry {
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        self.valid.is_some_and(|valid| now < valid)
    }

    pub(super) fn under_way(&self) -> Option<Shared<Answered<Check>>> {
        self.check.as_ref()?.upgrade()
    }

    pub(super) fn has_polls(&self) -> bool {
        // The entry itself holds one.
        Arc::strong_count(&self.polls) > 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.valid.is_none() && self.under_way().is_none() && !self.has_polls()
    }
}
