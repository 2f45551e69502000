//! Sessions: asked of trytond, and remembered for a while.
use std::collections::HashMap;
use std::collections::hash_map::Entry as Found;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, Shared, WeakShared};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::metrics::Metrics;
use crate::sync::{Mutex, lock};

/// A session as a client names it, with the address it comes from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The database.
    pub database: Box<str>,
    /// The login.
    pub login: Box<str>,
    /// The id of the user.
    pub user: u32,
    /// What proves it.
    pub token: Box<str>,
    /// The address of the client, as far as it is known.
    pub address: Option<Box<str>>,
    /// Whether the connection comes from this host, and not through a proxy
    /// that is counted. Such a session is that of any other such connection:
    /// `localhost` has two addresses, and a unix socket none.
    pub is_local: bool,
}

/// What trytond says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is one.
    Valid,
    /// It is none, or was ended.
    Invalid,
    /// There is no such database.
    UnknownDatabase,
    /// It can't be told now: the database can't be reached.
    Failed,
}

/// The result of a check, to be awaited.
pub type CheckFuture = Pin<Box<dyn Future<Output = Check> + Send>>;

/// A question of access: which of these chats may the user follow?
#[derive(Clone, Debug)]
pub struct Asked {
    /// The database.
    pub database: Box<str>,
    /// The id of the user.
    pub user: u32,
    /// The chats, each of the form `chat:<model>,<id>`.
    pub chats: Vec<Box<str>>,
}

/// The chats that the user may follow, to be awaited; none where that can't
/// be told now.
pub type ReadableFuture = Pin<Box<dyn Future<Output = Option<Vec<Box<str>>>> + Send>>;

/// Who knows the sessions, and what their users may read: trytond.
pub trait Sessions: Send + Sync + 'static {
    /// Asks whether `session` is valid.
    ///
    /// It is called once for all that ask for the same session at the same
    /// time, from a task of the server: what blocks has to go elsewhere. When
    /// the future is dropped nobody wants to know any more.
    fn check(&self, session: Arc<Session>) -> CheckFuture;

    /// Asks which chats a user may follow. When the future is dropped nobody
    /// wants to know any more. Must not block.
    fn readable(&self, asked: Asked) -> ReadableFuture;

    /// Is told that the bus of a database was made for a poll, and nobody
    /// listens to the database yet. Must not block.
    fn opened(&self, database: &str);
}

/// Asks for sessions, and remembers those that are valid.
///
/// A token is never compared with another one here: what is found are the
/// very same words that trytond has confirmed.
pub(super) struct SessionCache {
    sessions: Arc<dyn Sessions>,
    /// For how long a session is remembered.
    keep: Duration,
    /// How many polls of a session may wait.
    polls: usize,
    entries: Mutex<HashMap<Box<[u8]>, Entry>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Until when the session is taken for valid.
    valid: Option<Instant>,
    /// The check that is under way, unless all who waited for it have gone.
    check: Option<WeakShared<CheckFuture>>,
    /// Held by each poll of the session that waits.
    polls: Arc<()>,
}

/// A poll that is counted for its session, until this is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    _poll: Arc<()>,
}

/// What is known of a session without asking trytond.
#[derive(Debug)]
pub(super) enum Known {
    /// It is valid, and a poll of it was counted.
    Admitted(Admission),
    /// It is valid, and has too many polls.
    TooMany,
    /// Nothing.
    No,
}

impl Session {
    /// All its words in one, each after its length: what a session is found
    /// by. In one piece it takes less than the words, and less time.
    fn words(&self) -> SmallVec<[u8; 256]> {
        let mut words = SmallVec::new();
        words.extend_from_slice(&self.user.to_le_bytes());
        for word in [&self.database, &self.login, &self.token] {
            words.extend_from_slice(&word.len().to_le_bytes());
            words.extend_from_slice(word.as_bytes());
        }
        words.push(self.is_local.into());
        if let Some(address) = &self.address {
            words.push(b' ');
            words.extend_from_slice(address.as_bytes());
        }
        words
    }

