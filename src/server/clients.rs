//! The clients of one database.
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use slab::Slab;

use super::client::Client;

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
    channel: Box<str>,
    client: Client,
}

impl Named {
    fn is(&self, user: u32, channel: &str) -> bool {
        self.user == user && *self.channel == *channel
    }
}

impl Clients {
    /// The key of the client of `user` that asks for its own `channel`. It
    /// stays the same for as long as the client has a poll.
    ///
    /// The session is no part of it: a client whose session was renewed is
    /// the same.
    pub(super) fn key(&mut self, user: u32, channel: &str) -> u32 {
        let (clients, hasher) = (&mut self.all, &self.hasher);
        let found = self.names.entry(
            hasher.hash_one((user, channel)),
            |key| clients[*key as usize].is(user, channel),
            |key| hash(hasher, &clients[*key as usize]),
        );
        *found
            .or_insert_with(|| {
                let key = clients.insert(Named {
                    user,
                    channel: channel.into(),
                    client: Client::default(),
                });
                u32::try_from(key).expect("fewer than 2^32 clients fit the memory")
            })
            .get()
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
    hasher.hash_one((named.user, &*named.channel))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::history::{Bounds, History};
    use crate::poll::Poll;

    #[test]
    fn client_is_known_until_it_has_been_idle_for_long() {
        let mut clients = Clients::default();
        let history = History::new(Bounds {
            seconds: 5.0,
            bytes: 0,
        });
        let poll = Arc::new(Poll::new([]));
        let a = clients.key(1, "client:a");
        let b = clients.key(1, "client:b");
        assert_ne!(a, b);
        assert_ne!(clients.key(2, "client:a"), a);
        assert_eq!(clients.key(1, "client:a"), a);
        let mut woken = super::super::client::Woken::new();
        let mut arrive = |clients: &mut Clients, key, now| {
            let poll = poll.clone();
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
        assert_eq!(clients.key(1, "client:a"), a);
        clients
            .get(a)
            .leave(waiting, true, &mut super::super::client::Woken::new());
        clients.forget(2.0);
        assert_eq!(clients.len(), 0);
    }
}
