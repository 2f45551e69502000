//! One connection of HTTP/2, whose requests are answered at the same time.
//!
//! hyper has a task for each request, and drops it when the client cancels the
//! request. So there is nothing to watch while a poll waits.
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::body::{read_body, take};
use super::open::{ON_ITS_WAY, Open};
use super::streams::{Activity, Outgoing, Stream, Streams};
use crate::server::app::App;
use crate::server::config::Limits;
use crate::server::request::address::Peer;
use crate::server::request::received::{BodyError, Received};
use crate::server::wait::{Alarm, Caller, Socket};

/// The window: how much a client may send before it is read. It is the least
/// that the protocol allows, and enough for a usual body.
const WINDOW: u32 = (1 << 16) - 1;

/// How many bodies of the largest size may be held for a connection while their
/// sessions are unknown.
const BODIES: usize = 2;

/// A time that does not come.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// Serves a connection until its end.
pub(crate) async fn serve<S>(stream: S, peer: Peer, open: Open)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let app = open.app();
    let limits = &app.config.limits;
    let _watch = app.drain.watch().await;
    let streams = Arc::new(Streams::new());
    let room = limits.body_size.max(WINDOW as usize).saturating_mul(BODIES);
    let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
    let service = service_fn(|request| {
        let stream = Stream::new(streams.clone());
        answer(request, app.clone(), peer, stream, room.clone())
    });
    let mut connection =
        pin!(builder(limits).serve_connection(TokioIo::new(stream), service));
    // Connections that exist when the drain begins are told so at once, later
    // ones at its end. Clients told earlier would return to this server.
    let mut end = pin!(async {
        if let Some(end) = app.drain.end() {
            sleep_until(end).await;
        } else {
            poll_fn(|_| match app.drain.end() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            })
            .await;
        }
    });
    // Since when the client knows that no other request is taken.
    let mut told = None;
    // Whether another wants its place.
    let mut is_asked = false;
    let mut is_new = true;
    loop {
        let activity = streams.activity();
        let deadline = match (activity, told) {
            (Activity::Waiting, _) => Instant::now() + NEVER,
            (Activity::Writing(since), _) => since + limits.write_time,
            (Activity::Idle(since), told) if is_asked => {
                told.map_or(since, |told| since.max(told)) + ON_ITS_WAY
            }
            // A client that has sent nothing yet gets the time of a head to
            // begin.
            (Activity::Idle(since), None) if is_new => since + limits.header_time,
            (Activity::Idle(since), None) => since + limits.idle_time,
            (Activity::Idle(since), Some(told)) => {
                let until = since.max(told) + limits.header_time;
                let last = app.drain.last_request(since).filter(|_| !is_new);
                last.map_or(until, |last| last.min(until))
            }
        };
        let is_idle = matches!(activity, Activity::Idle(_));
        is_new &= is_idle;
        is_asked &= is_idle;
        // In this order, so that a request that has arrived is served.
        select! {
            biased;
            _ = connection.as_mut() => return,
            () = streams.changed.notified() => continue,
            () = app.crowded.notified(), if is_idle && !is_asked => {
                is_asked = true;
                continue;
            }
            () = &mut end, if told.is_none() => {}
            () = sleep_until(deadline) => {
                if told.is_some() || !is_idle {
                    return;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        told = Some(Instant::now());
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let most = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(most(limits.header_size))
        .max_concurrent_streams(most(limits.session_polls))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        // A peer that is dead does not close.
        .keep_alive_interval(limits.idle_time)
        .keep_alive_timeout(limits.write_time);
    builder
}

async fn answer(
    request: Request<Incoming>,
    app: Arc<App>,
    peer: Peer,
    stream: Stream,
    room: Arc<Semaphore>,
) -> Result<Response<Full<Outgoing>>, Infallible> {
    let _watch = app.drain.watch().await;
    let is_head = request.method() == Method::HEAD;
    let received = Box::pin(receive(request, &app.config.limits, &room)).await;
    let mut socket = Socket {
        stream: Unwatched,
        unread: Bytes::new(),
    };
    let timer = pin!(sleep(app.config.limits.header_time));
    let mut caller = Caller {
        socket: &mut socket,
        alarm: Alarm(timer),
        drain: &app.drain,
    };
    // Boxed, so that a poll that waits keeps nothing of it.
    let opened = Box::pin(app.open(&mut caller, received, peer)).await;
    let answer = match opened {
        Ok(poll) => app.wait(caller, poll).await,
        Err(answer) => answer,
    };
    let Some(answer) = answer else {
        // No client waits for the answer any more.
        return pending().await;
    };
    let content = answer.reply.content();
    let mut response = Response::new(());
    *response.status_mut() = answer.reply.status();
    *response.headers_mut() = answer.reply.headers(content.remaining());
    let content = if is_head {
        Bytes::new().chain(Bytes::new())
    } else {
        content
    };
    let content = stream.answer(content, answer.delivery, app.clone());
    Ok(response.map(|()| Full::new(content)))
}

/// Reads all of a request, for which there may be no room.
async fn receive(
    request: Request<Incoming>,
    limits: &Limits,
    room: &Arc<Semaphore>,
) -> Box<Received> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority();
    let host = authority.and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    if let Some(host) = host {
        parts.headers.insert(HOST, host);
    }
    let head = parts.headers.iter();
    let head = head.map(|(name, value)| name.as_str().len() + value.len());
    let Some(_head) = take(room, head.sum()) else {
        return Box::new(Received {
            parts,
            body: Err(BodyError::NoRoom),
            room: None,
        });
    };
    let mut room = take(room, 0);
    let body = read_body(&parts, body, limits, room.as_mut()).await;
    Box::new(Received { parts, body, room })
}

/// The socket of a poll that need not look at it.
struct Unwatched;

impl AsyncRead for Unwatched {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}
