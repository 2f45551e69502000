//! Taking connections in.
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::address::Peer;
use super::app::App;
use super::connection::serve;
use super::listen::Listener;
use super::tls::serve_tls;

/// How long nothing is accepted after a failure, such as that there is no
/// descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a connection without a request is asked for its place.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Takes connections in until it is dropped. Each has one of `places`, and
/// while there is none left the others stay with the kernel.
///
/// # Errors
///
/// When the socket can't be used at all.
pub(super) fn accept(
    listener: Listener,
    app: Arc<App>,
    places: Arc<Semaphore>,
) -> io::Result<tokio::task::JoinHandle<()>> {
    Ok(match listener {
        Listener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(accept_tcp(listener, app, places))
        }
        Listener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            tokio::spawn(accept_unix(listener, app, places))
        }
    })
}

async fn accept_tcp(listener: TcpListener, app: Arc<App>, places: Arc<Semaphore>) {
    loop {
        let place = place(&app, &places).await;
        match listener.accept().await {
            Ok((stream, address)) => {
                // Without it an answer waits for the client's acknowledgement
                // of the one before. A socket that refuses works as well.
                let _ = stream.set_nodelay(true);
                let peer = Peer::Host(address.ip());
                let open = Open::new(&app, place);
                match &app.config.tls {
                    None => tokio::spawn(serve(stream, peer, open)),
                    Some(tls) => {
                        tokio::spawn(serve_tls(stream, tls.acceptor(), peer, open))
                    }
                };
            }
            Err(error) => failed(&error).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, app: Arc<App>, places: Arc<Semaphore>) {
    loop {
        let place = place(&app, &places).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Peer::Local, Open::new(&app, place)));
            }
            Err(error) => failed(&error).await,
        }
    }
}

/// A connection that is counted, until this is dropped.
pub(super) struct Open {
    app: Arc<App>,
    /// Held while it is open.
    _place: OwnedSemaphorePermit,
}

impl Open {
    pub(super) fn new(app: &Arc<App>, place: OwnedSemaphorePermit) -> Self {
        app.metrics.connections.inc();
        Self {
            app: app.clone(),
            _place: place,
        }
    }

    /// The server.
    pub(super) fn app(&self) -> &Arc<App> {
        &self.app
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.app.metrics.connections.dec();
    }
}

/// Waits for a place, and asks a connection without a request for its own.
async fn place(app: &App, places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return place;
    }
    let mut place = pin!(places.clone().acquire_owned());
    loop {
        // Whoever was asked may have had its request on its way.
        app.crowded.notify_one();
        select! {
            place = &mut place => {
                return place.expect("the semaphore is never closed");
            }
            () = sleep(ASK_EVERY) => {}
        }
    }
}

async fn failed(error: &io::Error) {
    // Those that concern one connection only are over at once.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return;
    }
    log::warn!(target: "trytond.bus", "no connection can be accepted: {error}");
    sleep(PAUSE).await;
}
