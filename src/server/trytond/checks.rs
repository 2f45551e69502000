//! The sessions that wait for a check, by database.
//!
//! All that wait are asked for by one question, which begins at once when
//! none is under way for their database. A database that does not answer
//! holds up its own sessions only.
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::iter::repeat;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::recent::Recent;
use super::{Check, Session, Trytond};
use crate::server::metrics::{Counted, Metrics};
use crate::sync::{Mutex, lock};

/// The most sessions of a question.
const BATCH: usize = 500;

/// The most databases that are asked for by one question.
const NAMES: usize = 500;

/// The pauses after questions that failed.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(250), Duration::from_secs(1));

/// The number of databases that have failed before and may be asked at a time.
/// Each question holds a thread until its time limit.
const SUSPECTS: usize = 8;

/// How long the name of a database that does not exist is cached, and the
/// maximum number of such names.
const UNKNOWN_TIME: Duration = Duration::from_secs(5);
const UNKNOWN_MAX: usize = 10_000;

/// The number of waiting sessions from which sessions that are no longer wanted
/// are searched for.
const SWEEP_AT: usize = 10_000;

/// Which sessions of a database go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// It was valid a short while ago.
    Lately,
    /// It may be anything. The networks of the clients take turns.
    Stranger,
}

/// Asks trytond for sessions.
pub(crate) struct Checks {
    trytond: Arc<dyn Trytond>,
    metrics: Arc<Metrics>,
    suspects: Semaphore,
    state: Mutex<State>,
}

struct State {
    /// Databases with sessions that wait, or a question under way.
    queues: HashMap<Box<str>, Queue>,
    /// Databases that exist.
    known: HashSet<Box<str>>,
    /// Those databases in `queues` whose existence has to be checked.
    names: VecDeque<Box<str>>,
    /// Whether that is being found out.
    is_looking: bool,
    unknown: Recent,
    /// How many sessions were added since the last sweep, and how many lead to
    /// the next one.
    added: usize,
    sweep_at: usize,
}

#[derive(Default)]
struct Queue {
    lately: VecDeque<Pending>,
    /// By network; none where the address is unknown.
    strangers: HashMap<Option<IpAddr>, VecDeque<Pending>>,
    /// The keys of `strangers`, in turn.
    turns: VecDeque<Option<IpAddr>>,
    /// The pauses after questions that fail; none if the last one did not.
    pauses: Option<Backoff>,
}

struct Pending {
    session: Arc<Session>,
    rank: Rank,
    /// Closed when the answer is no longer wanted.
    answer: oneshot::Sender<Check>,
    since: Instant,
    /// Counts it as one that waits.
    _counted: Counted,
}

impl Checks {
    pub(crate) fn new(trytond: Arc<dyn Trytond>, metrics: Arc<Metrics>) -> Self {
        for check in Check::ALL {
            metrics.expect_session_check(check.label());
        }
        Self {
            trytond,
            metrics,
            suspects: Semaphore::new(SUSPECTS),
            state: Mutex::new(State {
                queues: HashMap::new(),
                known: HashSet::new(),
                names: VecDeque::new(),
                is_looking: false,
                unknown: Recent::new(UNKNOWN_TIME, UNKNOWN_MAX),
                added: 0,
                sweep_at: SWEEP_AT,
            }),
        }
    }

