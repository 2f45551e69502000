//! Sessions that were found valid, and their polls.
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{FutureExt, Shared, WeakShared};
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::checks::{Checks, Rank};
use super::recent::Recent;
use super::{Answered, Check, Session, Trytond};
use crate::server::metrics::Metrics;
use crate::sync::{Mutex, lock};

/// How long a session that was refused is refused again without a check, and
/// how many of them.
const REFUSED_TIME: Duration = Duration::from_secs(5);
const REFUSED_MAX: usize = 20_000;

/// How long a session has precedence over unknown sessions after it was valid,
/// and the maximum number of such sessions.
const LATELY_TIME: Duration = Duration::from_secs(600);
const LATELY_MAX: usize = 200_000;

/// Sessions with a poll are checked again once in this part of the time for
/// which they are cached, unless their last check is younger than `YOUNG` of
/// it. Both together leave time for the check.
const ROUND: f64 = 0.6;
const YOUNG: f64 = 0.3;

/// The least time of a round, and its steps.
const ROUND_MIN: Duration = Duration::from_millis(500);
const STEPS: u32 = 50;

/// The sessions of the server.
///
/// A token is never compared with another one here. A session is found only by
/// exactly the words that trytond has confirmed.
pub(crate) struct SessionCache {
    checks: Arc<Checks>,
    /// How long a session is kept after a check.
    keep: Duration,
    /// How many polls of a user may wait.
    polls: usize,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

struct State {
    entries: Slab<Entry>,
    /// The keys of `entries`, by the hash of their sessions.
    keys: HashTable<u32>,
    hasher: RandomState,
    users: HashMap<(Box<str>, u32), Weak<AtomicUsize>>,
    refused: Recent,
    lately: Recent,
    /// The position of the round that checks sessions again: a key of
    /// `entries`, and the part of a key that is due.
    hand: usize,
    part: f64,
}

struct Entry {
    session: Arc<Session>,
    /// Until when the session counts as valid.
    valid: Option<Instant>,
    /// The check under way, unless all its waiters are gone.
    check: Option<WeakShared<Answered<Check>>>,
    /// Whether the session is checked again in the background.
    is_renewed: bool,
    polls: Arc<Polls>,
}

/// The waiting polls of a session.
#[derive(Debug)]
struct Polls {
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
    /// As it is in the polls, once it waits.
    waker: Option<Waker>,
}

/// The cached state of a session, without asking trytond.
#[derive(Debug)]
pub(crate) enum Cached {
    /// It is valid, and a poll of it was counted.
    Admitted(Admission),
    /// It is valid, and its user has too many polls.
    TooMany,
    /// It was refused a short while ago.
    Refused,
    /// Nothing.
    No,
}

impl SessionCache {
    pub(crate) fn new(
        trytond: Arc<dyn Trytond>,
        keep: Duration,
        polls: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            checks: Arc::new(Checks::new(trytond, metrics.clone())),
            keep,
            polls,
            state: Mutex::new(State {
                entries: Slab::new(),
                keys: HashTable::new(),
                hasher: RandomState::new(),
                users: HashMap::new(),
                refused: Recent::new(REFUSED_TIME, REFUSED_MAX),
                lately: Recent::new(LATELY_TIME, LATELY_MAX),
                hand: 0,
                part: 0.0,
            }),
            metrics,
        }
    }

