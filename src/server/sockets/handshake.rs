//! How a connection with TLS begins.
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::server::http::open::{ON_ITS_WAY, Open};
use crate::server::http::{http1, http2};
use crate::server::request::address::Peer;
use crate::server::tls::HTTP_2;

/// Begins a connection with TLS, and serves it in the protocol that the client
/// chose.
pub(super) async fn handshake<S>(
    stream: S,
    acceptor: TlsAcceptor,
    peer: Peer,
    open: Open,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = open.app();
    let until = Instant::now() + ON_ITS_WAY;
    let handshake = timeout(app.config.limits.header_timeout, acceptor.accept(stream));
    let mut handshake = pin!(handshake);
    let accepted = select! {
        biased;
        accepted = &mut handshake => accepted,
        // The connection has no request yet.
        () = app.crowded.notified() => match timeout_at(until, handshake).await {
            Ok(accepted) => accepted,
            Err(_) => return,
        },
    };
    match accepted {
        // In its own task, which has no room for the handshake.
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
            tokio::spawn(http2::serve(stream, peer, open));
        }
        Ok(Ok(stream)) => {
            tokio::spawn(http1::serve(stream, peer, open));
        }
        // Port scanners cause this all day.
        failed => {
            app.metrics.tls_failures.inc();
            let error = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => "it did not come to an end in time".to_owned(),
            };
            log::debug!(target: "trytond.bus", "no TLS with {peer:?}: {error}");
        }
    }
}
