//! Limits the number of threads that contend for a lock at a time.
//!
//! If a thousand threads request the GIL at once, each re-checks every 5 ms,
//! and that costs more than their actual work. With the gate they queue
//! instead. In free-threaded Python, which has no GIL, the gate has no
//! measurable cost.
use std::sync::{Arc, PoisonError};

use crate::sync::{Condvar, Mutex, lock};

/// A gate with a limited number of places.
#[derive(Debug)]
pub struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place in the gate, given back when this is dropped.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// A gate with `places` places.
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