    /// Whether `session` is valid, now or a short while ago. It waits as long
    /// as trytond can't tell.
    pub(crate) async fn check(self: &Arc<Self>, session: &Arc<Session>) -> Check {
        let check = {
            let mut state = lock(&self.state);
            let key = state.key(session);
            let entry = &mut state.entries[key];
            if entry.is_valid(Instant::now()) {
                self.metrics.session_hits.inc();
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
        if let Some(key) = state.find(session) {
            let entry = &mut state.entries[key];
            entry.check = None;
            entry.is_renewed = false;
            match check {
                Check::Valid => entry.valid = Some(now + self.keep),
                Check::Failed => {}
                Check::Invalid | Check::UnknownDatabase => {
                    entry.valid = None;
                    ended = Some(entry.polls.clone());
                }
            }
            if ended.is_some() || entry.is_empty() {
                state.remove(key);
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
        let key = state.key(session);
        self.count(&state.entries[key])
    }

    /// As [`SessionCache::check`] and [`SessionCache::admit`], without a wait
    /// where the session is known.
    pub(crate) fn cached(&self, session: &Session) -> Cached {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let entry = state.find(session).map(|key| &state.entries[key]);
        if let Some(entry) = entry.filter(|entry| entry.is_valid(now)) {
            self.metrics.session_hits.inc();
            return self.count(entry).map_or(Cached::TooMany, Cached::Admitted);
        }
        if state.refused.contains(session, now) {
            Cached::Refused
        } else {
            Cached::No
        }
    }

    fn count(&self, entry: &Entry) -> Option<Admission> {
        let polls = entry.polls.clone();
        // With the lock of the state, so no other is counted meanwhile.
        if polls.user.load(Ordering::Relaxed) >= self.polls {
            return None;
        }
        polls.user.fetch_add(1, Ordering::Relaxed);
        Some(Admission { polls, waker: None })
    }

    /// Forgets the sessions that are kept for too long.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let State {
            entries,
            keys,
            hasher,
            users,
            ..
        } = &mut *state;
        entries.retain(|key, entry| {
            entry.valid = entry.valid.filter(|valid| now < *valid);
            let stays = !entry.is_empty();
            if !stays {
                let hash = hasher.hash_one(&entry.session);
                let found = keys.find_entry(hash, |other| *other as usize == key);
                if let Ok(found) = found {
                    found.remove();
                }
            }
            stays
        });
        users.retain(|_, polls| polls.strong_count() > 0);
        entries.shrink_to_fit();
        if keys.capacity() > 64 && keys.len() < keys.capacity() / 8 {
            keys.shrink_to_fit(|key| hasher.hash_one(&entries[*key as usize].session));
            users.shrink_to_fit();
        }
    }

    /// Checks the sessions with a poll again, without an end: each once in a
    /// round, which consists of small steps.
    pub(crate) async fn renew(self: &Arc<Self>) {
        let round = self.keep.mul_f64(ROUND).max(ROUND_MIN);
        let mut ticks = interval(round / STEPS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answers: Vec<_> = self
                .due()
                .into_iter()
                .map(|session| {
                    let answer = self.checks.ask(session.clone(), Rank::Lately);
                    (session, answer)
                })
                .collect();
            if answers.is_empty() {
                continue;
            }
            self.metrics.renewals.inc_by(answers.len() as u64);
            let cache = self.clone();
            tokio::spawn(async move {
                for (session, answer) in answers {
                    cache.note(&session, answer.await.unwrap_or(Check::Failed));
                }
            });
        }
    }

    /// The sessions with a poll that the next step comes to.
    fn due(&self) -> Vec<Arc<Session>> {
        let mut state = lock(&self.state);
        let State {
            entries,
            hand,
            part,
            ..
        } = &mut *state;
        let all = entries.capacity();
        #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^32")]
        let more = all as f64 / f64::from(STEPS);
        *part += more;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a small part of their number"
        )]
        let number = *part as usize;
        *part = part.fract();
        let young = Instant::now() + self.keep.mul_f64(1.0 - YOUNG);
        let mut due = Vec::new();
        for _ in 0..number.min(all) {
            if *hand >= all {
                *hand = 0;
            }
            if let Some(entry) = entries.get_mut(*hand)
                && entry.has_polls()
                && !entry.is_renewed
                && !entry.is_valid(young)
            {
                entry.is_renewed = true;
                due.push(entry.session.clone());
            }
            *hand += 1;
        }
        due
    }
}

impl State {
    fn find(&self, session: &Session) -> Option<usize> {
        let entries = &self.entries;
        let hash = self.hasher.hash_one(session);
        let is_it = |key: &u32| *entries[*key as usize].session == *session;
        self.keys.find(hash, is_it).map(|key| *key as usize)
    }

    /// The key of the entry of `session`, made if need be.
    fn key(&mut self, session: &Arc<Session>) -> usize {
        if let Some(key) = self.find(session) {
            return key;
        }
        let name = (session.database.clone(), session.user);
        let user = self.users.entry(name).or_default();
        let polls = user.upgrade().unwrap_or_default();
        *user = Arc::downgrade(&polls);
        let key = self.entries.insert(Entry {
            session: session.clone(),
            valid: None,
            check: None,
            is_renewed: false,
            polls: Arc::new(Polls {
                user: polls,
                is_ended: AtomicBool::new(false),
                wakers: Mutex::default(),
            }),
        });
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = |key: &u32| hasher.hash_one(&entries[*key as usize].session);
        let short =
            u32::try_from(key).expect("fewer than 2^32 sessions fit the memory");
        self.keys.insert_unique(hash(&short), short, hash);
        key
    }

    fn remove(&mut self, key: usize) {
        let entry = self.entries.remove(key);
        let hash = self.hasher.hash_one(&entry.session);
        let found = self.keys.find_entry(hash, |other| *other as usize == key);
        if let Ok(found) = found {
            found.remove();
        }
    }
}

