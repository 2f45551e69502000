//! A client and the server, with all that is under way between them.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::history::{Bounds, History};
use crate::message::{Id, Message};
use crate::poll::Poll;
use crate::server::polls::client::{Client, Next, RESEND_AFTER, Woken};
use crate::server::polls::outcome::Outcome;

const CHANNELS: [&str; 4] = ["client:x", "user:1", "notification:1", "chat:a,1"];

/// The kind of client. They differ in how they begin another poll.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A thread for each poll that is begun, from no message; only the last
    /// one uses its answer.
    Desktop,
    /// Loops that run beside each other, each from its own last message.
    Web,
}

/// An event. The numbers select from the available requests, answers or
/// channels.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Publish(usize),
    /// A request arrives, in any order.
    Arrive(usize),
    /// An answer arrives.
    Answer(usize),
    /// An answer is lost; whether the server notices.
    Lose(usize, bool),
    /// The server ends a poll without a message.
    Empty(usize),
    /// The client opens a channel.
    Register,
    /// The client closes the channel that it opened last.
    Close,
    /// The session is renewed.
    Renew,
    /// Everything under way arrives, and this amount of time passes.
    Pass(Duration),
}

/// A loop or thread of the client that polls.
#[derive(Clone, Debug)]
struct Loop {
    last: Option<Id>,
    alive: bool,
    /// The request that counts. The others were aborted.
    turn: u32,
}

#[derive(Debug)]
struct Request {
    of: usize,
    turn: u32,
    last: Option<Id>,
    channels: usize,
}

#[derive(Debug)]
struct Response {
    /// The poll that is answered, unless it has ended already.
    key: Option<u32>,
    of: usize,
    turn: u32,
    message: Option<Arc<Message>>,
}

/// A poll that the server has.
struct Held {
    key: u32,
    of: usize,
    turn: u32,
}

pub(super) struct World {
    kind: Kind,
    pub(super) client: Client,
    pub(super) history: History,
    now: Duration,
    next_id: u32,
    loops: Vec<Loop>,
    /// How many of the channels the client wants.
    channels: usize,
    /// The last message that any loop of the page has shown.
    page_last: Option<Id>,
    requests: Vec<Request>,
    held: Vec<Held>,
    responses: Vec<Response>,
    shown: Vec<Id>,
    /// The messages that were published to a channel that the server knows to
    /// be wanted.
    wanted: HashMap<Id, usize>,
    known: usize,
}

impl World {
    pub(super) fn new(kind: Kind) -> Self {
        let mut world = Self {
            kind,
            client: Client::default(),
            history: History::new(Bounds {
                cache_timeout: Duration::MAX,
                journal_timeout: None,
                cache_size: usize::MAX,
            }),
            now: Duration::ZERO,
            next_id: 0,
            loops: Vec::new(),
            channels: 2,
            page_last: None,
            requests: Vec::new(),
            held: Vec::new(),
            responses: Vec::new(),
            shown: Vec::new(),
            wanted: HashMap::new(),
            known: 0,
        };
        world.begin(None);
        world
    }

    fn begin(&mut self, last: Option<Id>) {
        self.loops.push(Loop {
            last,
            alive: true,
            turn: 0,
        });
        self.poll(self.loops.len() - 1);
    }

    /// Sends the loop's next request.
    fn poll(&mut self, of: usize) {
        self.loops[of].turn += 1;
        self.requests.push(Request {
            of,
            turn: self.loops[of].turn,
            last: self.loops[of].last.clone(),
            channels: self.channels,
        });
    }

