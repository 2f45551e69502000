//! Lets a few threads at a time contend for something that only one of them
//! can have.
//!
//! A thousand threads that are woken at once all ask for Python's lock, and
//! each looks again every 5 ms whether it has it: they spend more time on
//! looking than on what they were woken for. Here they queue up instead. Where
//! Python has no such lock the queue costs nothing that could be measured.
use std::sync::{Arc, PoisonError};

use crate::sync::{Condvar, Mutex, lock};

/// A gate that few pass at a time.
#[derive(Debug)]
pub struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place beyond the gate, given back when this is dropped.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// A gate with so many places.
    #[must_use]
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(places),
            freed: Condvar::new(),
        })
    }

    /// Waits for a place.
    #[must_use]
    pub fn pass(self: &Arc<Self>) -> Pass {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self
                .freed
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Pass(self.clone())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn all_pass_and_few_at_a_time() {
        let (gate, inside) = (Gate::new(3), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    let pass = gate.pass();
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(pass);
                });
            }
        });
        assert_eq!(*lock(&gate.free), 3);
    }
}
