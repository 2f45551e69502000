//! The buses of this process, and the threads that they share.
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;

use crate::access::Access;
use crate::bus::{Bus, Crowd, Row};
use crate::error::Result;
use crate::fanout::Fanout;
use crate::gate::Gate;
use crate::history::Bounds;
use crate::message::Message;
use crate::sync::{Mutex, lock};
use crate::watchdog::Watchdog;

/// The most threads that wake waiters.
const WORKERS_MAX: usize = 4;
/// How many woken threads request Python's lock at a time. One holds it, and
/// the others keep it from being idle in between.
const GATE_PLACES: usize = 4;
/// The time on the clock of the histories when the process starts. It is longer
/// than any message is retained, so that the age of a message from the journal
/// can be subtracted from any time.
const START: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// How long the exit waits for running calls.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of this process. A forked child has its own, because the parent's
/// threads do not exist there and may have held the locks.
static PROCESS: LazyLock<ArcSwap<Process>> =
    LazyLock::new(|| ArcSwap::from_pointee(Process::new()));

/// The buses of one process, by database, with the threads they share.
/// Nothing is started before it is needed.
#[derive(Debug)]
pub struct Process {
    id: u32,
    started: Instant,
    buses: Mutex<HashMap<Box<str>, Place>>,
    access: Access,
    fanout: OnceCell<Fanout>,
    watchdog: OnceCell<Watchdog>,
    /// The gate in front of Python's lock, for woken threads.
    gate: Arc<Gate>,
    closed: AtomicBool,
    /// How many calls into the engine are running.
    visits: AtomicUsize,
}

/// The bus of a database, and its last use.
#[derive(Debug)]
struct Place {
    bus: Bus,
    /// The time of the last poll; none while the database has no listener.
    asked: Option<Duration>,
}

/// A call into the engine, which runs until this is dropped.
#[derive(Debug)]
pub struct Visit(Arc<Process>);

/// The process that runs this code.
#[must_use]
pub fn current() -> Arc<Process> {
    let process = PROCESS.load_full();
    if process.id == std::process::id() {
        return process;
    }
    renew(process)
}

/// Begins anew in the child of a fork. It must be the first call there, because
/// the child may have the process id of a dead ancestor.
pub fn forked() {
    renew(PROCESS.load_full());
}

/// Replaces the parent's state, which is never locked and never dropped.
fn renew(parent: Arc<Process>) -> Arc<Process> {
    let fresh = Arc::new(Process::new());
    let replaced = PROCESS.compare_and_swap(&parent, fresh);
    std::mem::forget(parent);
    drop(replaced);
    PROCESS.load_full()
}

impl Process {
    pub(crate) fn new() -> Self {
        Self {
            id: std::process::id(),
            started: Instant::now(),
            buses: Mutex::new(HashMap::new()),
            access: Access::default(),
            fanout: OnceCell::new(),
            watchdog: OnceCell::new(),
            gate: Gate::new(GATE_PLACES),
            closed: AtomicBool::new(false),
            visits: AtomicUsize::new(0),
        }
    }

    /// The time on a monotonic clock, which the histories use.
    #[must_use]
    pub fn now(&self) -> Duration {
        START + self.started.elapsed()
    }

    /// The cached answers about the chats that users may follow.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The bus of `database`, if it is in use.
    #[must_use]
    pub fn bus(&self, database: &str) -> Option<Bus> {
        lock(&self.buses)
            .get(database)
            .map(|place| place.bus.clone())
    }

