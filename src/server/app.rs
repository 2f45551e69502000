//! How a request is answered.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll as Progress};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Version};
use tokio::io::AsyncRead;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::config::Config;
use super::drain::Drain;
use super::metrics::{Ended, Metrics};
use super::polls::database::{Databases, Place};
use super::polls::outcome::Outcome;
use super::request::address::{self, Peer};
use super::request::cors::{self, Origin};
use super::request::credential::credential;
use super::request::question::Question;
use super::request::received::Received;
use super::request::reply::{Body, Refusal, Reply};
use super::request::route;
use super::trytond::rights::Rights;
use super::trytond::sessions::{Admission, Known, SessionCache};
use super::trytond::{Check, Session, Trytond};
use super::wait::{Alarm, Socket, Waited};
use crate::registry::Process;

/// The server, for all its connections.
#[derive(Debug)]
pub(super) struct App {
    pub(super) config: Config,
    pub(super) databases: Databases,
    pub(super) sessions: Arc<SessionCache>,
    /// None where any chat may be followed.
    pub(super) rights: Option<Rights>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
    /// Tells the connection that is without a request for longest to close.
    pub(super) crowded: Notify,
    /// How many polls wait.
    pub(super) polls: AtomicUsize,
}

/// The answer to a poll, and the place that is given up after the answer is
/// written.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) place: Option<Place>,
    /// When the message arrived, if the poll waited for it.
    pub(super) arrived: Option<f64>,
    /// Whether the client is to continue over another connection.
    pub(super) closes: bool,
}

/// A poll that waits: its place, and the facts about its request.
pub(super) struct Opened<'a> {
    origin: Origin,
    place: Place,
    counted: Counted<'a>,
    /// Whether a page of a browser has sent it.
    is_page: bool,
}

/// A poll that is counted for the server and for its session, until this is
/// dropped.
struct Counted<'a>(&'a App, Admission);

/// A poll above `max_polls`, as long as it is held.
struct Held<'a>(&'a App);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.metrics.held.dec();
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.polls.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.polls.dec();
    }
}

const UNAUTHORIZED: Refusal =
    Refusal::new(StatusCode::UNAUTHORIZED, "there is no valid session");
const NOT_FOUND: Refusal = Refusal::new(StatusCode::NOT_FOUND, "there is no such bus");
const TOO_MANY: Refusal = Refusal::new(
    StatusCode::TOO_MANY_REQUESTS,
    "too many polls of this session wait",
);

impl App {
    /// A server of the buses of `process`, without a connection.
    pub(super) fn new(
        config: Config,
        trytond: Arc<dyn Trytond>,
        process: Arc<Process>,
    ) -> Self {
        let metrics = Arc::new(Metrics::of(&config));
        let rights = config.check_access.then(|| {
            let (process, trytond) = (process.clone(), trytond.clone());
            Rights::new(process, trytond, config.session_cache)
        });
        Self {
            rights,
            databases: Databases::new(
                process,
                config.history,
                config.limits.session_polls,
                trytond.clone(),
            ),
            sessions: Arc::new(SessionCache::new(
                trytond,
                config.session_cache,
                config.limits.session_polls,
                metrics.clone(),
            )),
            metrics,
            drain: Drain::default(),
            crowded: Notify::new(),
            polls: AtomicUsize::new(0),
            config,
        }
    }

