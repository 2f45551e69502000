//! Accepts connections.
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::acceptor::{Accepted, Acceptor};
use super::handshake::handshake;
use crate::server::app::App;
use crate::server::http::http1;
use crate::server::http::open::Open;
use crate::server::request::address::Peer;

/// The pause after a failure to accept, such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a failure is logged that lasts until connections close.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How often an idle connection is asked for its place.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Accepts connections. Each takes one of the places. While no place is free,
/// further connections wait in the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Accept {
    pub(crate) app: Arc<App>,
    pub(crate) places: Arc<Semaphore>,
    /// Its sender is dropped when no more connections are to be accepted.
    pub(crate) over: watch::Receiver<()>,
}

impl Accept {
    /// Accepts all connections of a socket, and at the end those that still wait
    /// in the kernel.
    pub(crate) async fn run(mut self, acceptor: Acceptor) {
        let mut logged = None;
        while let Some((accepted, open)) = self.next(&acceptor, &mut logged).await {
            let (stream, peer) = match accepted {
                Accepted::Tcp(stream, address) => (stream, Peer::Host(address)),
                Accepted::Unix(stream) => {
                    tokio::spawn(http1::serve(stream, Peer::Local, open));
                    continue;
                }
            };
            // Without it an answer waits for the client's acknowledgement of
            // the one before. A socket that refuses works as well.
            let _ = stream.set_nodelay(true);
            match &self.app.config.tls {
                None => tokio::spawn(http1::serve(stream, peer, open)),
                Some(tls) => {
                    tokio::spawn(handshake(stream, tls.acceptor(), peer, open))
                }
            };
        }
    }

    /// The next connection, or none after the end. `logged` is when the last
    /// failure was logged.
    async fn next(
        &mut self,
        acceptor: &Acceptor,
        logged: &mut Option<Instant>,
    ) -> Option<(Accepted, Open)> {
        loop {
            let next = async {
                let place = place(&self.app, &self.places).await;
                (acceptor.accept().await, place)
            };
            // In this order, so that a client that connected before the end is
            // served.
            let (accepted, place) = select! {
                biased;
                next = next => next,
                _ = self.over.changed() => return None,
            };
            match accepted {
                Ok(accepted) => return Some((accepted, Open::new(&self.app, place))),
                Err(_) if self.over.has_changed().is_err() => return None,
                Err(error) => failed(&error, logged).await,
            }
        }
    }
}

/// Waits for a place, and asks a connection without a request for its own.
async fn place(app: &App, places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return place;
    }
    let mut place = pin!(places.clone().acquire_owned());
    loop {
        // A connection that was asked to close may already have received a
        // request.
        app.crowded.notify_one();
        select! {
            place = &mut place => {
                return place.expect("the semaphore is never closed");
            }
            () = sleep(ASK_EVERY) => {}
        }
    }
}

async fn failed(error: &io::Error, logged: &mut Option<Instant>) {
    // Failures that concern one connection only end at once.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return;
    }
    let now = Instant::now();
    if logged.is_none_or(|logged| now - logged >= LOG_EVERY) {
        *logged = Some(now);
        log::warn!(target: "trytond.bus", "no connection can be accepted: {error}");
    }
    sleep(PAUSE).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::errno::Errno;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failure_that_lasts_is_logged_at_once_and_then_now_and_then() {
        let (mut logged, mut times) = (None, BTreeSet::new());
        failed(&Errno::ECONNABORTED.into(), &mut logged).await;
        assert_eq!(logged, None);
        let begun = Instant::now();
        while begun.elapsed() < LOG_EVERY * 6 {
            failed(&Errno::EMFILE.into(), &mut logged).await;
            times.insert(logged);
        }
        assert_eq!(times.len(), 6);
        assert_eq!(times.first(), Some(&Some(begun)));
    }
}