    fn key(&self) -> Box<[u8]> {
        // Copied: a vector that is spilled has room to spare.
        (&*self.words()).into()
    }
}

impl SessionCache {
    pub(super) fn new(
        sessions: Arc<dyn Sessions>,
        keep: Duration,
        polls: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            sessions,
            keep,
            polls,
            entries: Mutex::new(HashMap::new()),
            metrics,
        }
    }

    /// Whether `session` is valid, now or a short while ago.
    pub(super) async fn check(self: &Arc<Self>, session: &Arc<Session>) -> Check {
        let check = {
            let mut entries = lock(&self.entries);
            let entry = entries.entry(session.key()).or_default();
            if entry.valid.is_some_and(|valid| Instant::now() < valid) {
                self.metrics.session_hits.inc();
                return Check::Valid;
            }
            entry.under_way().unwrap_or_else(|| {
                let check: CheckFuture = Box::pin(self.clone().ask(session.clone()));
                let check = check.shared();
                entry.check = check.downgrade();
                check
            })
        };
        check.await
    }

    /// Asks trytond, on behalf of all who wait for it. Once they have gone it
    /// is dropped: strangers must not leave any work behind.
    async fn ask(self: Arc<Self>, session: Arc<Session>) -> Check {
        let check = self.sessions.check(session.clone()).await;
        self.metrics.session_check(check);
        let mut entries = lock(&self.entries);
        if let Found::Occupied(mut found) = entries.entry(session.key()) {
            let entry = found.get_mut();
            entry.check = None;
            if check == Check::Valid {
                entry.valid = Some(Instant::now() + self.keep);
            }
            if entry.is_empty() {
                found.remove();
            }
        }
        check
    }

    /// Counts a poll of `session`; none if too many of them wait.
    pub(super) fn admit(&self, session: &Session) -> Option<Admission> {
        let mut entries = lock(&self.entries);
        self.count(entries.entry(session.key()).or_default())
    }

    /// As [`SessionCache::check`] and [`SessionCache::admit`], without a wait
    /// where the session is remembered.
    pub(super) fn known(&self, session: &Session) -> Known {
        let words = session.words();
        let entries = lock(&self.entries);
        let entry = entries.get(&*words);
        let now = Instant::now();
        match entry.filter(|entry| entry.valid.is_some_and(|valid| now < valid)) {
            None => Known::No,
            Some(entry) => {
                self.metrics.session_hits.inc();
                self.count(entry).map_or(Known::TooMany, Known::Admitted)
            }
        }
    }

    fn count(&self, entry: &Entry) -> Option<Admission> {
        // The entry itself holds one.
        (Arc::strong_count(&entry.polls) <= self.polls).then(|| Admission {
            _poll: entry.polls.clone(),
        })
    }

    /// Forgets the sessions that are remembered for too long.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        let mut entries = lock(&self.entries);
        entries.retain(|_, entry| {
            entry.valid = entry.valid.filter(|valid| now < *valid);
            !entry.is_empty()
        });
        if entries.capacity() > 64 && entries.len() < entries.capacity() / 8 {
            entries.shrink_to_fit();
        }
    }
}

impl Entry {
    fn under_way(&self) -> Option<Shared<CheckFuture>> {
        self.check.as_ref()?.upgrade()
    }

