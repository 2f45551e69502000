//! HTTP by hyper, without hyper while a poll waits.
//!
//! hyper keeps about 10 KB of buffers for a connection, even one that waits. So
//! it is used only to read a request. Once it has one, the connection is taken
//! out of it and the buffers are freed. Answers are written without hyper, and
//! it gets the connection back with the next request.
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::read_body;
use crate::server::config::Limits;
use crate::server::request::received::Received;
use crate::server::wait::Socket;
use crate::sync::{Mutex, lock};

/// The state that hyper shares with the task that drives it.
#[derive(Debug, Default)]
struct Handover {
    /// Put here once it was read.
    received: Mutex<Option<Box<Received>>>,
    /// Whether hyper has written all its output, such as `100 Continue`.
    /// Unwritten output would be lost with hyper.
    flushed: AtomicBool,
}

/// The stream as hyper sees it. It notes whether hyper has flushed its output.
struct Tapped<S> {
    socket: Socket<S>,
    handover: Arc<Handover>,
}

/// Reads a request. Otherwise the connection is over, because it has ended, or
/// because the input is no request and hyper has answered with the returned
/// status.
///
/// That answer has no headers for browsers, because the request's origin is
/// unknown.
pub(crate) async fn receive<S>(
    socket: Socket<S>,
    limits: &Limits,
) -> (Socket<S>, Result<Box<Received>, Option<StatusCode>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handover = Arc::new(Handover::default());
    let stream = Tapped {
        socket,
        handover: handover.clone(),
    };
    let service = service_fn(|request| park(request, &handover, limits));
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_size.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    let received = poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(Err(ended.err().and_then(|error| refused(&error))));
        }
        if !handover.flushed.load(Ordering::Relaxed) {
            // hyper waits until the socket takes the rest.
            return Poll::Pending;
        }
        let received = lock(&handover.received).take();
        received.map_or(Poll::Pending, |received| Poll::Ready(Ok(received)))
    })
    .await;
    let parts = connection.into_parts();
    let mut socket = parts.io.into_inner().socket;
    // Copied, because hyper's own slice shares its whole buffer. The bytes that
    // hyper has not yet taken come after those it has.
    socket.unread = [parts.read_buf, socket.unread].concat().into();
    (socket, received)
}

/// hyper's answer to input that it can't read.
fn refused(error: &hyper::Error) -> Option<StatusCode> {
    if error.is_parse_too_large() {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else {
        // A client that begins with HTTP/2 gets no answer.
        let answered = error.is_parse() && !error.is_parse_version_h2();
        answered.then_some(StatusCode::BAD_REQUEST)
    }
}

/// The service: it reads the body. The task that drives hyper writes the
/// answer.
async fn park(
    request: Request<Incoming>,
    handover: &Handover,
    limits: &Limits,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // A connection has one request at a time.
    let body = read_body(&parts, body, limits, None).await;
    // Only output that hyper flushes from here on counts.
    handover.flushed.store(false, Ordering::Relaxed);
    *lock(&handover.received) = Some(Box::new(Received {
        parts,
        body,
        room: None,
    }));
    pending().await
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unread = &mut self.socket.unread;
        if unread.is_empty() {
            return Pin::new(&mut self.socket.stream).poll_read(context, to);
        }
        let length = unread.len().min(to.remaining());
        to.put_slice(&unread[..length]);
        unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.handover.flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.socket.stream).poll_write(context, data)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // hyper comes here only after it has written all its buffer.
        ready!(Pin::new(&mut self.socket.stream).poll_flush(context))?;
        self.handover.flushed.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.handover.flushed.store(false, Ordering::Relaxed);
        Pin::new(&mut self.socket.stream).poll_write_vectored(context, data)
    }
}
