//! The waiters that were woken and whose event loop or runtime has not noticed
//! yet.
use std::fmt;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use crate::sync::{AtomicBool, Mutex, lock};

/// The woken waiters of one event loop that the loop has not taken yet.
pub struct TokenQueue {
    tokens: Mutex<Vec<u64>>,
    /// Whether the loop was signalled and has not taken the tokens yet.
    signalled: AtomicBool,
    signal: Box<dyn Fn() + Send + Sync>,
}

impl TokenQueue {
    /// A queue that calls `signal`, from any thread, when there are tokens to
    /// take.
    pub fn new(signal: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            tokens: Mutex::new(Vec::new()),
            signalled: AtomicBool::new(false),
            signal: Box::new(signal),
        }
    }

    pub(super) fn push(&self, token: u64) {
        lock(&self.tokens).push(token);
        if !self.signalled.swap(true, Ordering::SeqCst) {
            (self.signal)();
        }
    }

    /// Takes the tokens of all woken waiters, in the order of their wake-ups.
    pub fn take(&self) -> Vec<u64> {
        // This comes first, so that a token that is pushed from here on signals
        // again. At worst the loop then finds nothing to take.
        self.signalled.store(false, Ordering::SeqCst);
        std::mem::take(&mut lock(&self.tokens))
    }
}

impl fmt::Debug for TokenQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenQueue")
            .field("tokens", &self.tokens)
            .field("signalled", &self.signalled)
            .finish_non_exhaustive()
    }
}

/// The tasks of one runtime that are to be woken.
///
/// Waking a task from another thread signals the runtime, and that costs more
/// than all the rest. Therefore the wakers are put here, and only one task of
/// the runtime is woken from outside. This task wakes the others.
#[derive(Debug, Default)]
pub struct TaskQueue {
    state: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    /// The tasks that are to be woken.
    woken: Vec<Waker>,
    /// The task that wakes them; none once it was woken.
    relay: Option<Waker>,
}

impl TaskQueue {
    pub(super) fn push(&self, task: Waker) {
        let mut state = lock(&self.state);
        state.woken.push(task);
        let relay = state.relay.take();
        drop(state);
        relay.into_iter().for_each(Waker::wake);
    }

    /// Wakes the tasks that were put here so far. `context` is woken when more
    /// are put here.
    pub fn poll(&self, context: &mut Context<'_>) {
        let mut state = lock(&self.state);
        let woken = std::mem::take(&mut state.woken);
        state.relay = Some(context.waker().clone());
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::waiter::{Signal, Waiter, Wake};

    #[test]
    fn queue_signals_once_until_it_is_taken() {
        let signals = Arc::new(AtomicUsize::new(0));
        let counter = signals.clone();
        let queue = Arc::new(TokenQueue::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        for token in 0..3 {
            Waiter::new(Signal::Queue(queue.clone(), token)).wake(Wake::Closed);
        }
        assert_eq!(signals.load(Ordering::SeqCst), 1);
        assert_eq!(queue.take(), [0, 1, 2]);
        Waiter::new(Signal::Queue(queue.clone(), 3)).wake(Wake::Closed);
        assert_eq!(signals.load(Ordering::SeqCst), 2);
        assert_eq!(queue.take(), [3]);
        assert!(queue.take().is_empty());
    }
}