    /// The bus of `database`, with these bounds from now on. It is made if it
    /// does not exist.
    #[must_use]
    pub fn open(&self, database: &str, bounds: Bounds) -> Bus {
        let bus = lock(&self.buses)
            .entry(database.into())
            .or_insert_with(|| Place {
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
        if let Some(place) = lock(&self.buses).get_mut(database) {
            place.asked = Some(self.now());
        }
    }

    /// Notes that `database` has no listener any more.
    pub fn abandon(&self, database: &str) {
        if let Some(place) = lock(&self.buses).get_mut(database) {
            place.asked = None;
        }
    }

    /// The bus of `database` for a poll, if the database has a listener.
    #[must_use]
    pub fn ask(&self, database: &str) -> Option<Bus> {
        let mut buses = lock(&self.buses);
        let place = buses.get_mut(database)?;
        *place.asked.as_mut()? = self.now();
        Some(place.bus.clone())
    }

    /// Whether the bus of `database` has no waiter, and no poll arrived for this
    /// time.
    #[must_use]
    pub fn is_idle(&self, database: &str, time: Duration) -> bool {
        let mut buses = lock(&self.buses);
        let place = buses.get_mut(database);
        place.is_none_or(|place| place.is_idle(time, self.now()))
    }

    /// Removes the bus of `database` if it is idle for this time; returns
    /// whether it was. A poll that has just got this bus and is about to wait
    /// finds it closed.
    pub fn remove(&self, database: &str, time: Duration) -> bool {
        let mut buses = lock(&self.buses);
        let place = buses.get_mut(database);
        if place.is_some_and(|place| !place.is_idle(time, self.now())) {
            return false;
        }
        let removed = buses.remove(database);
        drop(buses);
        if let Some(Place { bus, .. }) = removed {
            bus.close().wake();
        }
        true
    }

    /// Removes the bus of `database` and ends its waits, because the database
    /// does not exist any more.
    pub fn forget(&self, database: &str) {
        let removed = lock(&self.buses).remove(database);
        if let Some(Place { bus, .. }) = removed {
            bus.close().wake();
        }
    }

    /// The databases whose bus is in use, in no order.
    #[must_use]
    pub fn databases(&self) -> Vec<Box<str>> {
        lock(&self.buses).keys().cloned().collect()
    }

    /// Appends messages to a bus and wakes their waiters.
    ///
    /// # Errors
    ///
    /// When the worker threads can't be started. The messages are appended
    /// nevertheless, and this thread wakes the waiters.
    pub fn publish(&self, bus: &Bus, messages: Vec<Message>) -> Result<()> {
        let mut result = Ok(());
        bus.publish_to(messages, self.now(), |crowd| {
            if let Err(error) = self.deliver(vec![crowd]) {
                result = Err(error);
            }
        });
        result
    }

    /// Notes that a look has ended, and wakes the polls that waited for it.
    ///
    /// # Errors
    ///
    /// As [`Process::publish`].
    pub fn end_look(&self, bus: &Bus) -> Result<()> {
        self.deliver(vec![bus.end_look()])
    }

    /// Answers a request for a row of the journal.
    ///
    /// # Errors
    ///
    /// As [`Process::publish`].
    pub fn answer(&self, bus: &Bus, key: u64, row: Row) -> Result<()> {
        match bus.journal() {
            Some(journal) => self.deliver(vec![journal.answer(key, row)]),
            None => Ok(()),
        }
    }

    fn deliver(&self, crowds: Vec<Crowd>) -> Result<()> {
        if crowds.iter().all(|crowd| crowd.waiters.is_empty()) {
            return Ok(());
        }
        let workers =
            available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX));
        match self.fanout.get_or_try_init(|| Fanout::start(workers)) {
            Ok(fanout) => {
                fanout.deliver(crowds);
                Ok(())
            }
            Err(error) => {
                crowds.iter().for_each(Crowd::wake);
                Err(error)
            }
        }
    }

    /// The thread that limits the time of calls.
    ///
    /// # Errors
    ///
    /// When the thread can't be started.
    pub fn watchdog(&self) -> Result<&Watchdog> {
        self.watchdog.get_or_try_init(Watchdog::start)
    }

    /// The gate for woken threads that need Python's lock.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Notes a call into the engine. The exit waits for its end.
    #[must_use]
    pub fn visit(self: Arc<Self>) -> Visit {
        self.visits.fetch_add(1, Ordering::SeqCst);
        Visit(self)
    }

