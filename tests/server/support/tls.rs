//! Certificates, and clients that speak TLS.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use trytond_fastbus::server::{Config, Tls};

use super::{Client, Site};

/// The files of a certificate, in a directory of their own.
pub(crate) struct Files {
    directory: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    /// A certificate of localhost, signed by itself, and where it is.
    pub(crate) fn new() -> (Self, CertificateDer<'static>) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("bus-tls-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("a directory");
        let files = Self {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
            directory,
        };
        let certificate = files.renew();
        (files, certificate)
    }

    /// Puts another one in its place.
    pub(crate) fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
            .expect("a certificate");
        std::fs::write(&self.certificate, made.cert.pem()).expect("it is written");
        std::fs::write(&self.key, made.signing_key.serialize_pem())
            .expect("it is written");
        made.cert.der().clone()
    }

    pub(crate) fn read(&self) -> Result<Tls, String> {
        Tls::read(&self.certificate, &self.key)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A configuration with a certificate, and clients that trust it.
pub(crate) fn with_tls(config: Config) -> (Config, Arc<ClientConfig>) {
    let (files, certificate) = Files::new();
    let tls = files.read().expect("a certificate");
    let config = Config {
        tls: Some(Arc::new(tls)),
        ..config
    };
    (config, trust(certificate, &[&version::TLS13], &[]))
}

/// A client that trusts this certificate, and asks for these protocols.
pub(crate) fn trust(
    certificate: CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| (*name).into()).collect();
    Arc::new(config)
}

fn localhost() -> ServerName<'static> {
    "localhost".try_into().expect("a name")
}

pub(crate) type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

impl TlsClient {
    /// A connection of HTTP/1.1, whose handshake is over.
    pub(crate) fn connect(site: &Site, config: &Arc<ClientConfig>) -> Self {
        let socket = site.connect().stream;
        let connection =
            ClientConnection::new(config.clone(), localhost()).expect("a client");
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("TLS");
        }
        Self { stream }
    }

    /// Whether the server has announced the end (`close_notify`) before it
    /// closed.
    pub(crate) fn is_told_of_the_end(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }

    /// The end as a client says it, without closing the socket.
    pub(crate) fn say_end(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("it is written");
    }
}

/// A connection of HTTP/2.
pub(crate) struct Http2 {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    /// Ends with the connection; whether that was closed in order.
    pub(crate) connection: JoinHandle<bool>,
}

impl Http2 {
    pub(crate) async fn connect(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> Self {
        Self::with(&Builder::new(TokioExecutor::new()), address, config).await
    }

    pub(crate) async fn with(
        builder: &Builder<TokioExecutor>,
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> Self {
        let stream = TokioIo::new(tls(address, config).await);
        let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
        let connection = tokio::spawn(async { connection.await.is_ok() });
        Self { sender, connection }
    }

    /// The body of the answer to a request that is sent beside others.
    pub(crate) fn beside(
        &self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Bytes> + use<> {
        let mut sender = self.sender.clone();
        async move {
            let answer = sender.send_request(request).await.expect("an answer");
            let body = answer.into_body().collect().await;
            body.expect("all of it").to_bytes()
        }
    }

    /// Sends a request, and waits for all of its answer.
    pub(crate) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Response<String> {
        let sent = self.sender.send_request(request);
        let sent = tokio::time::timeout(Duration::from_secs(60), sent).await;
        let (parts, body) = sent.expect("in time").expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8(body.into()).expect("text");
        Response::from_parts(parts, body)
    }
}

/// A stream that has agreed on HTTP/2.
pub(crate) async fn tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    let socket = tokio::net::TcpStream::connect(address).await;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(localhost(), socket.expect("a connection"))
        .await
        .expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

impl Site {
    /// A poll of a session, as a browser sends it over HTTP/2.
    pub(crate) fn request(&self, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        Request::post(format!("https://bus:1/{}/bus", self.database))
            .header("content-type", "application/json")
            .header("cookie", "a=b")
            .header("cookie", "tryton_session=admin:1:good")
            .body(Full::new(body.into()))
            .expect("a request")
    }

    /// The same for these channels.
    pub(crate) fn request_of(&self, channels: &str) -> Request<Full<Bytes>> {
        self.request(format!("{{\"channels\":[{channels}]}}"))
    }
}
