//! Sessions that trytond answers for after a second.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use prometheus::Registry;
use tokio::time::sleep;

use super::*;
use crate::server::trytond::Asked;

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

    fn sessions(&self, _: &str, sessions: Vec<Arc<Session>>) -> Answered<Vec<Check>> {
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

fn cache(check: Check) -> (Arc<Sessions>, Arc<Slow>) {
    let sessions = Arc::new(Slow {
        check: Mutex::new(check),
        asked: AtomicUsize::new(0),
        answered: Arc::default(),
    });
    let metrics = SessionMetrics::new(&Registry::new());
    let keep = Duration::from_secs(30);
    let cache = Sessions::new(sessions.clone(), keep, 2, metrics);
    (Arc::new(cache), sessions)
}

fn is_empty(cache: &Sessions) -> bool {
    lock(&cache.state).entries.is_empty()
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
async fn simultaneous_polls_share_a_check() {
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
