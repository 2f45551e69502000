//! Questions for sessions, which the test answers.
use prometheus::Registry;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::state::{SWEEP_AT, UNKNOWN_TIME};
use super::*;
use crate::server::trytond::{Answered, Asked};

/// The questions to trytond, which the test answers.
enum Question {
    Databases(Vec<Box<str>>, oneshot::Sender<Option<Vec<bool>>>),
    Sessions(Vec<Arc<Session>>, oneshot::Sender<Vec<Check>>),
}

struct Asker(UnboundedSender<Question>);

impl Trytond for Asker {
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Question::Databases(names, answer));
        Box::pin(async { answered.await.unwrap_or(None) })
    }

    fn sessions(&self, _: &str, sessions: Vec<Arc<Session>>) -> Answered<Vec<Check>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Question::Sessions(sessions, answer));
        Box::pin(async { answered.await.unwrap_or_default() })
    }

    fn readable(&self, _: Asked) -> Answered<Option<Vec<Box<str>>>> {
        unreachable!("no access is checked here")
    }

    fn opened(&self, _: &str) {}
}

struct Bench {
    checks: Arc<Checks>,
    questions: UnboundedReceiver<Question>,
}

impl Bench {
    fn new() -> Self {
        let (sender, questions) = unbounded_channel();
        let metrics = SessionMetrics::new(&Registry::new());
        let checks = Arc::new(Checks::new(Arc::new(Asker(sender)), metrics));
        Self { checks, questions }
    }

    fn ask(
        &self,
        database: &str,
        user: u32,
        address: &str,
        rank: Rank,
    ) -> oneshot::Receiver<Check> {
        let session = Session {
            database: database.into(),
            user,
            token: "t".into(),
            address: Some(address.into()),
            is_local: false,
        };
        self.checks.ask(Arc::new(session), rank)
    }

    /// Answers the next question, which is for databases.
    async fn databases(&mut self, exist: Option<bool>) -> Vec<Box<str>> {
        match self.next().await {
            Some(Question::Databases(names, answer)) => {
                let _ = answer.send(exist.map(|exists| vec![exists; names.len()]));
                names
            }
            _ => panic!("it asks for no databases"),
        }
    }

    /// The users of the next question, which is for sessions.
    async fn sessions(&mut self) -> (Vec<u32>, oneshot::Sender<Vec<Check>>) {
        match self.next().await {
            Some(Question::Sessions(sessions, answer)) => {
                let users = sessions.iter().map(|session| session.user);
                (users.collect(), answer)
            }
            _ => panic!("it asks for no sessions"),
        }
    }

    /// The next question, if one comes soon.
    async fn next(&mut self) -> Option<Question> {
        let wait = Duration::from_secs(5);
        let next = tokio::time::timeout(wait, self.questions.recv()).await;
        next.ok().flatten()
    }

