//! A poll that is registered at its database.
use std::sync::Arc;
use std::task::{Context, Poll as Progress, ready};
use std::time::Duration;

use super::client::{Next, Woken};
use super::database::{Database, wake_all};
use super::outcome::Outcome;
use crate::bus::{Found, Settling, Subscription, Ticket};
use crate::message::{Id, Message};
use crate::poll::Poll;
use crate::server::request::poll_request::PollRequest;
use crate::sync::lock;
use crate::waiter::{Signal, Wake};

/// A poll that is registered at its database, until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    database: Arc<Database>,
    poll: Arc<Poll>,
    state: State,
    /// Its ticket of the bus, while it waits for a message there.
    ticket: Option<Ticket>,
    /// The time at which the poll has to look again, even if nothing wakes it.
    until: Option<Duration>,
    written: bool,
}

#[derive(Debug)]
enum State {
    /// The poll of a client, which can't be answered before the journal was
    /// read.
    Unsettled(Box<Unsettled>),
    /// The poll of a client: the keys of both.
    Client(u32, u32),
    /// A poll with no `client:` channel, or with several.
    Anonymous(Box<Unsettled>),
}

/// A poll that continues after a last message of its own.
#[derive(Debug)]
struct Unsettled {
    user: u32,
    last: Option<Id>,
    settling: Settling,
}

/// The next step of a poll.
#[derive(Debug)]
enum Step {
    /// The poll is answered.
    Answer(Outcome),
    /// The poll waits to be woken.
    Wait,
    /// The poll looks again, because its ticket at the bus has no waker yet.
    Again,
}

impl Registration {
    /// Registers a poll of `user`.
    pub(crate) fn new(
        database: Arc<Database>,
        user: u32,
        request: PollRequest,
        now: Duration,
    ) -> Self {
        let PollRequest { poll, last } = request;
        let mut poll = Arc::new(poll);
        let is_client = poll.client().is_some();
        let state = if is_client && database.bus.is_settled(last.as_ref()) {
            arrive(&database, user, &mut poll, last.as_ref(), now)
        } else {
            let unsettled = Box::new(Unsettled {
                user,
                last,
                settling: Settling::default(),
            });
            if is_client {
                State::Unsettled(unsettled)
            } else {
                State::Anonymous(unsettled)
            }
        };
        Self {
            database,
            poll,
            state,
            ticket: None,
            until: None,
            written: false,
        }
    }

