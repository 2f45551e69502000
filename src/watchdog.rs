//! A time limit for calls to PostgreSQL that nothing else can interrupt.
//!
//! When the peer of a connection has vanished or frozen, a query blocks until
//! the kernel gives up, because the drivers have no time limit for that.
//! Shutting the socket down from another thread ends the call at once, with an
//! error. That thread must not need Python, because the blocked call may hold
//! Python's lock or event loop.
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};

use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, lock};

/// A thread that shuts sockets down at their deadlines.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    watched: Mutex<Watched>,
    /// Notified when `watched` has changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    deadlines: Vec<Deadline>,
    /// The key of the next deadline.
    next: u64,
    stopped: bool,
}

#[derive(Debug)]
struct Deadline {
    key: u64,
    at: Instant,
    socket: RawFd,
    expired: bool,
}

/// A deadline that was set, until it is [lifted](Guard::lift) or dropped.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Shared>,
    key: u64,
}

impl Watchdog {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system refuses to start a thread.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared {
            watched: Mutex::default(),
            changed: Condvar::new(),
        });
        let watching = shared.clone();
        thread::Builder::new()
            .name("bus-watchdog".into())
            .spawn(move || watching.run())
            .map_err(Error::Thread)?;
        Ok(Self { shared })
    }

    /// Shuts the socket with this descriptor down in both directions after
    /// `limit`, unless the guard is dropped before.
    ///
    /// The descriptor must be a duplicate that the caller keeps open for as
    /// long as the guard lives. The connection's own number may be closed and
    /// reused for another socket.
    #[must_use]
    pub fn watch(&self, socket: RawFd, limit: Duration) -> Guard {
        let mut watched = lock(&self.shared.watched);
        let key = watched.next;
        watched.next += 1;
        watched.deadlines.push(Deadline {
            key,
            at: Instant::now() + limit,
            socket,
            expired: false,
        });
        self.shared.changed.notify_one();
        Guard {
            shared: self.shared.clone(),
            key,
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.shared.watched).stopped = true;
        self.shared.changed.notify_one();
    }
}

impl Guard {
    /// Lifts the deadline; returns whether it had passed.
    #[must_use]
    pub fn lift(self) -> bool {
        self.remove()
    }

    fn remove(&self) -> bool {
        let mut watched = lock(&self.shared.watched);
        let place = watched
            .deadlines
            .iter()
            .position(|deadline| deadline.key == self.key);
        place.is_some_and(|place| watched.deadlines.swap_remove(place).expired)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Shared {
    fn run(&self) {
        let mut watched = lock(&self.watched);
        while !watched.stopped {
            let now = Instant::now();
            for deadline in &mut watched.deadlines {
                if !deadline.expired && deadline.at <= now {
                    deadline.expired = true;
                    // The descriptor can't be closed yet, because the lock is
                    // held. An error means that the peer has closed the
                    // connection first.
                    let _ = shutdown(deadline.socket, Shutdown::Both);
                }
            }
            let next = watched
                .deadlines
                .iter()
                .filter(|deadline| !deadline.expired)
                .map(|deadline| deadline.at - now)
                .min();
            watched = match next {
                Some(left) => {
                    self.changed
                        .wait_timeout(watched, left)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0
                }
                None => self
                    .changed
                    .wait(watched)
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn blocked_read_ends_at_the_deadline() {
        let watchdog = Watchdog::start().expect("a thread");
        let (mut here, _there) = UnixStream::pair().expect("sockets");
        let duplicate = here.try_clone().expect("a duplicate");
        let guard = watchdog.watch(duplicate.as_raw_fd(), Duration::from_millis(1));
        assert_eq!(here.read(&mut [0]).expect("the end"), 0);
        assert!(guard.lift());
    }

    #[test]
    fn lifted_deadline_does_nothing() {
        let watchdog = Watchdog::start().expect("a thread");
        let (mut here, mut there) = UnixStream::pair().expect("sockets");
        let guard = watchdog.watch(here.as_raw_fd(), Duration::from_secs(3600));
        assert!(!guard.lift());
        drop(watchdog.watch(here.as_raw_fd(), Duration::from_millis(20)));
        let other = there.try_clone().expect("a duplicate");
        let later = watchdog.watch(other.as_raw_fd(), Duration::from_millis(40));
        assert_eq!(there.read(&mut [0]).expect("the end"), 0);
        drop(later);
        // The socket whose guard was lifted is still open.
        here.set_nonblocking(true).expect("an open socket");
        assert!(here.read(&mut [0]).is_ok_and(|read| read == 0));
    }
}
