//! Sessions that were found valid, and their polls.
mod admission;
mod entries;
mod renewal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use tokio::time::Instant;

pub(crate) use self::admission::Admission;
use self::entries::Entries;
use self::renewal::Round;
use super::checks::{Checks, Rank};
use super::metrics::SessionMetrics;
use super::recent::Recent;
use super::{Answered, Check, Session, Trytond};
use crate::sync::{Mutex, lock};

/// The time for which a refused session is refused again without a check, and
/// the most such sessions.
const REFUSED_TIME: Duration = Duration::from_secs(5);
const REFUSED_MAX: usize = 20_000;

/// How long a session has precedence over unknown sessions after it was valid,
/// and the maximum number of such sessions.
const LATELY_TIME: Duration = Duration::from_secs(600);
const LATELY_MAX: usize = 200_000;

/// The sessions of the server.
///
/// A token is never compared with another one here. A session is found only by
/// exactly the words that trytond has confirmed.
pub(crate) struct Sessions {
    checks: Arc<Checks>,
    /// How long a session is kept after a check.
    session_cache: Duration,
    /// How many polls of a user may wait.
    session_polls: usize,
    state: Mutex<State>,
    metrics: SessionMetrics,
}

struct State {
    entries: Entries,
    refused: Recent,
    lately: Recent,
    round: Round,
}

/// The cached state of a session, without asking trytond.
#[derive(Debug)]
pub(crate) enum Cached {
    /// The session is valid, and a poll of it was counted.
    Admitted(Admission),
    /// The session is valid, but its user has too many polls.
    TooMany,
    /// The session was refused a short while ago.
    Refused,
    /// Neither is known.
    No,
}

impl Sessions {
    pub(crate) fn new(
        trytond: Arc<dyn Trytond>,
        session_cache: Duration,
        session_polls: usize,
        metrics: SessionMetrics,
    ) -> Self {
        Self {
            checks: Arc::new(Checks::new(trytond, metrics.clone())),
            session_cache,
            session_polls,
            state: Mutex::new(State {
                entries: Entries::default(),
                refused: Recent::new(REFUSED_TIME, REFUSED_MAX),
                lately: Recent::new(LATELY_TIME, LATELY_MAX),
                round: Round::default(),
            }),
            metrics,
        }
    }

    /// Whether `session` is valid, now or a short while ago. It waits as long
    /// as trytond can't tell.
    pub(crate) async fn check(self: &Arc<Self>, session: &Arc<Session>) -> Check {
        let check = {
            let mut state = lock(&self.state);
            let entry = state.entries.get_or_add(session);
            if entry.is_valid(Instant::now()) {
                self.metrics.hits.inc();
                return Check::Valid;
            }
            entry.under_way().unwrap_or_else(|| {
                let check: Answered<Check> =
                    Box::pin(self.clone().ask(session.clone()));
                let check = check.shared();
                entry.check = check.downgrade();
                check
            })
        };
        check.await
    }

    /// Asks trytond on behalf of all that wait for this session. Once all of
    /// them are gone the question is dropped, because unauthenticated clients
    /// must not leave any work behind.
    async fn ask(self: Arc<Self>, session: Arc<Session>) -> Check {
        let rank = {
            let mut state = lock(&self.state);
            if state.lately.contains(&session, Instant::now()) {
                Rank::Lately
            } else {
                Rank::Stranger
            }
        };
        let answer = self.checks.ask(session.clone(), rank);
        let check = answer.await.unwrap_or(Check::Failed);
        self.note(&session, check);
        check
    }

    /// Stores trytond's answer for a session.
    fn note(&self, session: &Session, check: Check) {
        let now = Instant::now();
        let mut ended = None;
        let mut state = lock(&self.state);
        match check {
            Check::Valid => {
                state.lately.insert(session, now);
                state.refused.remove(session);
            }
            Check::Invalid => {
                state.lately.remove(session);
                state.refused.insert(session, now);
            }
            Check::UnknownDatabase | Check::Failed => {}
        }
        if let Some(entry) = state.entries.get(session) {
            entry.check = None;
            entry.is_renewed = false;
            match check {
                Check::Valid => entry.valid = Some(now + self.session_cache),
                Check::Failed => {}
                Check::Invalid | Check::UnknownDatabase => {
                    entry.valid = None;
                    ended = Some(entry.polls.clone());
                }
            }
            if ended.is_some() || entry.is_empty() {
                state.entries.remove(session);
            }
        }
        drop(state);
        if let Some(polls) = ended {
            polls.end();
        }
    }

    /// Counts a poll of `session`; none if its user has too many.
    pub(crate) fn admit(&self, session: &Arc<Session>) -> Option<Admission> {
        let mut state = lock(&self.state);
        let polls = &state.entries.get_or_add(session).polls;
        polls.admit(self.session_polls)
    }

    /// As [`Sessions::check`] and [`Sessions::admit`], without a wait
    /// where the session is known.
    pub(crate) fn cached(&self, session: &Session) -> Cached {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let entry = state.entries.get(session);
        if let Some(entry) = entry.filter(|entry| entry.is_valid(now)) {
            self.metrics.hits.inc();
            let admission = entry.polls.admit(self.session_polls);
            return admission.map_or(Cached::TooMany, Cached::Admitted);
        }
        if state.refused.contains(session, now) {
            Cached::Refused
        } else {
            Cached::No
        }
    }

    /// Forgets the sessions that are kept for too long.
    pub(crate) fn tidy(&self) {
        lock(&self.state).entries.tidy(Instant::now());
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("session_cache", &self.session_cache)
            .finish_non_exhaustive()
    }
}
