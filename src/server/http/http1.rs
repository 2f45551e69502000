//! One connection, whose requests are answered one after the other.
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::time::{Instant, sleep, timeout};

use super::open::{ON_ITS_WAY, Open};
use super::park::receive;
use super::wire::Reuse;
use crate::server::app::{Answer, App};
use crate::server::request::address::Peer;
use crate::server::wait::{Caller, Socket, Timer};

/// How much is read from a client that was refused before it had sent
/// everything. If a socket is closed with unread data, the written answer is
/// lost.
const LINGER_BYTES: u64 = 1 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The bytes of an answer that a client has to take within each
/// `write_timeout`.
const PART: usize = 16 * 1024;

/// Serves a connection until its end.
///
/// Not an `async fn`, which would have room for each argument twice.
pub(crate) fn serve<S>(stream: S, peer: Peer, open: Open) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = Socket {
        stream,
        unread: Bytes::new(),
    };
    async move {
        let app = open.app();
        let _watch = app.drain.watch().await;
        let timer = pin!(sleep(app.config.limits.header_timeout));
        let mut timer = Timer(timer);
        let mut is_first = true;
        loop {
            if !has_request(&mut socket, timer.again(), app, is_first).await {
                return;
            }
            is_first = false;
            let received = {
                // Boxed, so that hyper's part of the task is freed with its
                // buffers.
                let received = Box::pin(receive(socket, &app.config.limits)).await;
                socket = received.0;
                received.1
            };
            let received = match received {
                Ok(received) => received,
                Err(refused) => {
                    if let Some(status) = refused {
                        app.metrics.answered(status);
                    }
                    Box::pin(linger(&mut socket.stream)).await;
                    return;
                }
            };
            let mut reuse = Reuse::of(&received.parts);
            let is_whole = received.body.is_ok();
            reuse.close |= !received.is_over();
            let opened = {
                // Boxed as well, so that a poll that waits keeps nothing of it.
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
                return;
            };
            reuse.close |= answer.closes || app.drain.has_begun();
            // Boxed as well, because a waiting connection needs no space for
            // writing.
            let written = Box::pin(write(&mut socket, answer, reuse, app)).await;
            let Ok(()) = written else {
                return;
            };
            if reuse.close {
                if !is_whole || !socket.unread.is_empty() {
                    Box::pin(linger(&mut socket.stream)).await;
                }
                return;
            }
        }
    }
}

/// Waits for the next request to begin; whether it does.
async fn has_request<S>(
    socket: &mut Socket<S>,
    mut timer: Timer<'_>,
    app: &App,
    is_first: bool,
) -> bool
where
    S: AsyncRead + Unpin,
{
    if !socket.unread.is_empty() {
        return true;
    }
    let begun = Instant::now();
    let until = || {
        let limits = &app.config.limits;
        if is_first {
            // A client that has sent nothing yet gets `header_timeout`, also
            // during the drain, because it has connected to send a request.
            return begun + limits.header_timeout;
        }
        let until = begun + limits.idle_timeout;
        let last = app.drain.last_request(begun);
        last.map_or(until, |last| last.min(until))
    };
    let mut read = poll_fn(|context| socket.poll_some(context));
    // In this order, so that a request that has arrived is served.
    select! {
        biased;
        read = &mut read => return read.is_ok(),
        () = poll_fn(|context| timer.poll(context, until())) => return false,
        () = app.crowded.notified() => {}
    }
    let until = begun + ON_ITS_WAY;
    select! {
        biased;
        read = read => read.is_ok(),
        () = poll_fn(|context| timer.poll(context, until)) => false,
    }
}

async fn write<S: AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    answer: Box<Answer>,
    reuse: Reuse,
    app: &App,
) -> io::Result<()> {
    let time = app.config.limits.write_timeout;
    let Answer {
        reply, delivery, ..
    } = *answer;
    let mut wire = reuse.wire(&reply);
    // A message must not be kept in memory for a client that does not read.
    drop(reply);
    let stream = &mut socket.stream;
    let write = async {
        // A slow client has the time for each part of a large message.
        while wire.has_remaining() {
            let rest = wire.remaining().saturating_sub(PART);
            let part = async {
                while wire.remaining() > rest {
                    if stream.write_buf(&mut wire).await? == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                }
                Ok(())
            };
            within(time, part).await?;
        }
        within(time, stream.flush()).await?;
        if reuse.close {
            within(time, stream.shutdown()).await?;
        }
        Ok::<_, io::Error>(())
    };
    write.await?;
    delivery.done(app);
    Ok(())
}

/// The result of a future within `time`, otherwise an error.
async fn within<T>(
    time: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let timeout = timeout(time, work).await;
    timeout.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads the rest of the client's data, for a short while.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let rest = async {
        // The copy below ends when the client closes the connection.
        let _ = stream.shutdown().await;
        let mut rest = stream.take(LINGER_BYTES);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    };
    let _ = timeout(LINGER_TIME, rest).await;
}
