//! A stream that the test lets take a byte at a time.
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::sync::{Mutex, lock};

/// Whether the server may write, and the waker of the task that waits for that;
/// none without a gate.
pub(super) type Gate = Arc<Mutex<Option<(bool, Option<Waker>)>>>;

/// A stream that takes nothing while its gate is closed, and then a byte at
/// a time.
pub(super) struct Gated {
    pub(super) stream: DuplexStream,
    pub(super) gate: Gate,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = match &mut *lock(&self.gate) {
            None => data.len(),
            Some((true, _)) => data.len().min(1),
            Some((false, waker)) => {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        let written =
            ready!(Pin::new(&mut self.stream).poll_write(context, &data[..length]));
        Poll::Ready(written)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
