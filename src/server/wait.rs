//! Waiting on behalf of a client that may disconnect meanwhile.
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::drain::Drain;

/// How a wait has ended.
#[derive(Debug)]
pub(crate) enum Waited<T> {
    /// The result is there.
    Done(T),
    /// The time has passed, or the server is about to stop.
    Timeout,
    /// The client has closed the connection.
    Gone,
}

/// The maximum number of bytes that are read from a client that waits. They are
/// kept, so the limit protects the memory. Beyond it the end of the connection
/// is noticed only when the poll is answered.
const MOST_UNREAD: usize = 4096;

/// A connection between two requests.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    pub(crate) stream: S,
    /// Data that was read and belongs to the next request.
    pub(crate) unread: Bytes,
}

/// The client of a request, until its answer is known.
#[derive(Debug)]
pub(crate) struct Caller<'a, S> {
    socket: &'a mut Socket<S>,
    timer: Timer<'a>,
    drain: &'a Drain,
}

impl<S: AsyncRead + Unpin> Socket<S> {
    /// Reads the next data, once data comes.
    pub(crate) fn poll_some(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // On the stack, because a connection that waits has no buffer.
        let mut space = [0; 2048];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.unread = [&self.unread, buffer.filled()].concat().into();
        Poll::Ready(Ok(()))
    }

    /// Ready once the client has closed the connection. A half-close counts,
    /// because no Tryton client half-closes and keeps reading.
    ///
    /// A client may have sent its next request already. It is read as well,
    /// because the end of the connection comes after it.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.unread.len() < MOST_UNREAD {
            if ready!(self.poll_some(context)).is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl<'a, S: AsyncRead + Unpin> Caller<'a, S> {
    /// The client at the other end of a connection, whose task watches `drain`.
    pub(crate) fn new(
        socket: &'a mut Socket<S>,
        timer: &'a mut Timer<'_>,
        drain: &'a Drain,
    ) -> Self {
        Self {
            socket,
            timer: timer.again(),
            drain,
        }
    }

    /// Waits for the result of `poll`, for at most `time`. `poll` may return a
    /// time at which it wants to be called again.
    ///
    /// Not an `async fn`, which would reserve space for each argument twice.
    pub(crate) fn wait<T>(
        &mut self,
        time: Duration,
        mut poll: impl FnMut(&mut Context<'_>) -> (Poll<T>, Option<Instant>),
    ) -> impl Future<Output = Waited<T>> {
        let mut waited_before = true;
        let mut deadline = Instant::now() + time;
        if let Some(end) = self.drain.end() {
            waited_before = false;
            deadline = deadline.min(end);
        }
        poll_fn(move |context| {
            loop {
                let (progress, again) = poll(context);
                if let Poll::Ready(done) = progress {
                    return Poll::Ready(Waited::Done(done));
                }
                if waited_before && self.drain.has_begun() {
                    waited_before = false;
                    let turn = self.drain.turn();
                    deadline = turn.map_or(deadline, |turn| turn.min(deadline));
                }
                if self.socket.poll_gone(context).is_ready() {
                    return Poll::Ready(Waited::Gone);
                }
                let next = again.map_or(deadline, |again| again.min(deadline));
                ready!(self.timer.poll(context, next));
                if next == deadline {
                    return Poll::Ready(Waited::Timeout);
                }
            }
        })
    }

    /// Waits for the result of `work`, for at most `time`.
    pub(crate) fn wait_for<T>(
        &mut self,
        time: Duration,
        mut work: impl Future<Output = T> + Unpin,
    ) -> impl Future<Output = Waited<T>> {
        self.wait(time, move |context| {
            (Pin::new(&mut work).poll(context), None)
        })
    }
}

/// The one timer of a connection.
///
/// It is not reset for each wait, because an early wake-up now and then costs
/// less. If a later time is asked for, the timer is reset when it fires.
#[derive(Debug)]
pub(crate) struct Timer<'a>(pub(crate) Pin<&'a mut Sleep>);

impl Timer<'_> {
    /// The same timer, for another wait.
    pub(crate) fn again(&mut self) -> Timer<'_> {
        Timer(self.0.as_mut())
    }

    /// Ready at `deadline`.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        deadline: Instant,
    ) -> Poll<()> {
        if self.0.deadline() > deadline {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(context));
            if self.0.deadline() == deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}
