//! Which chats a user may follow: trytond answers, and the answers are cached.
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::{Asked, Session, Trytond};
use crate::poll::Poll;
use crate::registry::Process;
use crate::sync::{Mutex, lock};

/// How many questions are under way at a time. Each holds a thread until the
/// modules of its database are loaded.
const QUESTIONS: usize = 16;

/// The pauses after questions that failed.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// Asks trytond which chats a user may read.
pub(crate) struct Rights {
    /// Caches the answers.
    process: Arc<Process>,
    trytond: Arc<dyn Trytond>,
    /// How long answers are cached.
    session_cache: Duration,
    questions: Semaphore,
    /// One question for each database, so that one whose modules are loaded
    /// holds up no other.
    databases: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
}

impl Rights {
    pub(crate) fn new(
        process: Arc<Process>,
        trytond: Arc<dyn Trytond>,
        session_cache: Duration,
    ) -> Self {
        Self {
            process,
            trytond,
            session_cache,
            questions: Semaphore::new(QUESTIONS),
            databases: Mutex::new(HashMap::new()),
        }
    }

    /// The chats of a poll that its user may follow, and those for which no
    /// answer is cached.
    pub(crate) fn cached(
        &self,
        session: &Session,
        poll: &Poll,
    ) -> (Vec<Box<str>>, Vec<Box<str>>) {
        let (access, now) = (self.process.access(), self.process.now());
        let known = access.known(&session.database, session.user, poll, now);
        (known.readable, known.unknown)
    }

    /// The queue of the questions for a database.
    fn turn(&self, database: &str) -> Arc<Semaphore> {
        let mut databases = lock(&self.databases);
        // Drops the turns of databases for which no question waits.
        databases.retain(|_, turn| Arc::strong_count(turn) > 1);
        let turn = databases.entry(database.into());
        turn.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// Asks for these chats until there is an answer, the chats that the user
    /// may follow.
    pub(crate) async fn ask(
        &self,
        session: &Session,
        chats: Vec<Box<str>>,
    ) -> Vec<Box<str>> {
        let asked = Asked {
            database: session.database.clone(),
            user: session.user,
            chats,
        };
        let turn = self.turn(&session.database);
        let mut pauses = BACKOFF;
        loop {
            let readable = {
                // The semaphores are never closed.
                let _of_database = turn.acquire().await;
                let _of_all = self.questions.acquire().await;
                self.trytond.readable(asked.clone()).await
            };
            if let Some(readable) = readable {
                self.process.access().remember(
                    &asked.database,
                    asked.user,
                    &asked.chats,
                    &readable,
                    self.process.now(),
                    self.session_cache,
                );
                return readable;
            }
            sleep(pauses.next()).await;
        }
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rights")
            .field("session_cache", &self.session_cache)
            .finish_non_exhaustive()
    }
}
