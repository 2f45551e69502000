//! The polls of a session.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::sync::{Mutex, lock};

/// The waiting polls of a session.
#[derive(Debug)]
pub(super) struct Polls {
    /// The number of polls of the user, over all of the user's sessions.
    user: Arc<AtomicUsize>,
    /// Whether the session was found invalid.
    is_ended: AtomicBool,
    /// Tells the polls that the session has ended. Most sessions have one poll.
    wakers: Mutex<SmallVec<[Waker; 1]>>,
}

/// A poll that is counted for its user, until this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    polls: Arc<Polls>,
    /// The same waker as in `wakers`, once the poll waits.
    waker: Option<Waker>,
}

impl Polls {
    /// No polls of a session, whose user has this number of them.
    pub(super) fn new(user: Arc<AtomicUsize>) -> Self {
        Self {
            user,
            is_ended: AtomicBool::new(false),
            wakers: Mutex::default(),
        }
    }

    /// Counts a poll; none if the user has `most` already. The caller has a
    /// lock, so that no other is counted meanwhile.
    pub(super) fn admit(self: &Arc<Self>, most: usize) -> Option<Admission> {
        if self.user.load(Ordering::Relaxed) >= most {
            return None;
        }
        self.user.fetch_add(1, Ordering::Relaxed);
        Some(Admission {
            polls: self.clone(),
            waker: None,
        })
    }

    /// Ends the polls that wait.
    pub(super) fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Admission {
    /// Ready once the session was found invalid.
    pub(crate) fn poll_ended(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.waker.is_none() {
            self.waker = Some(context.waker().clone());
            lock(&self.polls.wakers).push(context.waker().clone());
        }
        if self.polls.is_ended.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.polls.user.fetch_sub(1, Ordering::Relaxed);
        if let Some(own) = &self.waker {
            // Dropped without the lock, like any waker.
            let _waker = {
                let mut wakers = lock(&self.polls.wakers);
                let place = wakers.iter().position(|waker| waker.will_wake(own));
                place.map(|place| wakers.swap_remove(place))
            };
        }
    }
}
