//! TLS: the certificate, and how a connection begins.
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ProducesTickets;
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig};

use super::accept::Open;
use super::address::Peer;
use super::connection::ON_ITS_WAY;
use super::{connection, http2};

/// What a client may choose from, the best first.
const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// A certificate, which may be read anew while the server runs.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// By what clients that come back need no whole handshake; the same for
    /// all that is read.
    tickets: Arc<dyn ProducesTickets>,
    config: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads a certificate, followed by those that lead to one that clients
    /// know, and its private key, all in PEM. They may be in one file.
    ///
    /// # Errors
    ///
    /// What is wrong, with the name of the file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let tickets = Ticketer::new().map_err(|error| error.to_string())?;
        let config = configure(certificate, key, &tickets)?;
        Ok(Self {
            certificate: certificate.into(),
            key: key.into(),
            tickets,
            config: ArcSwap::from_pointee(config),
        })
    }

    /// Reads both again, for the connections to come. What is wrong with
    /// them leaves it as it was.
    ///
    /// # Errors
    ///
    /// As [`Tls::read`].
    pub fn reload(&self) -> Result<(), String> {
        let config = configure(&self.certificate, &self.key, &self.tickets)?;
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// What begins a connection with the certificate as it is now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.config.load_full().into()
    }
}

fn configure(
    certificate: &Path,
    key: &Path,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, String> {
    let certificate_name = format!("the certificate '{}'", certificate.display());
    let key_name = format!("the private key '{}'", key.display());
    let pem = read(certificate, &certificate_name)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&certificate_name, &error))?;
    if chain.is_empty() {
        return Err(unreadable(&certificate_name, &PemError::NoItemsFound));
    }
    let pem = read(key, &key_name)?;
    // In both forms that openssl writes.
    if pem.windows(9).any(|word| word == b"ENCRYPTED") {
        return Err(format!(
            "{key_name} is encrypted: nobody is there to be asked for the password"
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| unreadable(&key_name, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("{key_name} is not that of {certificate_name}")
            }
            Error::InvalidCertificate(error) => format!("{certificate_name}: {error}"),
            error => format!("{key_name}: {error}"),
        })?;
    config.alpn_protocols = vec![HTTP_2.into(), HTTP_1.into()];
    config.ticketer = tickets.clone();
    Ok(config)
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{name} can not be read: {error}"))
}

fn unreadable(name: &str, error: &PemError) -> String {
    match error {
        PemError::NoItemsFound => format!("{name}: there is none in the file"),
        error => format!("{name}: {error}"),
    }
}

/// Begins a connection with TLS, and has it served as the client wants it.
pub(super) async fn serve_tls<S>(
    stream: S,
    acceptor: TlsAcceptor,
    peer: Peer,
    open: Open,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = open.app();
    let until = Instant::now() + ON_ITS_WAY;
    let handshake = timeout(app.config.limits.header_time, acceptor.accept(stream));
    let mut handshake = pin!(handshake);
    let accepted = select! {
        biased;
        accepted = &mut handshake => accepted,
        // It has no request yet.
        () = app.crowded.notified() => match timeout_at(until, handshake).await {
            Ok(accepted) => accepted,
            Err(_) => return,
        },
    };
    match accepted {
        // In a task of its own, which has no room for the handshake.
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
            tokio::spawn(http2::serve(stream, peer, open));
        }
        Ok(Ok(stream)) => {
            tokio::spawn(connection::serve(stream, peer, open));
        }
        // Whoever looks for open ports does that all day.
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
