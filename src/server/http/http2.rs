//! One connection of HTTP/2, whose requests are answered at the same time.
//!
//! hyper has a task for each request, and drops it when the client cancels the
//! request. So there is nothing to watch while a poll waits.
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

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
use tokio::time::{sleep, sleep_until};

use super::body::{read_body, take};
use super::lifetime::Lifetime;
use super::open::Open;
use super::streams::{Activity, Outgoing, Stream, Streams};
use crate::server::app::App;
use crate::server::config::Limits;
use crate::server::request::address::Peer;
use crate::server::request::received::{BodyError, Received};
use crate::server::wait::{Caller, Socket, Timer};

/// The window: how much a client may send before it is read. It is the least
/// that the protocol allows, and enough for a usual body.
const WINDOW: u32 = (1 << 16) - 1;

/// How many bodies of the largest size may be held for a connection while their
/// sessions are unknown.
const BODIES: usize = 2;

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
    let mut end = pin!(app.drain.farewell());
    let mut lifetime = Lifetime::new(limits, &app.drain);
    loop {
        let activity = streams.activity();
        let deadline = lifetime.deadline(activity);
        // In this order, so that a request that has arrived is served.
        select! {
            biased;
            _ = connection.as_mut() => return,
            () = streams.changed.notified() => continue,
            () = app.crowded.notified(), if lifetime.may_leave(activity) => {
                lifetime.ask();
                continue;
            }
            () = &mut end, if !lifetime.is_told() => {}
            () = sleep_until(deadline) => {
                let is_idle = matches!(activity, Activity::Idle(_));
                if lifetime.is_told() || !is_idle {
                    return;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        lifetime.tell();
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
        // A dead peer never closes the connection.
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.write_timeout);
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
    let timer = pin!(sleep(app.config.limits.header_timeout));
    let mut timer = Timer(timer);
    let opened = {
        // Boxed, so that a poll that waits keeps nothing of it.
        let caller = Caller::new(&mut socket, &mut timer, &app.drain);
        Box::pin(app.open(caller, received, peer)).await
    };
    let answer = match opened {
        Ok(poll) => {
            let caller = Caller::new(&mut socket, &mut timer, &app.drain);
            app.wait(caller, poll).await
        }
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

/// Reads a whole request, if the connection has room for it.
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