impl Entry {
    fn is_valid(&self, now: Instant) -> bool {
        self.valid.is_some_and(|valid| now < valid)
    }

    fn under_way(&self) -> Option<Shared<Answered<Check>>> {
        self.check.as_ref()?.upgrade()
    }

    fn has_polls(&self) -> bool {
        // The entry itself holds one.
        Arc::strong_count(&self.polls) > 1
    }

    fn is_empty(&self) -> bool {
        self.valid.is_none() && self.under_way().is_none() && !self.has_polls()
    }
}

impl Polls {
    /// Ends the polls that wait.
    fn end(&self) {
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
            // Dropped without the lock, as any waker.
            let _waker = {
                let mut wakers = lock(&self.polls.wakers);
                let place = wakers.iter().position(|waker| waker.will_wake(own));
                place.map(|place| wakers.swap_remove(place))
            };
        }
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

    use super::super::Asked;
    use super::*;

    /// Answers after a second, and counts its questions and answers.
    struct Slow {
        check: Mutex<Check>,
        asked: AtomicUsize,
        answered: Arc<AtomicUsize>,
    }

    impl Slow {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl Trytond for Slow {
        fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>> {
            let exist = names.iter().map(|name| &**name == "db");
            let exist = Some(exist.collect());
            Box::pin(async { exist })
        }

        fn sessions(
            &self,
            _: &str,
            sessions: Vec<Arc<Session>>,
        ) -> Answered<Vec<Check>> {
            let number = sessions.len();
            self.asked.fetch_add(number, Ordering::SeqCst);
            let (check, answered) = (*lock(&self.check), self.answered.clone());
            Box::pin(async move {
                sleep(Duration::from_secs(1)).await;
                answered.fetch_add(number, Ordering::SeqCst);
                vec![check; number]
            })
        }

        fn readable(&self, _: Asked) -> Answered<Option<Vec<Box<str>>>> {
            unreachable!("no access is checked here")
        }

        fn opened(&self, _: &str) {}
    }

    fn session(token: &str) -> Arc<Session> {
        Arc::new(Session {
            database: "db".into(),
            user: 1,
            token: token.into(),
            address: None,
            is_local: false,
        })
    }

    fn cache(check: Check) -> (Arc<SessionCache>, Arc<Slow>) {
        let sessions = Arc::new(Slow {
            check: Mutex::new(check),
            asked: AtomicUsize::new(0),
            answered: Arc::default(),
        });
        let metrics = Arc::new(Metrics::new());
        let keep = Duration::from_secs(30);
        let cache = SessionCache::new(sessions.clone(), keep, 2, metrics);
        (Arc::new(cache), sessions)
    }

