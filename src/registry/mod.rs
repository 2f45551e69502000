//! The buses of this process, and the threads that they share.
mod buses;
#[cfg(all(test, not(loom)))]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;

use self::buses::InUse;
use crate::access::Access;
use crate::bus::{Bus, Crowd, Row};
use crate::error::Result;
use crate::fanout::Fanout;
use crate::gate::Gate;
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
    buses: Mutex<HashMap<Box<str>, InUse>>,
    access: Access,
    fanout: OnceCell<Fanout>,
    watchdog: OnceCell<Watchdog>,
    /// The gate in front of Python's lock, for woken threads.
    gate: Arc<Gate>,
    closed: AtomicBool,
    /// How many calls into the engine are running.
    visits: AtomicUsize,
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
            .map(|used| used.bus.clone())
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