    fn is_abandoned(&self, of: usize) -> bool {
        self.kind == Kind::Desktop && of + 1 != self.loops.len()
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish(channel) => self.publish(channel),
            Step::Arrive(which) => {
                if !self.requests.is_empty() {
                    let request = self.requests.remove(which % self.requests.len());
                    self.arrive(&request);
                }
            }
            Step::Answer(which) => {
                if !self.responses.is_empty() {
                    let response = self.responses.remove(which % self.responses.len());
                    self.answer(response);
                }
            }
            Step::Lose(which, noticed) => self.lose(which, noticed),
            Step::Empty(which) => {
                if !self.held.is_empty() {
                    let held = self.held.remove(which % self.held.len());
                    // It must not be given a message any more.
                    self.client.leave(held.key, false, &mut Woken::new());
                    self.responses.push(Response {
                        key: None,
                        of: held.of,
                        turn: held.turn,
                        message: None,
                    });
                }
            }
            Step::Register => self.register(),
            Step::Close => self.close(),
            Step::Renew => {
                if self.kind == Kind::Web {
                    self.begin(self.page_last.clone());
                }
            }
            Step::Pass(time) => {
                self.settle();
                self.now += time;
            }
        }
        self.look();
    }

    fn publish(&mut self, channel: usize) {
        let channel = channel % CHANNELS.len();
        self.next_id += 1;
        let json = format!("{{\"message_id\":{}}}", self.next_id);
        let message = Message::new(CHANNELS[channel], &json).expect("good");
        if channel < self.known {
            self.wanted.insert(message.id().clone(), channel);
        }
        self.history.append(message, self.now);
    }

    fn arrive(&mut self, request: &Request) {
        let channels = &CHANNELS[..request.channels];
        let poll = Poll::new(channels.iter().map(|name| (*name).into()));
        let key = self.client.arrive(
            Arc::new(poll),
            request.last.as_ref(),
            self.history
                .position(request.last.as_ref(), channels, self.now),
            self.now,
            &mut Woken::new(),
        );
        // One that was sent before a channel was closed does not open it.
        self.known = self.known.max(request.channels.min(self.channels));
        self.held.push(Held {
            key,
            of: request.of,
            turn: request.turn,
        });
    }

    fn answer(&mut self, response: Response) {
        let Response {
            key,
            of,
            turn,
            message,
        } = response;
        self.leave(key, true);
        if !self.loops[of].alive || self.loops[of].turn != turn {
            return;
        }
        if self.is_abandoned(of) {
            self.loops[of].alive = false;
            return;
        }
        if let Some(message) = message {
            self.shown.push(message.id().clone());
            self.loops[of].last = Some(message.id().clone());
            self.page_last = Some(message.id().clone());
        }
        self.poll(of);
    }

    fn leave(&mut self, key: Option<u32>, written: bool) {
        if let Some(key) = key {
            self.client.leave(key, written, &mut Woken::new());
        }
    }

    fn lose(&mut self, which: usize, noticed: bool) {
        if self.responses.is_empty() {
            return;
        }
        let index = which % self.responses.len();
        let Response { key, of, turn, .. } = self.responses.remove(index);
        self.leave(key, !noticed);
        if self.loops[of].turn == turn {
            if self.is_abandoned(of) {
                self.loops[of].alive = false;
            } else if self.loops[of].alive {
                self.poll(of);
            }
        }
    }

    fn register(&mut self) {
        if self.channels == CHANNELS.len() {
            return;
        }
        self.channels += 1;
        match self.kind {
            Kind::Desktop => self.begin(None),
            Kind::Web => self.poll_anew(),
        }
    }

    /// Closes a channel, whose messages are not wanted any more.
    fn close(&mut self) {
        if self.channels == 2 {
            return;
        }
        self.channels -= 1;
        let channels = self.channels;
        self.known = self.known.min(channels);
        self.wanted.retain(|_, channel| *channel < channels);
        if self.kind == Kind::Web {
            self.poll_anew();
        }
    }

    /// Aborts the request of the newest loop, wherever it is, and sends
    /// another one.
    fn poll_anew(&mut self) {
        let of = self.loops.len() - 1;
        let turn = self.loops[of].turn;
        self.requests.retain(|r| r.of != of || r.turn != turn);
        let held = self.held.iter().position(|h| h.of == of && h.turn == turn);
        if let Some(held) = held {
            let held = self.held.remove(held);
            self.client.leave(held.key, false, &mut Woken::new());
        }
        self.poll(of);
    }

    /// Lets every poll look, as a poll does that is woken or whose time has
    /// come, until nothing changes.
    fn look(&mut self) {
        let mut index = 0;
        let mut quiet = 0;
        while quiet < self.held.len() {
            index %= self.held.len();
            let (client, history) = (&mut self.client, &mut self.history);
            let key = self.held[index].key;
            let next = next(client, key, history, self.now);
            let Next::Answer(outcome) = next else {
                index += 1;
                quiet += 1;
                continue;
            };
            quiet = 0;
            let held = self.held.remove(index);
            let message = match outcome {
                Outcome::Message(message) => Some(message),
                Outcome::Empty => None,
            };
            self.responses.push(Response {
                key: Some(held.key),
                of: held.of,
                turn: held.turn,
                message,
            });
        }
    }

    /// Lets all arrive that is under way.
    fn settle(&mut self) {
        self.look();
        for _ in 0..1000 {
            if let Some(response) = self.responses.pop() {
                self.answer(response);
            } else if let Some(request) = self.requests.pop() {
                self.arrive(&request);
            } else {
                return;
            }
            self.look();
        }
        panic!("the client and the server never rest");
    }

    pub(super) fn finish(&mut self) {
        let rounds = self.next_id + 4;
        for _ in 0..rounds {
            self.settle();
            self.now += RESEND_AFTER;
            self.look();
        }
        let mut once = HashSet::new();
        for id in &self.shown {
            assert!(once.insert(id.clone()), "{id:?} is shown twice");
        }
        for id in self.wanted.keys() {
            assert!(once.contains(id), "{id:?} is lost");
        }
        let alive = self.loops.iter().filter(|poller| poller.alive).count();
        let most = if self.kind == Kind::Desktop { 2 } else { alive };
        let held = self.held.len();
        assert!(held <= most, "{held} polls wait for ever");
    }
}

/// Sends the client its next message, and tells the next step of a poll.
pub(super) fn next(
    client: &mut Client,
    key: u32,
    history: &mut History,
    now: Duration,
) -> Next {
    let woken = &mut Woken::new();
    if client.may_send(now, woken) {
        let found = history.first_wanted(client.wanted(), None, now);
        if let Some((number, message)) = found {
            client.send(number, message, now, woken);
        }
    }
    client.step(key)
}
