//! Turns a request into a poll that may wait.
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::io::AsyncRead;
use tokio::sync::SemaphorePermit;

use super::{Answer, App};
use crate::poll::Poll;
use crate::server::polls::registration::Registration;
use crate::server::request::address::Peer;
use crate::server::request::cors::Browser;
use crate::server::request::poll_request::PollRequest;
use crate::server::request::received::Received;
use crate::server::request::refusal::Refusal;
use crate::server::request::reply::Body;
use crate::server::trytond::sessions::{Admission, Cached};
use crate::server::trytond::{Check, Session};
use crate::server::wait::{Caller, Waited};

/// A poll that may wait.
pub(crate) struct OpenPoll<'a> {
    pub(super) browser: Browser,
    pub(super) registration: Registration,
    pub(super) admission: Admission,
    /// Counts the poll as waiting.
    pub(super) permit: SemaphorePermit<'a>,
}

/// The end of a request without a wait.
enum End {
    /// The request gets this answer.
    Answered(Body),
    /// The client has closed the connection.
    Gone,
}

impl App {
    /// Registers a poll. Otherwise returns its answer, or none when the client
    /// has closed the connection.
    pub(crate) async fn open<S: AsyncRead + Unpin>(
        &self,
        mut caller: Caller<'_, S>,
        received: Box<Received>,
        peer: Peer,
    ) -> Result<Box<OpenPoll<'_>>, Option<Box<Answer>>> {
        let browser = Browser::of(&received.parts.headers, &self.config);
        let admitted = self.admit(&mut caller, received, peer, &browser).await;
        let (session, mut request, admission) = match admitted {
            Ok(admitted) => admitted,
            Err(end) => return Err(end.answer(browser)),
        };
        let permit = self.polls.try_acquire().ok();
        let restricted = self
            .restrict(&mut caller, &session, &mut request.poll)
            .await;
        if let Err(end) = restricted {
            return Err(end.answer(browser));
        }
        let database = self.databases.get(&session.database);
        let user = session.user;
        drop(session);
        let register = |request| {
            Registration::new(database.clone(), user, request, self.databases.now())
        };
        let Some(permit) = permit else {
            let register = || register(request.clone());
            let held = self.hold(&mut caller, browser, admission, register);
            return Err(Box::pin(held).await);
        };
        Ok(Box::new(OpenPoll {
            browser,
            registration: register(request),
            admission,
            permit,
        }))
    }

    /// The session of a poll, and its request; the poll is counted for the
    /// session.
    async fn admit<S: AsyncRead + Unpin>(
        &self,
        caller: &mut Caller<'_, S>,
        mut received: Box<Received>,
        peer: Peer,
        browser: &Browser,
    ) -> Result<(Arc<Session>, PollRequest, Admission), End> {
        let (session, mut body) = received.poll(peer, browser, &self.config)?;
        let _room = received.room.take();
        let cached = self.sessions.cached(&session);
        if let Cached::No = cached {
            body = Bytes::copy_from_slice(&body);
        }
        // Freed before the session check, because thousands may wait at once
        // and the request shares hyper's read buffer.
        drop(received);
        let admission = match cached {
            Cached::Admitted(admission) => admission,
            Cached::TooMany => return Err(Refusal::TOO_MANY_POLLS.into()),
            Cached::Refused => return Err(Refusal::UNAUTHORIZED.into()),
            Cached::No => self.check(caller, &session).await?,
        };
        // Parsed only now, so that the body of an unauthenticated client costs
        // its bytes and no more.
        let request = PollRequest::read(&body, session.user, &self.config.limits)
            .map_err(|text| Refusal::new(StatusCode::BAD_REQUEST, text))?;
        Ok((session, request, admission))
    }

    /// Lets trytond check a session that is not cached.
    async fn check<S: AsyncRead + Unpin>(
        &self,
        caller: &mut Caller<'_, S>,
        session: &Arc<Session>,
    ) -> Result<Admission, End> {
        let time = self.config.limits.hold_time;
        let check = Box::pin(self.sessions.check(session));
        match caller.wait_for(time, check).await.done()? {
            Check::Valid => {
                let admission = self.sessions.admit(session);
                Ok(admission.ok_or(Refusal::TOO_MANY_POLLS)?)
            }
            Check::Invalid => Err(Refusal::UNAUTHORIZED.into()),
            Check::UnknownDatabase => Err(Refusal::NOT_FOUND.into()),
            Check::Failed => Err(End::UNDECIDED),
        }
    }

    /// Drops the chats that the user may not follow, once that is known.
    async fn restrict<S: AsyncRead + Unpin>(
        &self,
        caller: &mut Caller<'_, S>,
        session: &Session,
        poll: &mut Poll,
    ) -> Result<(), End> {
        let rights = self.rights.as_ref();
        let Some(rights) = rights.filter(|_| poll.chats().next().is_some()) else {
            return Ok(());
        };
        let (mut readable, unknown) = rights.cached(session, poll);
        if !unknown.is_empty() {
            let time = self.config.limits.hold_time;
            let asking = Box::pin(rights.ask(session, unknown));
            readable.extend(caller.wait_for(time, asking).await.done()?);
        }
        poll.keep_chats(readable);
        Ok(())
    }
}

impl End {
    /// trytond can't tell now. The answer is no error, because an error would
    /// make the client back off for longer each time.
    const UNDECIDED: Self = Self::Answered(Body::Empty);

    fn answer(self, browser: Browser) -> Option<Box<Answer>> {
        match self {
            Self::Answered(body) => Some(Box::new(Answer::new(browser, body))),
            Self::Gone => None,
        }
    }
}

impl From<Body> for End {
    fn from(body: Body) -> Self {
        Self::Answered(body)
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Answered(refusal.into())
    }
}

impl<T> Waited<T> {
    fn done(self) -> Result<T, End> {
        match self {
            Self::Done(done) => Ok(done),
            Self::Timeout => Err(End::UNDECIDED),
            Self::Gone => Err(End::Gone),
        }
    }
}
