//! The locks of the engine: those of the standard library, or loom's in the
//! model checker.
#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic::AtomicBool};
use std::sync::PoisonError;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicBool;
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

/// Takes a lock.
///
/// A poisoned lock is used as it is. Our code does not panic while it holds a
/// lock, and after such a bug a bus that continues is better than a bus that
/// fails for ever.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