    /// Whether the process exits.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Ends all waits, and makes later waits end at once, because the process
    /// exits.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let buses: Vec<Bus> = lock(&self.buses)
            .values()
            .map(|place| place.bus.clone())
            .collect();
        for bus in buses {
            bus.close().wake();
        }
        if let Some(fanout) = self.fanout.get() {
            fanout.stop();
        }
    }

    /// Waits until no call is running, at most one second.
    pub fn wait_for_visits(&self) {
        let started = Instant::now();
        while self.visits.load(Ordering::SeqCst) > 0
            && started.elapsed() < LEAVE_TIMEOUT
        {
            sleep(Duration::from_millis(1));
        }
    }
}

impl Place {
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

impl Visit {
    /// The process that is visited.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::bus::{Settling, Subscription};
    use crate::waiter::{Signal, Wake};

    const BOUNDS: Bounds = Bounds {
        cache_timeout: Duration::from_secs(5),
        journal_timeout: None,
        cache_size: usize::MAX,
    };

    fn wait(process: &Process, bus: &Bus) -> Subscription {
        bus.subscribe(
            &["a"],
            None,
            &mut Settling::default(),
            process.now(),
            Signal::thread,
        )
    }

    #[test]
    fn published_message_wakes_through_the_pool() {
        let process = Process::new();
        let bus = process.open("db", BOUNDS);
        let Subscription::Waiting(ticket) = wait(&process, &bus) else {
            panic!("nothing was published");
        };
        let message = Message::new("a", r#"{"message_id":1}"#).expect("a good message");
        process.publish(&bus, vec![message]).expect("threads");
        let wake = ticket.waiter().wait(Duration::MAX);
        assert!(matches!(wake, Some(Wake::Message(_))));
    }

    #[test]
    fn forgotten_bus_ends_waits_that_begin_later() {
        let process = Process::new();
        let bus = process.open("db", BOUNDS);
        assert!(process.remove("db", Duration::ZERO));
        let Subscription::Waiting(ticket) = wait(&process, &bus) else {
            panic!("nothing was published");
        };
        let wake = ticket.waiter().wait(Duration::ZERO);
        assert!(matches!(wake, Some(Wake::Closed)));
    }

    #[test]
    fn bus_is_forgotten_unless_a_poll_waits() {
        let process = Process::new();
        let bus = process.open("db", BOUNDS);
        let ticket = wait(&process, &bus);
        assert!(!process.remove("db", Duration::ZERO));
        assert!(process.bus("db").is_some());
        drop(ticket);
        assert!(process.remove("db", Duration::ZERO));
        assert!(process.bus("db").is_none());
    }

    #[test]
    fn bus_is_kept_for_a_time_after_a_poll() {
        let process = Process::new();
        let _bus = process.open("db", BOUNDS);
        process.listen("db");
        assert!(process.ask("db").is_some());
        assert!(!process.is_idle("db", Duration::from_secs(60)));
        assert!(!process.remove("db", Duration::from_secs(60)));
        assert!(process.is_idle("db", Duration::ZERO));
        assert!(process.remove("db", Duration::ZERO));
        assert!(process.ask("db").is_none());
    }

    #[test]
    fn bus_is_only_asked_while_it_is_listened_to() {
        let process = Process::new();
        assert!(process.ask("db").is_none());
        let bus = process.open("db", BOUNDS);
        assert!(process.ask("db").is_none());
        process.listen("db");
        assert!(process.ask("db").is_some());
        let ticket = wait(&process, &bus);
        process.abandon("db");
        assert!(process.ask("db").is_none());
        assert!(process.bus("db").is_some());
        drop(ticket);
        assert!(process.is_idle("db", Duration::from_secs(60)));
    }

    #[test]
    fn closed_process_keeps_no_waiter() {
        let process = Process::new();
        let bus = process.open("db", BOUNDS);
        process.close();
        for bus in [bus, process.open("other", BOUNDS)] {
            let Subscription::Waiting(ticket) = wait(&process, &bus) else {
                panic!("nothing was published");
            };
            let wake = ticket.waiter().wait(Duration::MAX);
            assert!(matches!(wake, Some(Wake::Closed)));
        }
    }
}