    fn is_empty(cache: &SessionCache) -> bool {
        let state = lock(&cache.state);
        assert_eq!(state.entries.len(), state.keys.len());
        state.entries.is_empty() && state.users.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn valid_session_is_kept_for_a_while() {
        let (cache, sessions) = cache(Check::Valid);
        for (seconds, asked) in [(0, 1), (20, 1), (20, 2)] {
            sleep(Duration::from_secs(seconds)).await;
            cache.tidy();
            assert_eq!(cache.check(&session("a")).await, Check::Valid);
            assert_eq!(sessions.asked(), asked);
        }
        assert_eq!(cache.check(&session("b")).await, Check::Valid);
        assert_eq!(sessions.asked(), 3);
        sleep(Duration::from_secs(31)).await;
        cache.tidy();
        assert!(is_empty(&cache));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_session_is_refused_again_without_a_check() {
        let (cache, _) = cache(Check::Invalid);
        assert!(matches!(cache.cached(&session("a")), Cached::No));
        assert_eq!(cache.check(&session("a")).await, Check::Invalid);
        assert!(matches!(cache.cached(&session("a")), Cached::Refused));
        assert!(matches!(cache.cached(&session("b")), Cached::No));
        sleep(REFUSED_TIME * 2).await;
        assert!(matches!(cache.cached(&session("a")), Cached::No));
        cache.tidy();
        assert!(is_empty(&cache));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_tried_again_until_there_is_an_answer() {
        let (cache, sessions) = cache(Check::Failed);
        let check = tokio::spawn({
            let cache = cache.clone();
            async move { cache.check(&session("a")).await }
        });
        sleep(Duration::from_secs(20)).await;
        assert!(!check.is_finished());
        assert!((8..20).contains(&sessions.asked()));
        *lock(&sessions.check) = Check::Valid;
        sleep(Duration::from_secs(4)).await;
        assert!(check.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_database_has_no_sessions() {
        let (cache, sessions) = cache(Check::Valid);
        let unknown = Session {
            database: "other".into(),
            ..(*session("a")).clone()
        };
        let check = cache.check(&Arc::new(unknown)).await;
        assert_eq!(check, Check::UnknownDatabase);
        assert_eq!(sessions.asked(), 0);
        cache.tidy();
        assert!(is_empty(&cache));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_at_the_same_time_share_a_check() {
        let (cache, sessions) = cache(Check::Valid);
        let (a, b, c) = (session("a"), session("a"), session("a"));
        // The first one closes its connection meanwhile.
        let gone = tokio::time::timeout(Duration::from_millis(1), cache.check(&a));
        let (gone, b, c) = tokio::join!(gone, cache.check(&b), cache.check(&c));
        assert!(gone.is_err());
        assert_eq!((b, c), (Check::Valid, Check::Valid));
        assert_eq!(sessions.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn check_that_is_no_longer_wanted_is_given_up() {
        let (cache, sessions) = cache(Check::Valid);
        let wait = Duration::from_millis(1);
        // The first one is under way when the others come.
        for token in ["a", "b", "c"] {
            let session = session(token);
            let gone = tokio::time::timeout(wait, cache.check(&session)).await;
            assert!(gone.is_err());
            cache.tidy();
            assert!(is_empty(&cache));
        }
        sleep(Duration::from_secs(2)).await;
        assert_eq!(sessions.asked(), 1);
        assert_eq!(cache.check(&session("b")).await, Check::Valid);
        assert_eq!(sessions.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn session_with_a_poll_is_renewed_until_it_ends() {
        let (cache, sessions) = cache(Check::Valid);
        let all: Vec<_> = (0..100).map(|n| session(&n.to_string())).collect();
        for session in &all {
            cache.check(session).await;
        }
        let renew = tokio::spawn({
            let cache = cache.clone();
            async move { cache.renew().await }
        });
        let mut admissions: Vec<_> = [&all[0], &all[99]]
            .map(|session| cache.admit(session).expect("room"))
            .into();
        let before = sessions.asked();
        for _ in 0..100 {
            sleep(Duration::from_secs(3)).await;
            cache.tidy();
            // A poll after silence has nothing to wait for.
            assert!(matches!(
                cache.cached(&all[0]),
                Cached::Admitted(_) | Cached::TooMany
            ));
        }
        // Two sessions, each once in 18 to 27 seconds of 300.
        let renewed = sessions.asked() - before;
        assert!((20..=36).contains(&renewed), "{renewed}");

        *lock(&sessions.check) = Check::Invalid;
        let mut ended = 0;
        for _ in 0..30 {
            sleep(Duration::from_secs(1)).await;
            let context = &Context::from_waker(Waker::noop());
            ended = 0;
            for admission in &mut admissions {
                ended += usize::from(admission.poll_ended(context).is_ready());
            }
        }
        assert_eq!(ended, 2);
        assert!(matches!(
            cache.cached(&all[0]),
            Cached::No | Cached::Refused
        ));
        drop(admissions);
        cache.tidy();
        assert!(is_empty(&cache));
        renew.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn failure_ends_no_poll() {
        let (cache, sessions) = cache(Check::Valid);
        cache.check(&session("a")).await;
        let mut admission = cache.admit(&session("a")).expect("room");
        let renew = tokio::spawn({
            let cache = cache.clone();
            async move { cache.renew().await }
        });
        *lock(&sessions.check) = Check::Failed;
        sleep(Duration::from_secs(300)).await;
        assert!(
            admission
                .poll_ended(&Context::from_waker(Waker::noop()))
                .is_pending()
        );
        assert!(matches!(cache.cached(&session("a")), Cached::No));
        *lock(&sessions.check) = Check::Valid;
        sleep(Duration::from_secs(5)).await;
        assert!(matches!(cache.cached(&session("a")), Cached::Admitted(_)));
        renew.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn polls_of_a_user_are_counted() {
        let (cache, _) = cache(Check::Valid);
        let other = Arc::new(Session {
            user: 2,
            ..(*session("a")).clone()
        });
        let first = cache.admit(&session("a")).expect("room");
        let second = cache.admit(&session("b")).expect("room");
        assert!(cache.admit(&session("a")).is_none());
        assert!(cache.admit(&session("c")).is_none());
        assert!(cache.admit(&other).is_some());
        cache.tidy();
        drop(first);
        let first = cache.admit(&session("c"));
        assert!(first.is_some());
        assert!(cache.admit(&session("a")).is_none());
        drop((first, second));
        cache.tidy();
        assert!(is_empty(&cache));
    }
}
