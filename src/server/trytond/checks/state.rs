//! The sessions that wait for a check, and the databases that are known.
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::queue::Queue;
use crate::server::trytond::recent::Recent;

/// The most databases in one question.
const NAMES: usize = 500;

/// How long the name of a database that does not exist is cached, and the
/// maximum number of such names.
pub(super) const UNKNOWN_TIME: Duration = Duration::from_secs(5);
const UNKNOWN_MAX: usize = 10_000;

/// The number of waiting sessions from which sessions that are no longer wanted
/// are searched for.
pub(super) const SWEEP_AT: usize = 10_000;

/// The sessions that wait, and the databases that are known.
pub(super) struct State {
    /// Databases with sessions that wait, or a question under way.
    pub(super) queues: HashMap<Box<str>, Queue>,
    /// Databases that exist.
    pub(super) known: HashSet<Box<str>>,
    /// Those databases in `queues` whose existence has to be checked.
    pub(super) names: VecDeque<Box<str>>,
    /// Whether a look-up of `names` is under way.
    pub(super) is_looking: bool,
    pub(super) unknown: Recent,
    /// The sessions that were added since the last sweep, and the number that
    /// leads to the next one.
    added: usize,
    sweep_at: usize,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            queues: HashMap::new(),
            known: HashSet::new(),
            names: VecDeque::new(),
            is_looking: false,
            unknown: Recent::new(UNKNOWN_TIME, UNKNOWN_MAX),
            added: 0,
            sweep_at: SWEEP_AT,
        }
    }

    /// Names to be looked up, without the names that no session waits for.
    pub(super) fn take_names(&mut self) -> Vec<Box<str>> {
        let mut names = Vec::new();
        while names.len() < NAMES {
            let Some(name) = self.names.pop_front() else {
                break;
            };
            if self.queues.get(&name).is_some_and(Queue::is_wanted) {
                names.push(name);
            } else {
                self.queues.remove(&name);
            }
        }
        names
    }

    /// Drops sessions that are no longer wanted, once many were added.
    /// Otherwise they would fill the memory while a database does not answer.
    pub(super) fn make_room(&mut self) {
        self.added += 1;
        if self.added < self.sweep_at {
            return;
        }
        let left: usize = self.queues.values_mut().map(Queue::sweep).sum();
        let queues = &mut self.queues;
        self.names.retain(|name| {
            let is_wanted = queues.get(name).is_some_and(Queue::is_wanted);
            if !is_wanted {
                queues.remove(name);
            }
            is_wanted
        });
        self.added = 0;
        self.sweep_at = left.max(SWEEP_AT);
    }
}