    async fn is_quiet(&mut self) -> bool {
        self.next().await.is_none()
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_wait_are_asked_for_by_one_question() {
    let mut bench = Bench::new();
    let first = bench.ask("db", 1, "a", Rank::Stranger);
    assert_eq!(bench.databases(Some(true)).await, [Box::from("db")]);
    let (users, answer) = bench.sessions().await;
    assert_eq!(users, [1]);
    let others: Vec<_> = (2..)
        .take(BATCH + 10)
        .map(|user| bench.ask("db", user, "a", Rank::Stranger))
        .collect();
    assert!(bench.is_quiet().await);
    let _ = answer.send(vec![Check::Valid]);
    assert_eq!(first.await, Ok(Check::Valid));
    let (users, answer) = bench.sessions().await;
    assert_eq!(users.len(), BATCH);
    let _ = answer.send(vec![Check::Invalid; BATCH]);
    let (users, answer) = bench.sessions().await;
    assert_eq!(users.len(), 10);
    let _ = answer.send(vec![Check::Valid; 10]);
    for (number, other) in others.into_iter().enumerate() {
        let expected = if number < BATCH {
            Check::Invalid
        } else {
            Check::Valid
        };
        assert_eq!(other.await, Ok(expected));
    }
    // It is known to exist now.
    let _one = bench.ask("db", 1, "a", Rank::Stranger);
    assert_eq!(bench.sessions().await.0, [1]);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_come_soon_after_a_question_share_the_next() {
    let mut bench = Bench::new();
    let _first = bench.ask("db", 1, "a", Rank::Stranger);
    bench.databases(Some(true)).await;
    let begun = Instant::now();
    let (_, answer) = bench.sessions().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let _ = answer.send(vec![Check::Valid]);
    let _second = bench.ask("db", 2, "a", Rank::Stranger);
    sleep(INTERVAL / 2).await;
    let _third = bench.ask("db", 3, "a", Rank::Stranger);
    let (users, answer) = bench.sessions().await;
    assert_eq!(users, [2, 3]);
    assert_eq!(begun.elapsed(), INTERVAL);
    let _ = answer.send(vec![Check::Valid; 2]);
    sleep(INTERVAL * 2).await;
    let begun = Instant::now();
    let _fourth = bench.ask("db", 4, "a", Rank::Stranger);
    assert_eq!(bench.sessions().await.0, [4]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn strangers_come_last_and_their_addresses_take_turns() {
    let mut bench = Bench::new();
    let _first = bench.ask("db", 0, "x", Rank::Stranger);
    bench.databases(Some(true)).await;
    let (_, answer) = bench.sessions().await;
    let mut waiting: Vec<_> = (0..2000)
        .map(|_| bench.ask("db", 1, "192.0.2.1", Rank::Stranger))
        .collect();
    for user in 2..12 {
        waiting.push(bench.ask("db", user, "192.0.2.2", Rank::Stranger));
    }
    waiting.push(bench.ask("db", 100, "192.0.2.1", Rank::Lately));
    let _ = answer.send(vec![Check::Valid]);
    let (users, _answer) = bench.sessions().await;
    let good: Vec<_> = (2..12).flat_map(|user| [1, user]).collect();
    assert_eq!(users[..21], [&[100][..], &good].concat());
}

#[tokio::test(start_paused = true)]
async fn database_that_does_not_answer_holds_up_no_other() {
    let mut bench = Bench::new();
    let bad: Vec<_> = (0..50)
        .map(|number| bench.ask(&format!("bad{number}"), 1, "a", Rank::Stranger))
        .collect();
    assert_eq!(bench.databases(Some(true)).await.len(), 50);
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(bench.sessions().await);
    }
    let good = bench.ask("good", 1, "a", Rank::Stranger);
    bench.databases(Some(true)).await;
    let (_, answer) = bench.sessions().await;
    let _ = answer.send(vec![Check::Valid]);
    assert_eq!(good.await, Ok(Check::Valid));

    // Once they have failed, only a limited number is asked at a time.
    held.drain(..).for_each(drop);
    let mut asked = Vec::new();
    while asked.len() < SUSPECTS {
        match bench.next().await {
            Some(Question::Databases(names, answer)) => {
                let _ = answer.send(Some(vec![true; names.len()]));
            }
            Some(Question::Sessions(_, answer)) => asked.push(answer),
            None => panic!("it asks for nothing"),
        }
    }
    while let Some(question) = bench.next().await {
        let Question::Databases(names, answer) = question else {
            panic!("it asks for more sessions");
        };
        let _ = answer.send(Some(vec![true; names.len()]));
    }
    let again = bench.ask("good", 1, "a", Rank::Stranger);
    let (_, answer) = bench.sessions().await;
    let _ = answer.send(vec![Check::Valid]);
    assert_eq!(again.await, Ok(Check::Valid));
    drop(bad);
}

#[tokio::test(start_paused = true)]
async fn unknown_names_are_asked_for_together_and_once() {
    let mut bench = Bench::new();
    let ask = |bench: &Bench, name: &str| bench.ask(name, 1, "a", Rank::Stranger);
    let all: Vec<_> = (0..100).map(|n| ask(&bench, &n.to_string())).collect();
    // While trytond can't tell, they are asked for again.
    assert_eq!(bench.databases(None).await.len(), 100);
    assert_eq!(bench.databases(Some(false)).await.len(), 100);
    for other in all {
        assert_eq!(other.await, Ok(Check::UnknownDatabase));
    }
    assert_eq!(ask(&bench, "7").await, Ok(Check::UnknownDatabase));
    assert!(bench.is_quiet().await);
    assert!(lock(&bench.checks.state).queues.is_empty());
    // It may be made.
    sleep(UNKNOWN_TIME * 2).await;
    let made = ask(&bench, "7");
    bench.databases(Some(true)).await;
    let _ = bench.sessions().await.1.send(vec![Check::Valid]);
    assert_eq!(made.await, Ok(Check::Valid));
}

#[tokio::test(start_paused = true)]
async fn database_that_was_dropped_becomes_unknown() {
    let mut bench = Bench::new();
    let session = bench.ask("db", 1, "a", Rank::Lately);
    bench.databases(Some(true)).await;
    drop(bench.sessions().await);
    bench.databases(Some(false)).await;
    assert_eq!(session.await, Ok(Check::UnknownDatabase));
}

#[tokio::test(start_paused = true)]
async fn sessions_that_are_not_wanted_take_no_room() {
    let mut bench = Bench::new();
    let _first = bench.ask("db", 0, "a", Rank::Stranger);
    bench.databases(Some(true)).await;
    let (_, answer) = bench.sessions().await;
    for number in 0..5 * SWEEP_AT {
        let address = format!("2001:db8:0:{:x}::1", number % 0xffff);
        drop(bench.ask("db", 1, &address, Rank::Stranger));
        drop(bench.ask(&number.to_string(), 1, "a", Rank::Stranger));
    }
    {
        let state = lock(&bench.checks.state);
        let all: usize = state.queues.values().map(|queue| queue.all().count()).sum();
        assert!(all <= 2 * SWEEP_AT, "{all}");
        assert!(state.queues.len() <= 2 * SWEEP_AT);
        assert!(state.names.len() <= 2 * SWEEP_AT);
    }
    let _ = answer.send(vec![Check::Valid]);
    assert!(bench.is_quiet().await);
    assert!(lock(&bench.checks.state).queues.is_empty());
}