    /// Gives a poll its place. Otherwise returns its answer, or none when the
    /// client has closed the connection.
    pub(super) async fn open<S: AsyncRead + Unpin>(
        &self,
        socket: &mut Socket<S>,
        mut alarm: Alarm<'_>,
        mut received: Box<Received>,
        peer: Peer,
    ) -> Result<Box<Opened<'_>>, Option<Box<Answer>>> {
        let proxies = self.config.num_proxies;
        let headers = &received.parts.headers;
        let origin = cors::origin(headers, &self.config.cors, proxies);
        let (session, mut body) = match self.read(&received, peer, &origin) {
            Ok(read) => read,
            Err(body) => return Err(Answer::boxed(origin, body)),
        };
        let is_page = is_page(&received.parts.headers);
        let room = received.room.take();
        let known = self.sessions.known(&session);
        if let Known::No = known {
            body = Bytes::copy_from_slice(&body);
        }
        // Freed before the session check, because thousands may wait at once
        // and the request shares hyper's read buffer.
        drop(received);
        let admitted = match known {
            Known::Admitted(admission) => Waited::Done(Ok(admission)),
            Known::TooMany => Waited::Done(Err(TOO_MANY)),
            Known::Refused => Waited::Done(Err(unauthorized(is_page))),
            Known::No => self.admit(socket, alarm.again(), &session, is_page).await,
        };
        let admission = match admitted {
            Waited::Gone => return Err(None),
            Waited::Timeout => return Err(Answer::boxed(origin, Body::Empty)),
            Waited::Done(Err(refusal)) => {
                return Err(Answer::boxed(origin, Body::Error(refusal)));
            }
            Waited::Done(Ok(admission)) => admission,
        };
        // Parsed only now, so that the body of an unauthenticated client costs
        // its bytes and no more.
        let question = Question::read(&body, session.user, &self.config.limits);
        drop((body, room));
        let mut question = match question {
            Ok(question) => question,
            Err(text) => {
                let refusal = Refusal::new(StatusCode::BAD_REQUEST, text);
                return Err(Answer::boxed(origin, Body::Error(refusal)));
            }
        };
        let counted = self.count(admission);
        match self
            .restrict(socket, alarm.again(), &session, &mut question.poll)
            .await
        {
            Waited::Gone => return Err(None),
            Waited::Timeout => return Err(Answer::boxed(origin, Body::Empty)),
            Waited::Done(()) => {}
        }
        let database = self.databases.get(&session.database);
        let user = session.user;
        drop(session);
        let counted = match counted {
            Ok(counted) => counted,
            Err(admission) => {
                let enter = || {
                    let Question { poll, last } = question.clone();
                    database
                        .clone()
                        .enter(user, poll, last, self.databases.now())
                };
                let held = self.hold(socket, alarm, origin, is_page, admission, enter);
                return Err(Box::pin(held).await);
            }
        };
        let (Question { poll, last }, now) = (question, self.databases.now());
        let place = database.enter(user, poll, last, now);
        Ok(Box::new(Opened {
            origin,
            place,
            counted,
            is_page,
        }))
    }

    /// Counts a poll, if there is room for one that waits.
    fn count(&self, admission: Admission) -> Result<Counted<'_>, Admission> {
        let most = self.config.limits.max_polls;
        let more = |polls| (polls < most).then_some(polls + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.polls.fetch_update(set, fetch, more).is_err() {
            return Err(admission);
        }
        self.metrics.polls.inc();
        Ok(Counted(self, admission))
    }

    /// Holds a poll above `max_polls`. It gets a message that is ready when it
    /// arrives or `hold_time` later, but does not wait for one. So its client
    /// gets each message within `hold_time`, and takes no place from other
    /// clients.
    async fn hold<S: AsyncRead + Unpin>(
        &self,
        socket: &mut Socket<S>,
        mut alarm: Alarm<'_>,
        origin: Origin,
        is_page: bool,
        mut admission: Admission,
        enter: impl Fn() -> Place,
    ) -> Option<Box<Answer>> {
        self.metrics.held.inc();
        let _held = Held(self);
        let time = self.config.limits.hold_time;
        for waits in [Duration::ZERO, time] {
            let mut ends = |context: &mut Context<'_>| {
                let ends = admission.is_ended(context);
                (
                    if ends {
                        Progress::Ready(())
                    } else {
                        Progress::Pending
                    },
                    None,
                )
            };
            match socket
                .wait(alarm.again(), &self.drain, waits, &mut ends)
                .await
            {
                Waited::Timeout => {}
                Waited::Gone => return None,
                Waited::Done(()) => {
                    let refusal = Body::Error(unauthorized(is_page));
                    return Answer::boxed(origin, refusal);
                }
            }
            let mut place = enter();
            let begun = self.databases.now();
            let look = |context: &mut Context<'_>| (place.glance(context, begun), None);
            match socket.wait(alarm.again(), &self.drain, time, look).await {
                Waited::Gone => return None,
                Waited::Done(Some(outcome)) => {
                    let answer = self.answer_with(origin, place, outcome, begun);
                    return Some(Box::new(answer));
                }
                Waited::Done(None) | Waited::Timeout => {}
            }
        }
        let mut answer = Answer::boxed(origin, Body::Empty)?;
        // Another connection may come to a server that has room for it.
        answer.closes = true;
        Some(answer)
    }

    /// Waits for the answer to the poll; none when the client has closed the
    /// connection. Only this future is alive meanwhile, so its size is the cost
    /// of a waiting client.
    ///
    /// Not an `async fn`, which would reserve space for each argument twice.
    #[expect(clippy::boxed_local, reason = "unboxed the caller has room for it")]
    pub(super) fn wait<'a, S: AsyncRead + Unpin>(
        &'a self,
        socket: &'a mut Socket<S>,
        alarm: Alarm<'a>,
        opened: Box<Opened<'a>>,
    ) -> impl Future<Output = Option<Box<Answer>>> {
        let begun = self.databases.now();
        let Opened {
            origin,
            mut place,
            mut counted,
            is_page,
        } = *opened;
        async move {
            let time = self.config.long_polling_timeout;
            let look = |context: &mut Context<'_>| {
                if counted.1.is_ended(context) {
                    return (Progress::Ready(None), None);
                }
                let now = self.databases.now();
                let progress = place.poll(context, now).map(Some);
                let again = place.until().map(|until| instant(until - now));
                (progress, again)
            };
            let waited = socket.wait(alarm, &self.drain, time, look).await;
            drop(counted);
            self.metrics.ended(match &waited {
                Waited::Gone => Ended::ClientGone(self.databases.now() - begun),
                Waited::Timeout if self.drain.has_begun() => Ended::Drain,
                Waited::Timeout => Ended::Timeout,
                Waited::Done(None) => Ended::Session,
                Waited::Done(Some(Outcome::Empty)) => Ended::Superseded,
                Waited::Done(Some(Outcome::Message(_))) => Ended::Message,
            });
            match waited {
                Waited::Gone => None,
                Waited::Timeout => {
                    // It must not be given a message any more.
                    drop(place);
                    Answer::boxed(origin, Body::Empty)
                }
                Waited::Done(None) => {
                    drop(place);
                    Answer::boxed(origin, Body::Error(unauthorized(is_page)))
                }
                Waited::Done(Some(outcome)) => {
                    let answer = self.answer_with(origin, place, outcome, begun);
                    Some(Box::new(answer))
                }
            }
        }
    }

    fn answer_with(
        &self,
        origin: Origin,
        place: Place,
        outcome: Outcome,
        begun: f64,
    ) -> Answer {
        let mut arrived = None;
        let body = match outcome {
            Outcome::Empty => Body::Empty,
            Outcome::Message(message) => {
                arrived = Some(message.arrived()).filter(|arrived| *arrived >= begun);
                let relay = place.asked().relay(&message);
                let channel = relay.filter(|_| self.config.relay_user);
                let channel = channel.map(Into::into);
                Body::Message(message, channel)
            }
        };
        Answer {
            reply: Reply { origin, body },
            place: Some(place),
            arrived,
            closes: false,
        }
    }

    /// Has trytond check a session that is not cached.
    async fn admit<S: AsyncRead + Unpin>(
        &self,
        socket: &mut Socket<S>,
        alarm: Alarm<'_>,
        session: &Arc<Session>,
        is_page: bool,
    ) -> Waited<Result<Admission, Refusal>> {
        let time = self.config.limits.hold_time;
        // An undecided check ends without an error, because an error would make
        // the client back off for longer each time.
        let mut asking = Box::pin(self.sessions.check(session));
        let check = socket
            .wait(alarm, &self.drain, time, |context: &mut Context<'_>| {
                (asking.as_mut().poll(context), None)
            })
            .await;
        match check {
            Waited::Done(Check::Valid) => {
                let admission = self.sessions.admit(session);
                Waited::Done(admission.ok_or(TOO_MANY))
            }
            Waited::Done(Check::Invalid) => Waited::Done(Err(unauthorized(is_page))),
            Waited::Done(Check::UnknownDatabase) => Waited::Done(Err(NOT_FOUND)),
            Waited::Done(Check::Failed) | Waited::Timeout => Waited::Timeout,
            Waited::Gone => Waited::Gone,
        }
    }

    /// The session and the body of a request, or the answer that refuses it.
    fn read(
        &self,
        received: &Received,
        peer: Peer,
        origin: &Origin,
    ) -> Result<(Arc<Session>, Bytes), Body> {
        let Received { parts, body, .. } = received;
        let database = self.route(parts, origin)?;
        let body = body
            .as_ref()
            .map_err(|error| Body::Error(error.refusal()))?;
        if !is_json(&parts.headers) {
            let refusal = Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            );
            return Err(Body::Error(refusal));
        }
        let credential = credential(&parts.headers)
            .ok_or_else(|| Body::Error(unauthorized(is_page(&parts.headers))))?;
        let client = address::client(peer, &parts.headers, self.config.num_proxies);
        let session = Session {
            database: database.into(),
            user: credential.user,
            token: credential.token,
            address: client.address,
            is_local: client.is_local,
        };
        Ok((Arc::new(session), body.clone()))
    }

    /// The database whose bus a request polls, or the answer that refuses it.
    fn route(&self, parts: &Parts, origin: &Origin) -> Result<String, Body> {
        let refuse = |refusal| Err(Body::Error(refusal));
        let hosts = parts.headers.get_all(HOST).iter().count();
        if hosts > 1 || (parts.version >= Version::HTTP_11 && hosts == 0) {
            let text = "there must be one Host header";
            return refuse(Refusal::new(StatusCode::BAD_REQUEST, text));
        }
        let Some(database) = route::database(parts.uri.path()) else {
            return refuse(NOT_FOUND);
        };
        let is_preflight = parts.method == Method::OPTIONS;
        if parts.method != Method::POST && !is_preflight {
            return refuse(Refusal {
                header: Some(("allow", "OPTIONS, POST")),
                ..Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "a bus is polled by POST",
                )
            });
        }
        if *origin == Origin::Refused {
            return refuse(Refusal::new(
                StatusCode::FORBIDDEN,
                "this origin may not poll",
            ));
        }
        if is_preflight {
            let asked = parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
            let asked = asked.and_then(|asked| asked.to_str().ok());
            return Err(Body::Preflight(asked.map(Into::into)));
        }
        if !self.config.allow_subscribe {
            return refuse(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                "this server has no bus",
            ));
        }
        Ok(database)
    }
}

impl Answer {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "none means that the client closed the connection"
    )]
    fn boxed(origin: Origin, body: Body) -> Option<Box<Self>> {
        Some(Box::new(Self {
            reply: Reply { origin, body },
            place: None,
            arrived: None,
            closes: false,
        }))
    }
}

/// Whether a page of a browser has sent the request.
fn is_page(headers: &HeaderMap) -> bool {
    headers.contains_key("origin") || headers.contains_key("x-requested-with")
}

/// Browsers ask for a password where a challenge comes to a page, and the
/// page never gets the answer.
fn unauthorized(is_page: bool) -> Refusal {
    Refusal {
        header: (!is_page).then_some(("www-authenticate", "Basic realm=\"Tryton\"")),
        ..UNAUTHORIZED
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

/// The moment `seconds` from now.
fn instant(seconds: f64) -> Instant {
    Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
