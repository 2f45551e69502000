//! The bus of one database as the server sees it: with the clients that
//! poll it, and a poll that is registered among them.
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll as Progress};

use super::client::{Next, Woken};
use super::clients::Clients;
use super::outcome::Outcome;
use crate::bus::{Bus, Settling, Subscription, Ticket};
use crate::history::Bounds;
use crate::message::{Id, Message};
use crate::poll::Poll;
use crate::registry::Process;
use crate::server::trytond::Trytond;
use crate::sync::{Mutex, lock};
use crate::waiter::{Signal, Wake, WokenTasks};

/// The databases that are polled.
pub(crate) struct Databases {
    process: Arc<Process>,
    bounds: Bounds,
    /// How many clients of a user are known in each database.
    clients_of_user: usize,
    /// Told of each bus that is made here.
    trytond: Arc<dyn Trytond>,
    /// The polls that were woken by a bus.
    woken: Arc<WokenTasks>,
    known: Mutex<HashMap<Box<str>, Arc<Database>>>,
}

/// A database, its bus and its clients.
#[derive(Debug)]
pub(crate) struct Database {
    bus: Bus,
    woken: Arc<WokenTasks>,
    /// Locked before the bus where both are.
    clients: Mutex<Clients>,
}

/// A poll that is registered at its database, until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    database: Arc<Database>,
    poll: Arc<Poll>,
    kind: Kind,
    /// Its place at the bus, while it waits for a message there.
    ticket: Option<Ticket>,
    /// When it has to look again, even if nothing wakes it.
    until: Option<f64>,
    written: bool,
}

#[derive(Debug)]
enum Kind {
    /// A poll of a client that can't be answered before the journal was read.
    Unsettled(Box<Unsettled>),
    /// The poll of a client: the keys of both.
    Client(u32, u32),
    /// A poll of no client, or of several.
    Anonymous(Box<Unsettled>),
}

#[derive(Debug)]
struct Unsettled {
    user: u32,
    last: Option<Id>,
    settling: Settling,
}

impl fmt::Debug for Databases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Databases")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl Databases {
    /// The databases of a process, whose histories get these bounds.
    pub(crate) fn new(
        process: Arc<Process>,
        bounds: Bounds,
        clients_of_user: usize,
        trytond: Arc<dyn Trytond>,
    ) -> Self {
        Self {
            process,
            bounds,
            clients_of_user,
            trytond,
            woken: Arc::default(),
            known: Mutex::new(HashMap::new()),
        }
    }

    /// The clock of the histories.
    pub(crate) fn now(&self) -> f64 {
        self.process.now()
    }

    /// The database of this name. That it exists was made sure of.
    pub(crate) fn get(&self, name: &str) -> Arc<Database> {
        let bus = self.process.bus(name).unwrap_or_else(|| {
            self.trytond.opened(name);
            let bus = self.process.open(name, self.bounds);
            bus.expect_looks();
            bus
        });
        let mut databases = lock(&self.known);
        match databases.get(name) {
            Some(known) if known.bus.is(&bus) => known.clone(),
            // The places in the history of another bus mean nothing.
            _ => {
                let clients = Mutex::new(Clients::new(self.clients_of_user));
                let database = Arc::new(Database {
                    bus,
                    clients,
                    woken: self.woken.clone(),
                });
                databases.insert(name.into(), database.clone());
                database
            }
        }
    }

    /// Wakes the polls for which a bus has something, without an end. The
    /// server has one task for that.
    pub(crate) async fn relay(&self) {
        std::future::poll_fn(|context| {
            self.woken.poll(context);
            Progress::<()>::Pending
        })
        .await;
    }

    /// Forgets clients that no longer poll, and databases without a bus.
    pub(crate) fn tidy(&self) {
        let then = self.now() - self.bounds.seconds;
        let databases: Vec<_> = lock(&self.known).values().cloned().collect();
        for database in databases {
            let mut from = Some(0);
            while let Some(index) = from {
                from = lock(&database.clients).forget(then, index);
            }
        }
        let buses: HashMap<_, _> = self.list().into_iter().collect();
        lock(&self.known).retain(|name, database| {
            let bus = buses.get(name);
            bus.is_some_and(|bus| bus.is(&database.bus))
                || lock(&database.clients).len() > 0
        });
    }

    /// The databases that have a bus by name, polled or not.
    pub(crate) fn list(&self) -> Vec<(Box<str>, Bus)> {
        let bus = |name: Box<str>| Some((name.clone(), self.process.bus(&name)?));
        self.process
            .databases()
            .into_iter()
            .filter_map(bus)
            .collect()
    }
}

impl Database {
    /// Registers a poll of `user`, after its `last` message.
    pub(crate) fn register(
        self: Arc<Self>,
        user: u32,
        poll: Poll,
        last: Option<Id>,
        now: f64,
    ) -> Registration {
        let mut poll = Arc::new(poll);
        let is_client = poll.client().is_some();
        let kind = if is_client && self.bus.is_settled(last.as_ref()) {
            self.arrive(user, &mut poll, last.as_ref(), now)
        } else {
            let unsettled = Box::new(Unsettled {
                user,
                last,
                settling: Settling::default(),
            });
            if is_client {
                Kind::Unsettled(unsettled)
            } else {
                Kind::Anonymous(unsettled)
            }
        };
        Registration {
            database: self,
            poll,
            kind,
            ticket: None,
            until: None,
            written: false,
        }
    }

