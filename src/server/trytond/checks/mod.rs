//! The sessions that wait for a check, by database.
//!
//! All that wait are asked for by one question, which begins at once when
//! there was none for their database a moment ago. A database that does not
//! answer holds up its own sessions only.
mod queue;
mod state;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::fmt;
use std::iter::repeat;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use self::queue::Rank;
use self::queue::{Pending, Queue};
use self::state::State;
use super::backoff::Backoff;
use super::metrics::SessionMetrics;
use super::{Check, Session, Trytond};
use crate::server::metrics::Counted;
use crate::sync::{Mutex, lock};

/// The most sessions in one question.
const BATCH: usize = 500;

/// The time from one question for a database to the next. Sessions that come
/// meanwhile share a question, which costs as much as some dozens of sessions.
const INTERVAL: Duration = Duration::from_millis(10);

/// The pauses after questions that failed.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(250), Duration::from_secs(1));

/// The number of databases that have failed before and may be asked at a time.
/// Each question holds a thread until its time limit.
const SUSPECTS: usize = 8;

/// Asks trytond for sessions.
pub(crate) struct Checks {
    trytond: Arc<dyn Trytond>,
    metrics: SessionMetrics,
    suspects: Semaphore,
    state: Mutex<State>,
}

impl Checks {
    pub(crate) fn new(trytond: Arc<dyn Trytond>, metrics: SessionMetrics) -> Self {
        Self {
            trytond,
            metrics,
            suspects: Semaphore::new(SUSPECTS),
            state: Mutex::new(State::new()),
        }
    }

    /// Asks for the check of a session. A check that can't be made now is made
    /// later. It is given up when the receiver is dropped.
    pub(crate) fn ask(
        self: &Arc<Self>,
        session: Arc<Session>,
        rank: Rank,
    ) -> oneshot::Receiver<Check> {
        let (answer, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.unknown.contains(&session.database, Instant::now()) {
            // The receiver exists, because it is returned below.
            let _ = answer.send(Check::UnknownDatabase);
            return receiver;
        }
        state.make_room();
        let database = session.database.clone();
        let pending = Pending {
            session,
            rank,
            answer,
            since: Instant::now(),
            _counted: Counted::by(&self.metrics.waiting),
        };
        match state.queues.entry(database.clone()) {
            Entry::Occupied(mut queue) => {
                // Questions under way continue with it.
                queue.get_mut().push(pending);
                return receiver;
            }
            Entry::Vacant(place) => place.insert(Queue::default()).push(pending),
        }
        if state.known.contains(&database) {
            drop(state);
            tokio::spawn(self.clone().run(database));
        } else {
            self.look_up(&mut state, database);
        }
        receiver
    }

    /// Starts to look up whether the database of a queue exists.
    fn look_up(self: &Arc<Self>, state: &mut State, database: Box<str>) {
        state.names.push_back(database);
        if !state.is_looking {
            state.is_looking = true;
            tokio::spawn(self.clone().look());
        }
    }

    /// Looks up databases until all names are known or unknown.
    async fn look(self: Arc<Self>) {
        let mut pauses = BACKOFF;
        loop {
            let names = {
                let mut state = lock(&self.state);
                let names = state.take_names();
                state.is_looking = !names.is_empty();
                names
            };
            if names.is_empty() {
                return;
            }
            let exist = self.trytond.databases(names.clone()).await;
            let Some(exist) = exist.filter(|exist| exist.len() == names.len()) else {
                lock(&self.state).names.extend(names);
                sleep(pauses.next()).await;
                continue;
            };
            pauses = BACKOFF;
            for (name, exists) in names.into_iter().zip(exist) {
                if exists {
                    lock(&self.state).known.insert(name.clone());
                    tokio::spawn(self.clone().run(name));
                } else {
                    self.forget(&name);
                }
            }
        }
    }

    /// Tells every waiter for this database that it does not exist.
    fn forget(&self, database: &str) {
        let queue = {
            let mut state = lock(&self.state);
            state.known.remove(database);
            state.unknown.insert(&database, Instant::now());
            state.queues.remove(database)
        };
        for pending in queue.into_iter().flat_map(Queue::into_all) {
            self.tell(pending, Check::UnknownDatabase);
        }
    }

    /// Asks for the sessions of a database that exists, until none waits or a
    /// question fails.
    async fn run(self: Arc<Self>, database: Box<str>) {
        while let Some((batch, failed_before)) = self.next_batch(&database) {
            let next = Instant::now() + INTERVAL;
            let results = {
                let _permit = if failed_before {
                    // The semaphore is never closed.
                    self.suspects.acquire().await.ok()
                } else {
                    None
                };
                let sessions = batch.iter().map(|pending| pending.session.clone());
                self.trytond.sessions(&database, sessions.collect()).await
            };
            let number = batch.len();
            let mut failed = Vec::new();
            let results = results.into_iter().chain(repeat(Check::Failed));
            for (pending, check) in batch.into_iter().zip(results) {
                match check {
                    Check::Failed => {
                        self.metrics.checked(check);
                        failed.push(pending);
                    }
                    Check::UnknownDatabase => {
                        self.tell(pending, check);
                        return self.forget(&database);
                    }
                    Check::Valid | Check::Invalid => self.tell(pending, check),
                }
            }
            if let Some(pause) = self.note(&database, failed, number) {
                sleep(pause).await;
                // The database may have been dropped.
                self.look_up(&mut lock(&self.state), database);
                return;
            }
            sleep_until(next).await;
        }
    }

    /// The sessions to ask for next, and whether the last question failed;
    /// none once no session waits.
    fn next_batch(&self, database: &str) -> Option<(Vec<Pending>, bool)> {
        let mut state = lock(&self.state);
        let queue = state.queues.get_mut(database)?;
        let batch = queue.take(BATCH);
        if batch.is_empty() {
            state.queues.remove(database);
            return None;
        }
        Some((batch, queue.pauses.is_some()))
    }

    /// Takes back the sessions of a question that `failed`; returns for how
    /// long to wait if that is the whole `number`.
    fn note(
        &self,
        database: &str,
        failed: Vec<Pending>,
        number: usize,
    ) -> Option<Duration> {
        let mut state = lock(&self.state);
        let queue = state.queues.get_mut(database)?;
        let has_failed = failed.len() == number;
        for pending in failed {
            queue.push(pending);
        }
        if !has_failed {
            queue.pauses = None;
            return None;
        }
        let pause = queue.pauses.get_or_insert(BACKOFF).next();
        state.known.remove(database);
        Some(pause)
    }

    fn tell(&self, pending: Pending, check: Check) {
        self.metrics.checked(check);
        let waited = pending.since.elapsed();
        self.metrics.seconds.observe(waited.as_secs_f64());
        // The client may have closed the connection.
        let _ = pending.answer.send(check);
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}
