//! The clients of one database.
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;

use super::client::Client;
use crate::poll::Poll;

/// The clients of one database, by user and channel.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: Slab<Named>,
    /// The keys of `all`, by the hash of their names.
    names: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Named {
    user: u32,
    /// What it asks for, in which its own channel is.
    poll: Arc<Poll>,
    client: Client,
}

impl Named {
    fn is(&self, user: u32, channel: Option<&str>) -> bool {
        self.user == user && self.poll.client() == channel
    }
}

impl Clients {
    /// The key of the client of `user` that this poll is of. It stays the
    /// same for as long as the client has a poll. Where the client asks for
    /// what it did before, `poll` becomes the same as then.
    ///
    /// The session is no part of it: a client whose session was renewed is
    /// the same.
    pub(super) fn key(&mut self, user: u32, poll: &mut Arc<Poll>) -> u32 {
        let (clients, hasher) = (&mut self.all, &self.hasher);
        let channel = poll.client();
        let found = self.names.entry(
            hasher.hash_one((user, channel)),
            |key| clients[*key as usize].is(user, channel),
            |key| hash(hasher, &clients[*key as usize]),
        );
        match found {
            Entry::Occupied(found) => {
                let named = &mut clients[*found.get() as usize];
                if named.poll.channels() == poll.channels() {
                    *poll = named.poll.clone();
                } else {
                    named.poll = poll.clone();
                }
                *found.get()
            }
            Entry::Vacant(free) => {
                let key = clients.insert(Named {
                    user,
                    poll: poll.clone(),
                    client: Client::default(),
                });
                let key = u32::try_from(key);
                let key = key.expect("fewer than 2^32 clients fit the memory");
                free.insert(key);
                key
            }
        }
    }

    /// The client with this key.
    pub(super) fn get(&mut self, key: u32) -> &mut Client {
        &mut self.all[key as usize].client
    }

    /// Forgets those who have had no poll since `then`.
    pub(super) fn forget(&mut self, then: f64) {
        let (names, hasher) = (&mut self.names, &self.hasher);
        self.all.retain(|key, named| {
            let stays = named.client.idle_since().is_none_or(|since| since >= then);
            if !stays {
                let found = names
                    .find_entry(hash(hasher, named), |other| *other as usize == key);
                if let Ok(found) = found {
                    found.remove();
                }
            }
            stays
        });
        if self.all.is_empty() {
            // The memory of a crowd is given back once it has gone.
            *self = Self::default();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

fn hash(hasher: &RandomState, named: &Named) -> u64 {
    hasher.hash_one((named.user, named.poll.client()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Bounds, History};

    #[test]
    fn client_is_known_until_it_has_been_idle_for_long() {
        let mut clients = Clients::default();
        let history = History::new(Bounds {
            seconds: 5.0,
            journal: None,
            bytes: 0,
        });
        let poll = |channel: &str| Arc::new(Poll::new([channel.into()]));
        let key = |clients: &mut Clients, user, channel| {
            clients.key(user, &mut poll(channel))
        };
        let a = key(&mut clients, 1, "client:a");
        let b = key(&mut clients, 1, "client:b");
        assert_ne!(a, b);
        assert_ne!(key(&mut clients, 2, "client:a"), a);
        assert_eq!(key(&mut clients, 1, "client:a"), a);
        let mut woken = super::super::client::Woken::new();
        let mut arrive = |clients: &mut Clients, key, now| {
            let poll = poll("client:a");
            clients
                .get(key)
                .arrive(poll, None, &history, now, &mut woken)
        };
        let waiting = arrive(&mut clients, a, 1.0);
        let left = arrive(&mut clients, b, 1.0);
        clients
            .get(b)
            .leave(left, true, &mut super::super::client::Woken::new());
        clients.forget(1.0);
        assert_eq!(clients.len(), 2);
        clients.forget(2.0);
        assert_eq!(clients.len(), 1);
        assert_eq!(key(&mut clients, 1, "client:a"), a);
        clients
            .get(a)
            .leave(waiting, true, &mut super::super::client::Woken::new());
        clients.forget(2.0);
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn what_a_client_asks_for_is_kept_once() {
        let mut clients = Clients::default();
        let poll = |channels: &[&str]| {
            Arc::new(Poll::new(channels.iter().map(|channel| (*channel).into())))
        };
        let mut first = poll(&["a", "client:x"]);
        let key = clients.key(1, &mut first);
        let mut other = poll(&["b", "client:x"]);
        for (poll, same) in [(poll(&["a", "client:x"]), true), (other.clone(), false)] {
            let mut poll = poll;
            assert_eq!(clients.key(1, &mut poll), key);
            assert_eq!(Arc::ptr_eq(&poll, &first), same);
        }
        let asked = other.clone();
        clients.key(1, &mut other);
        assert!(Arc::ptr_eq(&other, &asked));
    }
}
