//! The clients of one database.
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use super::client::Client;
use crate::index::Index;
use crate::poll::{Poll, hash};

/// How many clients are examined under one lock. All polls of the database wait
/// meanwhile.
const SLICE: usize = 1000;

/// The clients of one database, by user and channel.
#[derive(Debug)]
pub(crate) struct Clients {
    /// In boxes, which are not moved when the list grows.
    all: Slab<Box<Named>>,
    /// The keys of `all`, by the hash of user and name.
    names: Index<u32>,
    users: Index<User>,
    hasher: RandomState,
    /// How many clients a user may have before those without a poll are
    /// forgotten, the one that polled least recently first.
    most: usize,
}

/// A user, with the keys of the clients.
#[derive(Debug)]
struct User {
    id: u32,
    clients: SmallVec<[u32; 2]>,
}

#[derive(Debug)]
struct Named {
    user: u32,
    /// The number in place of its own channel; none without such a channel.
    name: Option<u64>,
    client: Client,
}

impl Clients {
    /// No clients. A user may have `most` of them with or without a poll.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            all: Slab::new(),
            names: Index::default(),
            users: Index::default(),
            hasher: RandomState::new(),
            most,
        }
    }

    /// The key of the client of `user` that sent this poll. It stays the same
    /// as long as the client has a poll. If the client asks for the same
    /// channels as before, `poll` is replaced by the earlier one.
    ///
    /// The session is not part of the key, because a client stays the same when
    /// its session is renewed.
    pub(crate) fn key(&mut self, user: u32, poll: &mut Arc<Poll>) -> u32 {
        let name = poll.client().map(hash);
        let (clients, hasher) = (&self.all, &self.hasher);
        let found = self.names.find(hasher.hash_one((user, name)), |key| {
            let named = &clients[*key as usize];
            named.user == user && named.name == name
        });
        if let Some(&key) = found {
            if let Some(shared) = clients[key as usize].client.shared(poll) {
                *poll = shared.clone();
            }
            return key;
        }
        self.make_room(user);
        let key = self.all.insert(Box::new(Named {
            user,
            name,
            client: Client::default(),
        }));
        let key = u32::try_from(key).expect("fewer than 2^32 clients fit the memory");
        self.names.insert(self.hasher.hash_one((user, name)), key);
        let hash = self.hasher.hash_one(user);
        if let Some(user) = self.users.find_mut(hash, |other| other.id == user) {
            user.clients.push(key);
        } else {
            let clients = SmallVec::from_slice(&[key]);
            self.users.insert(hash, User { id: user, clients });
        }
        key
    }

    /// The client with this key.
    pub(crate) fn get(&mut self, key: u32) -> &mut Client {
        &mut self.all[key as usize].client
    }

    /// Forgets the clients that have had no poll since `then`, and the channel
    /// names of other clients without a poll. It looks at one slice of them
    /// from an index on, and returns the index from which to continue, until
    /// all were looked at.
    pub(crate) fn forget(&mut self, then: Duration, from: usize) -> Option<usize> {
        let end = self.all.capacity().min(from + SLICE);
        for key in from..end {
            let Some(named) = self.all.get_mut(key) else {
                continue;
            };
            match named.client.idle_since() {
                Some(since) if since < then => self.remove(key),
                Some(_) => named.client.forget_names(),
                None => {}
            }
        }
        if self.all.is_empty() {
            // The memory is given back once all clients are forgotten.
            *self = Self::new(self.most);
        }
        (end < self.all.capacity()).then_some(end)
    }

    /// The number of clients.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Forgets a client without a poll, if the user has too many.
    fn make_room(&mut self, user: u32) {
        let hash = self.hasher.hash_one(user);
        let Some(User { clients, .. }) = self.users.find(hash, |other| {
            other.id == user && other.clients.len() >= self.most
        }) else {
            return;
        };
        let idle = clients.iter().filter_map(|key| {
            Some((self.all[*key as usize].client.idle_since()?, *key))
        });
        let oldest = idle.min();
        if let Some((_, key)) = oldest {
            self.remove(key as usize);
        }
    }

    fn remove(&mut self, key: usize) {
        let Named { user, name, .. } = *self.all.remove(key);
        let hash = self.hasher.hash_one((user, name));
        self.names.remove(hash, |other| *other as usize == key);
        let hash = self.hasher.hash_one(user);
        let is_it = |other: &User| other.id == user;
        if let Some(User { clients, .. }) = self.users.find_mut(hash, is_it) {
            clients.retain(|other| *other as usize != key);
            if clients.is_empty() {
                self.users.remove(hash, is_it);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Woken;
    use super::*;
    use crate::history::Position;

    const BEGIN: Position = Position {
        last: None,
        recent: 0,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn client_is_known_until_it_has_been_idle_for_long() {
        let mut clients = Clients::new(100);
        let poll = |channel: &str| Arc::new(Poll::new([channel.into()]));
        let key = |clients: &mut Clients, user, channel| {
            clients.key(user, &mut poll(channel))
        };
        let a = key(&mut clients, 1, "client:a");
        let b = key(&mut clients, 1, "client:b");
        assert_ne!(a, b);
        assert_ne!(key(&mut clients, 2, "client:a"), a);
        assert_eq!(key(&mut clients, 1, "client:a"), a);
        let mut woken = Woken::new();
        let mut arrive = |clients: &mut Clients, key, now| {
            let poll = poll("client:a");
            clients.get(key).arrive(poll, None, BEGIN, now, &mut woken)
        };
        let waiting = arrive(&mut clients, a, at(1));
        let left = arrive(&mut clients, b, at(1));
        clients.get(b).leave(left, true, &mut Woken::new());
        assert_eq!(clients.forget(at(1), 0), None);
        assert_eq!(clients.len(), 2);
        assert_eq!(clients.forget(at(2), 0), None);
        assert_eq!(clients.len(), 1);
        assert_eq!(key(&mut clients, 1, "client:a"), a);
        clients.get(a).leave(waiting, true, &mut Woken::new());
        assert_eq!(clients.forget(at(2), 0), None);
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn channels_of_a_client_are_kept_once() {
        let mut clients = Clients::new(100);
        let poll = |channels: &[&str]| {
            Arc::new(Poll::new(channels.iter().map(|channel| (*channel).into())))
        };
        let mut first = poll(&["a", "client:x"]);
        let key = clients.key(1, &mut first);
        clients
            .get(key)
            .arrive(first.clone(), None, BEGIN, at(1), &mut Woken::new());
        for (channels, same) in [(["a", "client:x"], true), (["b", "client:x"], false)]
        {
            let mut poll = poll(&channels);
            assert_eq!(clients.key(1, &mut poll), key);
            assert_eq!(Arc::ptr_eq(&poll, &first), same);
        }
    }

    #[test]
    fn user_with_too_many_clients_loses_those_without_a_poll() {
        const MOST: usize = 3;
        let mut clients = Clients::new(MOST);
        let poll_as = |clients: &mut Clients, user: u32, number: usize| {
            let channel = format!("client:{number}");
            let mut poll = Arc::new(Poll::new([channel.as_str().into()]));
            let key = clients.key(user, &mut poll);
            let now = at(number as u64);
            let woken = &mut Woken::new();
            (key, clients.get(key).arrive(poll, None, BEGIN, now, woken))
        };
        let (waiting, _) = poll_as(&mut clients, 1, 0);
        for number in 1..1000 {
            let (key, entry) = poll_as(&mut clients, 1, number);
            clients.get(key).leave(entry, true, &mut Woken::new());
            assert!(clients.len() <= MOST, "{}", clients.len());
        }
        let (other, _) = poll_as(&mut clients, 2, 0);
        assert_ne!(other, waiting);
        assert_eq!(poll_as(&mut clients, 1, 0).0, waiting);
        // Those that wait are limited elsewhere.
        for number in 0..10 {
            poll_as(&mut clients, 1, number);
        }
        assert_eq!(clients.len(), 11);
    }

    #[test]
    fn many_clients_are_forgotten_in_slices() {
        let mut clients = Clients::new(usize::MAX);
        let polls = 3 * SLICE;
        for number in 0..polls {
            let channel = format!("client:{number}");
            let mut poll = Arc::new(Poll::new([channel.as_str().into()]));
            let key = clients.key(1, &mut poll);
            let woken = &mut Woken::new();
            let client = clients.get(key);
            let entry = client.arrive(poll, None, BEGIN, at(1), woken);
            client.leave(entry, true, woken);
        }
        let (mut from, mut slices) = (Some(0), 0);
        while let Some(index) = from {
            let before = clients.len();
            from = clients.forget(at(2), index);
            assert!(before - clients.len() <= SLICE);
            slices += 1;
        }
        assert!(slices >= 3, "{slices}");
        assert_eq!(clients.len(), 0);
    }
}