    /// Registers the poll of a client whose position is known.
    fn arrive(
        &self,
        user: u32,
        poll: &mut Arc<Poll>,
        last: Option<&Id>,
        now: f64,
    ) -> Kind {
        let mut woken = Woken::new();
        let mut clients = lock(&self.clients);
        let key = clients.key(user, poll);
        let client = clients.get(key);
        let entry = self.bus.look(|history| {
            client.arrive(poll.clone(), last, history, now, &mut woken)
        });
        drop(clients);
        wake(woken);
        Kind::Client(key, entry)
    }

    /// Determines the next step of a client's poll, and registers it at the bus
    /// if the step is to wait.
    fn look(
        &self,
        (key, entry): (u32, u32),
        place: &mut Option<Ticket>,
        poll: &Poll,
        woken_by: Option<&Arc<Message>>,
        context: &Context<'_>,
        now: f64,
    ) -> Next {
        let mut woken = Woken::new();
        let mut clients = lock(&self.clients);
        let client = clients.get(key);
        let has_place = place.is_some();
        // Looking and waiting are one step, so that no message comes in
        // between.
        let (next, ticket) = self.bus.look_or_wait(
            |history| client.next(entry, woken_by, history, now, &mut woken),
            |next| matches!(next, Next::Wait(_)) && !has_place,
            poll.channels(),
            || Signal::task(&self.woken),
        );
        if ticket.is_some() {
            *place = ticket;
        }
        if !matches!(next, Next::Answer(_)) {
            client.set_waker(entry, context.waker());
        }
        drop(clients);
        wake(woken);
        next
    }
}

impl Registration {
    /// The answer to the poll, once it is known at `now`.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        now: f64,
    ) -> Progress<Outcome> {
        loop {
            let woken_by = match &self.ticket {
                None => None,
                Some(ticket) => match ticket.waiter().poll(context) {
                    Progress::Pending => None,
                    Progress::Ready(Wake::Closed) => {
                        return Progress::Ready(Outcome::Empty);
                    }
                    Progress::Ready(Wake::Message(message)) => {
                        self.ticket = None;
                        Some(message)
                    }
                    Progress::Ready(wake) => {
                        self.ticket = None;
                        if let Kind::Unsettled(poll) | Kind::Anonymous(poll) =
                            &mut self.kind
                        {
                            poll.settling.woken(&wake);
                        }
                        None
                    }
                },
            };
            let had_ticket = self.ticket.is_some();
            match &mut self.kind {
                Kind::Unsettled(unsettled) if !had_ticket => {
                    // The row that was read for this poll alone is its client's
                    // next message. The read saw no later one.
                    if let Some(message) = woken_by {
                        return Progress::Ready(Outcome::Message(message));
                    }
                    let Unsettled {
                        user,
                        last,
                        settling,
                    } = &mut **unsettled;
                    let database = &self.database;
                    self.ticket = database.bus.settle(
                        self.poll.channels(),
                        last.as_ref(),
                        settling,
                        || Signal::task(&database.woken),
                    );
                    if self.ticket.is_none() {
                        let (user, last) = (*user, last.take());
                        self.kind =
                            database.arrive(user, &mut self.poll, last.as_ref(), now);
                        continue;
                    }
                }
                Kind::Unsettled(_) => {}
                Kind::Anonymous(poll) => {
                    if let Some(message) = woken_by {
                        return Progress::Ready(Outcome::Message(message));
                    }
                    if !had_ticket {
                        let database = &self.database;
                        match database.bus.subscribe(
                            self.poll.channels(),
                            poll.last.as_ref(),
                            &mut poll.settling,
                            now,
                            || Signal::task(&database.woken),
                        ) {
                            Subscription::Waiting(ticket) => self.ticket = Some(ticket),
                            Subscription::Message(message) => {
                                return Progress::Ready(Outcome::Message(message));
                            }
                        }
                    }
                }
                Kind::Client(key, entry) => {
                    let (keys, ticket) = ((*key, *entry), &mut self.ticket);
                    let (database, poll) = (&self.database, &self.poll);
                    match database.look(
                        keys,
                        ticket,
                        poll,
                        woken_by.as_ref(),
                        context,
                        now,
                    ) {
                        Next::Answer(outcome) => return Progress::Ready(outcome),
                        Next::Wait(until) => self.until = until,
                        Next::Blocked(until) => self.until = Some(until),
                    }
                }
            }
            if had_ticket || self.ticket.is_none() {
                return Progress::Pending;
            }
            // The new place does not have a waker yet.
        }
    }

    /// The answer to the poll without waiting for a message, or none if no
    /// message is ready.
    pub(crate) fn glance(
        &mut self,
        context: &mut Context<'_>,
        now: f64,
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
    pub(crate) fn until(&self) -> Option<f64> {
        self.until
    }

    /// The channels of the poll.
    pub(crate) fn asked(&self) -> &Poll {
        &self.poll
    }

    /// Leaves, once the answer was written. Where that fails the place is
    /// just dropped, and the message given to another poll.
    pub(crate) fn written(mut self) {
        self.written = true;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Kind::Client(key, entry) = self.kind {
            let mut woken = Woken::new();
            lock(&self.database.clients).get(key).leave(
                entry,
                self.written,
                &mut woken,
            );
            wake(woken);
        }
    }
}

/// Wakes the polls that have something to do, now that no lock is held.
fn wake(woken: Woken) {
    for waker in woken {
        waker.wake();
    }
}
