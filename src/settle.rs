//! Decides whether a poll has to wait for a look or a row before the history
//! can answer it.
use std::sync::Arc;

use crate::history::History;
use crate::journal::Reading;
use crate::look::Looks;
use crate::message::Id;
use crate::waiter::{Signal, Waiter, Wake};

/// The waits of a poll that have ended so far.
#[derive(Debug, Default)]
pub struct Settling {
    /// The number of the look that the poll waits for; none before it waits for
    /// one.
    look: Option<u64>,
    /// The number up to which the journal was read for the poll.
    read: Option<u64>,
}

impl Settling {
    /// Notes the end of a wait.
    pub fn woken(&mut self, wake: &Wake) {
        if let Wake::Read(number) = wake {
            self.read = Some(*number);
        }
    }
}

/// The place of a poll that waits to be settled, by key.
#[derive(Debug)]
pub(crate) enum SettlingPlace {
    Look(usize),
    Request(u64),
}

/// The next wait of a poll.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    Nothing,
    Look,
    /// The first row in its channels with a number above `after`, up to
    /// `until`.
    Row {
        after: u64,
        until: u64,
    },
}

/// The looks of a database, and its journal where it has one.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) looks: &'a mut Looks,
    pub(crate) journal: Option<&'a mut Reading>,
    pub(crate) history: &'a History,
}

impl Sources<'_> {
    fn want(&self, last: Option<&Id>, settling: &Settling) -> Want {
        // The first look reads the journal.
        if self.journal.is_some() && !self.looks.has_ended() {
            return Want::Look;
        }
        let Some(id) = last else {
            return Want::Nothing;
        };
        if self.history.place::<&str>(id, &[]).is_some() {
            return Want::Nothing;
        }
        if self.journal.is_some() {
            let evicted = self.history.evicted();
            match settling.read.or_else(|| evicted.number(id)) {
                Some(after) if after < evicted.last() => {
                    let until = evicted.last();
                    return Want::Row { after, until };
                }
                Some(_) => return Want::Nothing,
                None => {}
            }
        }
        match settling.look {
            Some(look) if self.looks.has_reached(look) => Want::Nothing,
            _ => Want::Look,
        }
    }

    /// Whether the history can answer a poll after `last` now.
    pub(crate) fn is_settled(&self, last: Option<&Id>) -> bool {
        self.want(last, &Settling::default()) == Want::Nothing
    }

    /// Registers a waiter if the poll has to wait; returns it with its place.
    pub(crate) fn settle(
        self,
        last: Option<&Id>,
        channels: &[impl AsRef<str>],
        settling: &mut Settling,
        signal: impl FnOnce() -> Signal,
    ) -> Option<(Arc<Waiter>, SettlingPlace)> {
        let want = self.want(last, settling);
        if want == Want::Nothing {
            return None;
        }
        let waiter = Arc::new(Waiter::new(signal()));
        let place =
            if let (Want::Row { after, until }, Some(journal)) = (want, self.journal) {
                self.looks.ring();
                let waiter = waiter.clone();
                SettlingPlace::Request(journal.request(channels, after, until, waiter))
            } else {
                let look = *settling.look.get_or_insert(self.looks.next());
                SettlingPlace::Look(self.looks.wait(look, waiter.clone()))
            };
        Some((waiter, place))
    }
}