    /// Has a session checked. A check that can't be made now is made later;
    /// it is given up when the receiver is dropped.
    pub(crate) fn ask(
        self: &Arc<Self>,
        session: Arc<Session>,
        rank: Rank,
    ) -> oneshot::Receiver<Check> {
        let (answer, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.unknown.contains(&session.database, Instant::now()) {
            // The receiver is there.
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
            _counted: Counted::by(&self.metrics.checks_waiting),
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

    /// Has it found out whether the database of a queue exists.
    fn look_up(self: &Arc<Self>, state: &mut State, database: Box<str>) {
        state.names.push_back(database);
        if !state.is_looking {
            state.is_looking = true;
            tokio::spawn(self.clone().look());
        }
    }

    /// Looks for databases until all names are known or unknown.
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
            let results = {
                let _permit = if failed_before {
                    // It is never closed.
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
                        self.metrics.session_checked(check.label());
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
                // It may have been dropped.
                self.look_up(&mut lock(&self.state), database);
                return;
            }
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
        self.metrics.session_checked(check.label());
        let waited = pending.since.elapsed();
        self.metrics.check_seconds.observe(waited.as_secs_f64());
        // The client may have closed the connection.
        let _ = pending.answer.send(check);
    }
}

impl State {
    /// Names to be looked up, without the names that no session waits for.
    fn take_names(&mut self) -> Vec<Box<str>> {
        let mut names = Vec::new();
        while names.len() < NAMES
            && let Some(name) = self.names.pop_front()
        {
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
    fn make_room(&mut self) {
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

impl Queue {
    fn push(&mut self, pending: Pending) {
        if pending.rank == Rank::Lately {
            self.lately.push_back(pending);
            return;
        }
        let network = pending.session.address.as_deref().and_then(network);
        match self.strangers.entry(network) {
            Entry::Occupied(mut queue) => queue.get_mut().push_back(pending),
            Entry::Vacant(place) => {
                self.turns.push_back(network);
                place.insert(VecDeque::from([pending]));
            }
        }
    }

    /// Takes at most this number of sessions that are still wanted.
    fn take(&mut self, most: usize) -> Vec<Pending> {
        let mut batch = Vec::new();
        while batch.len() < most
            && let Some(pending) = self.pop()
        {
            if !pending.answer.is_closed() {
                batch.push(pending);
            }
        }
        batch
    }

    fn pop(&mut self) -> Option<Pending> {
        if let Some(pending) = self.lately.pop_front() {
            return Some(pending);
        }
        let network = self.turns.pop_front()?;
        let queue = self.strangers.get_mut(&network)?;
        let pending = queue.pop_front();
        if queue.is_empty() {
            self.strangers.remove(&network);
        } else {
            self.turns.push_back(network);
        }
        pending
    }

    fn is_wanted(&self) -> bool {
        self.all().any(|pending| !pending.answer.is_closed())
    }

    /// Drops the sessions that are not wanted; returns how many remain.
    fn sweep(&mut self) -> usize {
        let wanted = |pending: &Pending| !pending.answer.is_closed();
        self.lately.retain(wanted);
        self.strangers.retain(|_, queue| {
            queue.retain(wanted);
            !queue.is_empty()
        });
        let strangers = &self.strangers;
        self.turns.retain(|network| strangers.contains_key(network));
        self.all().count()
    }

    fn all(&self) -> impl Iterator<Item = &Pending> {
        self.lately.iter().chain(self.strangers.values().flatten())
    }

    fn into_all(self) -> impl Iterator<Item = Pending> {
        let strangers = self.strangers.into_values().flatten();
        self.lately.into_iter().chain(strangers)
    }
}

/// The address itself, or the first half of an IPv6 address, because a client
/// may have every address that begins with it.
fn network(address: &str) -> Option<IpAddr> {
    Some(match address.parse().ok()? {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    })
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::super::{Answered, Asked};
    use super::*;

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

        fn sessions(
            &self,
            _: &str,
            sessions: Vec<Arc<Session>>,
        ) -> Answered<Vec<Check>> {
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
            let metrics = Arc::new(Metrics::new());
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

    #[test]
    fn network_is_the_first_half_of_an_address_of_ipv6() {
        for (address, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::")),
            ("2001:db8:1:3::1", Some("2001:db8:1:3::")),
            ("nonsense", None),
        ] {
            let expected = expected.and_then(|text| text.parse().ok());
            assert_eq!(network(address), expected, "{address}");
        }
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
            let all: usize =
                state.queues.values().map(|queue| queue.all().count()).sum();
            assert!(all <= 2 * SWEEP_AT, "{all}");
            assert!(state.queues.len() <= 2 * SWEEP_AT);
            assert!(state.names.len() <= 2 * SWEEP_AT);
        }
        let _ = answer.send(vec![Check::Valid]);
        assert!(bench.is_quiet().await);
        assert!(lock(&bench.checks.state).queues.is_empty());
    }
}
