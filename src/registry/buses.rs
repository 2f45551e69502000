//! The buses of a process, by database, and when each was used last.
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Process;
use crate::bus::Bus;
use crate::history::Bounds;
use crate::sync::lock;

/// The bus of a database, and its last use.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) bus: Bus,
    /// The time of the last poll; none while the database has no listener.
    asked: Option<Duration>,
}

impl Process {
    /// The bus of `database`, if it is in use.
    #[must_use]
    pub fn bus(&self, database: &str) -> Option<Bus> {
        lock(&self.buses).get(database).map(|used| used.bus.clone())
    }

    /// The bus of `database`, with these bounds from now on. It is made if it
    /// does not exist.
    #[must_use]
    pub fn open(&self, database: &str, bounds: Bounds) -> Bus {
        let bus = lock(&self.buses)
            .entry(database.into())
            .or_insert_with(|| InUse {
                bus: Bus::new(bounds),
                asked: None,
            })
            .bus
            .clone();
        bus.set_bounds(bounds).wake();
        if self.closed.load(Ordering::SeqCst) {
            bus.close().wake();
        }
        bus
    }

    /// Notes that `database` has a listener from now on, and counts as polled
    /// now. Without a bus this does nothing.
    pub fn listen(&self, database: &str) {
        if let Some(used) = lock(&self.buses).get_mut(database) {
            used.asked = Some(self.now());
        }
    }

    /// Notes that `database` has no listener any more.
    pub fn abandon(&self, database: &str) {
        if let Some(used) = lock(&self.buses).get_mut(database) {
            used.asked = None;
        }
    }

    /// The bus of `database` for a poll, if the database has a listener.
    #[must_use]
    pub fn ask(&self, database: &str) -> Option<Bus> {
        let mut buses = lock(&self.buses);
        let used = buses.get_mut(database)?;
        *used.asked.as_mut()? = self.now();
        Some(used.bus.clone())
    }

    /// Whether the bus of `database` has no waiter, and no poll arrived for this
    /// time.
    #[must_use]
    pub fn is_idle(&self, database: &str, time: Duration) -> bool {
        let mut buses = lock(&self.buses);
        let used = buses.get_mut(database);
        used.is_none_or(|used| used.is_idle(time, self.now()))
    }

    /// Removes the bus of `database` if it is idle for this time; returns
    /// whether it was. A poll that has just got this bus and is about to wait
    /// finds it closed.
    pub fn remove(&self, database: &str, time: Duration) -> bool {
        let mut buses = lock(&self.buses);
        let used = buses.get_mut(database);
        if used.is_some_and(|used| !used.is_idle(time, self.now())) {
            return false;
        }
        let removed = buses.remove(database);
        drop(buses);
        if let Some(InUse { bus, .. }) = removed {
            bus.close().wake();
        }
        true
    }

    /// Removes the bus of `database` and ends its waits, because the database
    /// does not exist any more.
    pub fn forget(&self, database: &str) {
        let removed = lock(&self.buses).remove(database);
        if let Some(InUse { bus, .. }) = removed {
            bus.close().wake();
        }
    }

    /// The databases whose bus is in use, in no order.
    #[must_use]
    pub fn databases(&self) -> Vec<Box<str>> {
        lock(&self.buses).keys().cloned().collect()
    }
}

impl InUse {
    /// Whether there is no waiter, and no poll arrived or waited for this time.
    /// A wait that has ended since the last call counts as one that ends now.
    fn is_idle(&mut self, time: Duration, now: Duration) -> bool {
        if self.bus.has_waited() {
            self.asked = self.asked.map(|_| now);
        }
        let is_old = |asked| now.saturating_sub(asked) >= time;
        self.asked.is_none_or(is_old) && !self.bus.is_waiting()
    }
}
