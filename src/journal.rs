//! What a bus knows of its journal: how far that was read, and who waits for
//! it to be read further.
//!
//! A poll may name a message that this process has not got yet: its client
//! got it from another one. To take it for unknown would show the client old
//! messages again. So the journal is looked into before anything is said of
//! it, and before the first look nothing is said at all.
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::history::History;
use crate::message::{Id, Message};
use crate::waiter::Waiter;
use crate::waitlist::Waitlist;

/// The only channel of the list of those who wait for a look.
const LOOK: &str = "look";

/// How far the journal of one database was read.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The greatest number that was read, and the id of its message.
    last: u64,
    last_id: Option<Id>,
    /// Whether it is read once more from its beginning.
    again: bool,
    /// How many looks were begun, and how many of these have ended.
    begun: u64,
    ended: u64,
    /// Whether somebody waits for a look that was not begun.
    wanted: bool,
    waiting: Waitlist,
    /// By which whoever looks is told that a look is wanted.
    alarm: Option<UnixStream>,
}

impl Journal {
    /// Whether a message that arrives is new. One that comes by a
    /// notification and was read before is not.
    pub(crate) fn admits(&mut self, message: &Message, history: &History) -> bool {
        let number = message.number();
        if number == 0 {
            return true;
        }
        if number <= self.last {
            return false;
        }
        self.last = number;
        self.last_id = Some(message.id().clone());
        !self.again || history.place::<&str>(message.id(), &[]).is_none()
    }

    /// Notes that it was read up to this number, be there no message with it.
    pub(crate) fn pass(&mut self, number: u64) {
        if number > self.last {
            self.last = number;
            self.last_id = None;
        }
    }

    /// The greatest number that was read; zero before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether the message with that number has this id.
    pub(crate) fn is_last(&self, id: &Id) -> bool {
        self.last_id.as_ref() == Some(id)
    }

    /// Takes every number anew until the end of the next look: the numbers
    /// mean something else now. Messages that are still retained are not.
    pub(crate) fn rewind(&mut self) {
        self.last = 0;
        self.last_id = None;
        self.again = true;
    }

    /// A look begins: whoever asks from now on waits for the next one.
    pub(crate) fn begin_look(&mut self) {
        self.begun += 1;
        self.wanted = false;
    }

    /// The look that was begun last has ended; returns those who waited.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn end_look(&mut self) -> Vec<Arc<Waiter>> {
        self.ended = self.begun;
        self.again = false;
        self.waiting.take_all()
    }

    /// Whether the history says all of a poll after `last`; `after` is the
    /// look that it waits for, once it does.
    pub(crate) fn is_settled(
        &self,
        history: &History,
        last: Option<&Id>,
        after: Option<u64>,
    ) -> bool {
        let is_known = |id| history.place::<&str>(id, &[]).is_some();
        after.is_some_and(|after| self.ended >= after)
            || self.ended > 0 && last.is_none_or(is_known)
    }

    /// Registers who waits for the look `after`, or the next one that begins;
    /// returns the key to remove it with.
    pub(crate) fn wait(
        &mut self,
        after: &mut Option<u64>,
        waiter: Arc<Waiter>,
    ) -> usize {
        let after = *after.get_or_insert(self.begun + 1);
        if after > self.begun && !self.wanted {
            self.wanted = true;
            self.ring();
        }
        self.waiting.insert(&[LOOK], waiter)
    }

    /// Removes one who waits, if it still does.
    pub(crate) fn remove(&mut self, key: usize, waiter: &Arc<Waiter>) {
        self.waiting.remove(key, waiter);
    }

    /// Takes out all who wait.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Waiter>> {
        self.waiting.take_all()
    }

    /// Sets by what whoever looks is told: a socket that does not block.
    pub(crate) fn set_alarm(&mut self, alarm: UnixStream) {
        self.alarm = Some(alarm);
        if self.wanted {
            self.ring();
        }
    }

    /// Tells whoever looks that there may be something.
    pub(crate) fn ring(&self) {
        if let Some(mut alarm) = self.alarm.as_ref() {
            // It is full when nobody has come for many: one is enough. It is
            // closed when nobody looks any more.
            let _ = alarm.write(&[0]);
        }
    }
}
