//! A subscriber that waits for a message, and the ways to wake it.
mod queues;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub use self::queues::{TaskQueue, TokenQueue};
use crate::message::Message;
use crate::sync::{Condvar, Mutex, lock};

/// Why a wait has ended.
#[derive(Clone, Debug)]
pub enum Wake {
    /// A message arrived.
    Message(Arc<Message>),
    /// A look has ended, or the wait was cut short. The subscriber has to ask
    /// the bus again.
    Looked,
    /// The journal was read up to this number, and has no message for the
    /// subscriber.
    Read(u64),
    /// No message can be delivered any more, because the process exits, the bus
    /// was removed, or the client has closed its connection.
    Closed,
}

/// A subscriber that waits.
#[derive(Debug)]
pub struct Waiter {
    /// The reason of its wake-up; none as long as it waits.
    woken: Mutex<Option<Wake>>,
    signal: Signal,
}

/// How a waiter learns that it was woken.
#[derive(Debug)]
pub enum Signal {
    /// The waiter is a thread that blocks in [`Waiter::wait`].
    Thread(Condvar),
    /// The waiter is a task that calls [`Waiter::poll`]: its waker, and the
    /// queue that the waker is put into.
    Task(Mutex<Option<Waker>>, Arc<TaskQueue>),
    /// The waiter's token is put into a queue, from which an event loop takes
    /// it.
    Queue(Arc<TokenQueue>, u64),
}

impl Signal {
    /// The signal for a thread.
    #[must_use]
    pub fn thread() -> Self {
        Self::Thread(Condvar::new())
    }

    /// The signal for a task.
    #[must_use]
    pub fn task(woken: &Arc<TaskQueue>) -> Self {
        Self::Task(Mutex::new(None), woken.clone())
    }
}

impl Waiter {
    /// A waiter that was not woken yet.
    #[must_use]
    pub fn new(signal: Signal) -> Self {
        Self {
            woken: Mutex::new(None),
            signal,
        }
    }

    /// Ends the wait. Only the first call counts.
    pub fn wake(&self, wake: Wake) {
        lock(&self.woken).get_or_insert(wake);
        match &self.signal {
            Signal::Thread(condvar) => condvar.notify_one(),
            Signal::Task(waker, tasks) => {
                let waker = lock(waker).take();
                if let Some(waker) = waker {
                    tasks.push(waker);
                }
            }
            Signal::Queue(queue, token) => queue.push(*token),
        }
    }

    /// The reason of the wake-up, for the task that waits.
    ///
    /// It is only for a waiter with the signal [`Signal::Task`], because the
    /// other signals do not wake a task.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Wake> {
        if let Signal::Task(waker, _) = &self.signal {
            // Set before the check, so that a later wake-up finds the waker.
            let mut waker = lock(waker);
            match &mut *waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
        }
        self.woken().map_or(Poll::Pending, Poll::Ready)
    }

    /// Blocks this thread until the wait is ended, for at most `timeout`; none
    /// when that has passed.
    ///
    /// It is only for a waiter with the signal [`Signal::Thread`]. With another
    /// signal this returns at once.
    pub fn wait(&self, timeout: Duration) -> Option<Wake> {
        let Signal::Thread(condvar) = &self.signal else {
            return self.woken();
        };
        // None stands for a time that the clock can't represent.
        let deadline = Instant::now().checked_add(timeout);
        let mut woken = lock(&self.woken);
        while woken.is_none() {
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                break;
            }
            woken = wait(condvar, woken, left);
        }
        woken.clone()
    }

    /// The reason of the wake-up; none while it waits.
    pub fn woken(&self) -> Option<Wake> {
        lock(&self.woken).clone()
    }
}

#[cfg(not(loom))]
fn wait<'a, T>(
    condvar: &Condvar,
    guard: crate::sync::MutexGuard<'a, T>,
    timeout: Duration,
) -> crate::sync::MutexGuard<'a, T> {
    condvar
        .wait_timeout(guard, timeout)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .0
}

/// In the model no time passes. A missing wake-up is a deadlock, which loom
/// reports.
#[cfg(loom)]
fn wait<'a, T>(
    condvar: &Condvar,
    guard: crate::sync::MutexGuard<'a, T>,
    _timeout: Duration,
) -> crate::sync::MutexGuard<'a, T> {
    condvar
        .wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake as WakeTask;
    use std::thread;

    use super::*;

    #[test]
    fn wait_returns_its_wake() {
        let waiter = Arc::new(Waiter::new(Signal::thread()));
        let other = waiter.clone();
        let thread = thread::spawn(move || other.wait(Duration::MAX));
        waiter.wake(Wake::Closed);
        let wake = thread.join().expect("no panic");
        assert!(matches!(wake, Some(Wake::Closed)));
    }

    #[test]
    fn wait_ends_at_its_timeout() {
        let waiter = Waiter::new(Signal::thread());
        assert!(waiter.wait(Duration::ZERO).is_none());
        assert!(waiter.wait(Duration::from_millis(1)).is_none());
    }

    #[test]
    fn task_is_woken_after_it_has_looked() {
        struct Count(AtomicUsize);

        impl WakeTask for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }

        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let tasks = Arc::new(TaskQueue::default());
        let relayed = Arc::new(Count(AtomicUsize::new(0)));
        let relay = Waker::from(relayed.clone());
        tasks.poll(&mut Context::from_waker(&relay));
        let waiter = Waiter::new(Signal::task(&tasks));
        assert!(waiter.poll(&mut context).is_pending());
        assert!(waiter.poll(&mut context).is_pending());
        waiter.wake(Wake::Closed);
        assert_eq!(relayed.0.load(Ordering::SeqCst), 1);
        tasks.poll(&mut Context::from_waker(&relay));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(waiter.poll(&mut context).is_ready());
    }
}
