//! The activity of one connection of HTTP/2, and since when.
use std::sync::Arc;

use bytes::Buf;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::server::app::{App, Delivery};
use crate::server::request::reply::Content;
use crate::sync::{Mutex, lock};

/// The streams of a connection: requests, and answers on their way.
pub(crate) struct Streams {
    state: Mutex<State>,
    /// Told when [`Streams::activity`] changes.
    pub(crate) changed: Notify,
}

struct State {
    requests: usize,
    /// Since when there is no request.
    idle: Instant,
    /// When each answer that is being written made its last progress.
    answers: Slab<Instant>,
}

/// The activity of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The connection has no request, since then.
    Idle(Instant),
    /// There are requests without an answer.
    Waiting,
    /// The client has answers to take, and has taken nothing of one of them
    /// since then.
    Writing(Instant),
}

impl Streams {
    /// The streams of a new connection.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                requests: 0,
                idle: Instant::now(),
                answers: Slab::new(),
            }),
            changed: Notify::new(),
        }
    }

    /// The current activity of the connection.
    pub(crate) fn activity(&self) -> Activity {
        let state = lock(&self.state);
        match state.answers.iter().map(|(_, since)| *since).min() {
            Some(since) => Activity::Writing(since),
            None if state.requests > 0 => Activity::Waiting,
            None => Activity::Idle(state.idle),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut lock(&self.state));
        self.changed.notify_one();
        changed
    }
}

/// A request that was begun, until this is dropped.
pub(crate) struct Stream(Arc<Streams>);

impl Stream {
    pub(crate) fn new(streams: Arc<Streams>) -> Self {
        streams.change(|state| state.requests += 1);
        Self(streams)
    }

    /// The body of the answer, and the delivery to note when the client has it.
    pub(crate) fn answer(
        &self,
        content: Content,
        delivery: Delivery,
        app: Arc<App>,
    ) -> Outgoing {
        let key = self.0.change(|state| state.answers.insert(Instant::now()));
        Outgoing {
            streams: self.0.clone(),
            key,
            content,
            delivery: Some((delivery, app)),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.requests -= 1;
            state.idle = Instant::now();
        });
    }
}

/// The body of an answer. hyper and h2 drop it only when they have written all
/// of it, or when the client is gone.
pub(crate) struct Outgoing {
    streams: Arc<Streams>,
    key: usize,
    /// The part that was not written yet.
    content: Content,
    /// None once this is dropped.
    delivery: Option<(Delivery, Arc<App>)>,
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.content.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.content.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.content.advance(count);
        self.streams.change(|state| {
            if let Some(since) = state.answers.get_mut(self.key) {
                *since = Instant::now();
            }
        });
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.streams.change(|state| {
            state.answers.remove(self.key);
            state.idle = Instant::now();
        });
        let delivery = self.delivery.take();
        if let Some((delivery, app)) =
            delivery.filter(|_| !self.content.has_remaining())
        {
            delivery.done(&app);
        }
    }
}
