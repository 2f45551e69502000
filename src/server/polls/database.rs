//! The databases as the server sees them: each bus with the clients that poll
//! it.
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::Poll as Progress;
use std::time::Duration;

use super::client::Woken;
use super::clients::Clients;
use crate::bus::Bus;
use crate::history::Bounds;
use crate::registry::Process;
use crate::server::trytond::Trytond;
use crate::sync::{Mutex, lock};
use crate::waiter::TaskQueue;

/// The databases that are polled.
pub(crate) struct Databases {
    process: Arc<Process>,
    bounds: Bounds,
    /// How many clients of a user are known in each database.
    session_polls: usize,
    /// Told of each bus that is made here.
    trytond: Arc<dyn Trytond>,
    /// The polls that were woken by a bus.
    woken: Arc<TaskQueue>,
    known: Mutex<HashMap<Box<str>, Arc<Database>>>,
}

/// A database, its bus and its clients.
#[derive(Debug)]
pub(crate) struct Database {
    pub(super) bus: Bus,
    pub(super) woken: Arc<TaskQueue>,
    /// Locked before the bus where both are.
    pub(super) clients: Mutex<Clients>,
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
        session_polls: usize,
        trytond: Arc<dyn Trytond>,
    ) -> Self {
        Self {
            process,
            bounds,
            session_polls,
            trytond,
            woken: Arc::default(),
            known: Mutex::new(HashMap::new()),
        }
    }

    /// The clock of the histories.
    pub(crate) fn now(&self) -> Duration {
        self.process.now()
    }

    /// The database of this name. The caller knows that it exists.
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
            // The numbers of the history of another bus mean nothing here.
            _ => {
                let clients = Mutex::new(Clients::new(self.session_polls));
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
        let then = self.now().saturating_sub(self.bounds.cache_timeout);
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

/// Wakes the polls that have something to do, now that no lock is held.
pub(super) fn wake_all(woken: Woken) {
    for waker in woken {
        waker.wake();
    }
}
