//! The certificate with which the server speaks TLS.
mod certificate;
mod p521;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use tokio_rustls::rustls::server::ProducesTickets;
use tokio_rustls::rustls::sign::SingleCertAndKey;

use self::certificate::Certificate;

/// The protocols that a client may choose from, the best first.
pub(crate) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// A certificate, which may be read anew while the server runs.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// The keys with which returning clients resume without a full handshake.
    /// They stay the same when the files are read again.
    tickets: Arc<dyn ProducesTickets>,
    config: ArcSwap<ServerConfig>,
    /// When the certificate expires, in seconds since 1970.
    ends: AtomicU64,
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
    /// Reads a certificate chain up to a certificate that clients trust, and
    /// its private key, all in PEM. They may be in one file.
    ///
    /// # Errors
    ///
    /// The error names the fault and the file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let tickets = Ticketer::new().map_err(|error| error.to_string())?;
        let read = certificate::read(certificate, key)?;
        Ok(Self {
            certificate: certificate.into(),
            key: key.into(),
            ends: AtomicU64::new(read.ends.as_secs()),
            config: ArcSwap::from_pointee(configure(read, &tickets)?),
            tickets,
        })
    }

    /// Reads both files again, for new connections. After an error the old
    /// certificate stays.
    ///
    /// # Errors
    ///
    /// As [`Tls::read`].
    pub fn reload(&self) -> Result<(), String> {
        let read = certificate::read(&self.certificate, &self.key)?;
        let ends = read.ends.as_secs();
        self.config.store(Arc::new(configure(read, &self.tickets)?));
        self.ends.store(ends, Ordering::Relaxed);
        Ok(())
    }

    /// When the certificate expires, in seconds since 1970.
    pub fn ends(&self) -> u64 {
        self.ends.load(Ordering::Relaxed)
    }

    /// The acceptor of connections with the current certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.config.load_full().into()
    }
}

fn configure(
    certificate: Certificate,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, String> {
    let resolver = SingleCertAndKey::from(certificate.chain);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![HTTP_2.into(), HTTP_1.into()];
    config.ticketer = tickets.clone();
    Ok(config)
}