    /// The answer to the poll, once it is known at `now`.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        now: Duration,
    ) -> Progress<Outcome> {
        loop {
            let woken = self.poll_bus(context);
            let step = match (&self.state, woken) {
                (_, Progress::Ready(Some(Wake::Closed))) => {
                    Step::Answer(Outcome::Empty)
                }
                (State::Client(client, entry), woken) => {
                    let keys = (*client, *entry);
                    self.look(keys, &woken, context, now)
                }
                (_, Progress::Pending) => Step::Wait,
                // A row that was read for this poll alone is its client's next
                // message. The read saw no later one.
                (_, Progress::Ready(Some(Wake::Message(message)))) => {
                    Step::Answer(Outcome::Message(message))
                }
                (_, Progress::Ready(woken)) => self.resume(woken.as_ref(), now),
            };
            match step {
                Step::Answer(outcome) => return Progress::Ready(outcome),
                Step::Wait => return Progress::Pending,
                Step::Again => {}
            }
        }
    }

    /// The answer to the poll without waiting for a message, or none if no
    /// message is ready.
    pub(crate) fn glance(
        &mut self,
        context: &mut Context<'_>,
        now: Duration,
    ) -> Progress<Option<Outcome>> {
        match self.poll(context, now) {
            Progress::Ready(outcome) => Progress::Ready(Some(outcome)),
            Progress::Pending => {
                let ticket = self.ticket.as_ref();
                if ticket.is_some_and(|ticket| !ticket.is_for_message()) {
                    // The journal is read first.
                    return Progress::Pending;
                }
                Progress::Ready(None)
            }
        }
    }

    /// When [`Registration::poll`] is to be called again if nothing woke it.
    pub(crate) fn until(&self) -> Option<Duration> {
        self.until
    }

    /// The channels of the poll.
    pub(crate) fn asked(&self) -> &Poll {
        &self.poll
    }

    /// Ends the registration after the answer was written. If writing fails, it
    /// is dropped instead, and another poll gets the message.
    pub(crate) fn written(mut self) {
        self.written = true;
    }

    /// The signal of the bus, if the poll waits for one. Without a signal to
    /// wait for it is ready, with none.
    fn poll_bus(&mut self, context: &mut Context<'_>) -> Progress<Option<Wake>> {
        let Some(ticket) = &self.ticket else {
            return Progress::Ready(None);
        };
        let wake = ready!(ticket.waiter().poll(context));
        self.ticket = None;
        Progress::Ready(Some(wake))
    }

    /// Continues after the last message, once the history has it.
    fn resume(&mut self, woken: Option<&Wake>, now: Duration) -> Step {
        let database = &self.database;
        let signal = || Signal::task(&database.woken);
        let channels = self.poll.channels();
        match &mut self.state {
            State::Unsettled(unsettled) => {
                let Unsettled {
                    user,
                    last,
                    settling,
                } = &mut **unsettled;
                if let Some(woken) = woken {
                    settling.woken(woken);
                }
                let bus = &database.bus;
                self.ticket = bus.settle(channels, last.as_ref(), settling, signal);
                if self.ticket.is_none() {
                    let (user, last) = (*user, last.take());
                    let poll = &mut self.poll;
                    self.state = arrive(database, user, poll, last.as_ref(), now);
                }
            }
            State::Anonymous(unsettled) => {
                let Unsettled { last, settling, .. } = &mut **unsettled;
                if let Some(woken) = woken {
                    settling.woken(woken);
                }
                let bus = &database.bus;
                match bus.subscribe(channels, last.as_ref(), settling, now, signal) {
                    Subscription::Waiting(ticket) => self.ticket = Some(ticket),
                    Subscription::Message(message) => {
                        return Step::Answer(Outcome::Message(message));
                    }
                }
            }
            State::Client(..) => {}
        }
        Step::Again
    }

    /// Determines the next step of a client's poll, and registers it at the bus
    /// if the step is to wait.
    fn look(
        &mut self,
        (client, entry): (u32, u32),
        woken: &Progress<Option<Wake>>,
        context: &Context<'_>,
        now: Duration,
    ) -> Step {
        let woken_by: Option<&Arc<Message>> = match woken {
            Progress::Ready(Some(Wake::Message(message))) => Some(message),
            _ => None,
        };
        let database = &self.database;
        let mut woken = Woken::new();
        let mut clients = lock(&database.clients);
        let client = clients.get(client);
        let mut found = Found::Nothing;
        if client.may_send(now, &mut woken) {
            let woken_by = woken_by
                .and_then(|message| Some((message, client.wanted_from(message)?)));
            let registers = self.ticket.is_none() && client.waits(entry);
            let wait = registers
                .then(|| (self.poll.channels(), Signal::task(&database.woken)));
            // Looking and registering are one step, so no message arrives in
            // between.
            found = database
                .bus
                .first_or_wait(client.wanted(), woken_by, now, wait);
        }
        let is_new = matches!(found, Found::Waiting(_));
        match found {
            Found::Message(number, message) => {
                client.send(number, message, now, &mut woken);
            }
            Found::Waiting(ticket) => self.ticket = Some(ticket),
            Found::Nothing => {}
        }
        let next = client.step(entry);
        if !matches!(next, Next::Answer(_)) {
            client.set_waker(entry, context.waker());
        }
        drop(clients);
        wake_all(woken);
        self.until = match next {
            Next::Answer(outcome) => return Step::Answer(outcome),
            Next::Wait(until) => until,
            Next::Blocked(until) => Some(until),
        };
        if is_new { Step::Again } else { Step::Wait }
    }
}

/// Registers the poll of a client whose position is known.
fn arrive(
    database: &Database,
    user: u32,
    poll: &mut Arc<Poll>,
    last: Option<&Id>,
    now: Duration,
) -> State {
    let mut woken = Woken::new();
    let mut clients = lock(&database.clients);
    let key = clients.key(user, poll);
    let client = clients.get(key);
    let position = database.bus.position(last, poll.channels(), now);
    let entry = client.arrive(poll.clone(), last, position, now, &mut woken);
    drop(clients);
    wake_all(woken);
    State::Client(key, entry)
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let State::Client(client, entry) = self.state {
            let mut woken = Woken::new();
            let mut clients = lock(&self.database.clients);
            clients.get(client).leave(entry, self.written, &mut woken);
            drop(clients);
            wake_all(woken);
        }
    }
}