    fn is_empty(&self) -> bool {
        self.valid.is_none()
            && self.under_way().is_none()
            && Arc::strong_count(&self.polls) == 1
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("database", &self.database)
            .field("login", &self.login)
            .field("user", &self.user)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCache")
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::sleep;

    use super::*;

    /// Answers after a second, and counts what it was asked and has answered.
    struct Slow(Check, AtomicUsize, Arc<AtomicUsize>);

    impl Sessions for Slow {
        fn check(&self, _: Arc<Session>) -> CheckFuture {
            self.1.fetch_add(1, Ordering::SeqCst);
            let (check, answered) = (self.0, self.2.clone());
            Box::pin(async move {
                sleep(Duration::from_secs(1)).await;
                answered.fetch_add(1, Ordering::SeqCst);
                check
            })
        }

        fn readable(&self, _: Asked) -> ReadableFuture {
            unreachable!("no access is checked here")
        }

        fn opened(&self, _: &str) {}
    }

    fn session(token: &str) -> Arc<Session> {
        Arc::new(Session {
            database: "db".into(),
            login: "admin".into(),
            user: 1,
            token: token.into(),
            address: None,
            is_local: false,
        })
    }

    fn cache(check: Check) -> (Arc<SessionCache>, Arc<Slow>) {
        let sessions = Arc::new(Slow(check, AtomicUsize::new(0), Arc::default()));
        let metrics = Arc::new(Metrics::new());
        let keep = Duration::from_secs(30);
        let cache = SessionCache::new(sessions.clone(), keep, 2, metrics);
        (Arc::new(cache), sessions)
    }

    #[tokio::test(start_paused = true)]
    async fn valid_session_is_remembered_for_a_while() {
        let (cache, sessions) = cache(Check::Valid);
        for (seconds, asked) in [(0, 1), (20, 1), (20, 2)] {
            sleep(Duration::from_secs(seconds)).await;
            cache.tidy();
            assert_eq!(cache.check(&session("a")).await, Check::Valid);
            assert_eq!(sessions.1.load(Ordering::SeqCst), asked);
        }
        assert_eq!(cache.check(&session("b")).await, Check::Valid);
        assert_eq!(sessions.1.load(Ordering::SeqCst), 3);
        sleep(Duration::from_secs(31)).await;
        cache.tidy();
        assert!(lock(&cache.entries).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_not_remembered() {
        for check in [Check::Invalid, Check::UnknownDatabase, Check::Failed] {
            let (cache, sessions) = cache(check);
            for asked in 1..3 {
                assert_eq!(cache.check(&session("a")).await, check);
                assert_eq!(sessions.1.load(Ordering::SeqCst), asked);
            }
            assert!(lock(&cache.entries).is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_at_the_same_time_share_a_check() {
        let (cache, sessions) = cache(Check::Valid);
        let (a, b, c) = (session("a"), session("a"), session("a"));
        // The first one goes away meanwhile.
        let gone = tokio::time::timeout(Duration::from_millis(1), cache.check(&a));
        let (gone, b, c) = tokio::join!(gone, cache.check(&b), cache.check(&c));
        assert!(gone.is_err());
        assert_eq!((b, c), (Check::Valid, Check::Valid));
        assert_eq!(sessions.1.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn check_that_nobody_waits_for_is_given_up() {
        let (cache, sessions) = cache(Check::Valid);
        let wait = Duration::from_millis(1);
        for token in ["a", "b", "a"] {
            let session = session(token);
            let gone = tokio::time::timeout(wait, cache.check(&session)).await;
            assert!(gone.is_err());
            cache.tidy();
            assert!(lock(&cache.entries).is_empty());
        }
        sleep(Duration::from_secs(2)).await;
        assert_eq!(sessions.1.load(Ordering::SeqCst), 3);
        assert_eq!(sessions.2.load(Ordering::SeqCst), 0);
        assert_eq!(cache.check(&session("a")).await, Check::Valid);
    }

    #[tokio::test(start_paused = true)]
    async fn polls_of_a_session_are_counted() {
        let (cache, _) = cache(Check::Valid);
        let first = cache.admit(&session("a")).expect("room");
        let second = cache.admit(&session("a")).expect("room");
        assert!(cache.admit(&session("a")).is_none());
        assert!(cache.admit(&session("b")).is_some());
        cache.tidy();
        drop(first);
        let first = cache.admit(&session("a"));
        assert!(first.is_some());
        drop((first, second));
        cache.tidy();
        assert!(lock(&cache.entries).is_empty());
    }
}
