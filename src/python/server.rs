//! The bus server, and its questions to trytond.
//!
//! The server runs on threads of its own that never call Python. Python threads
//! take its questions and answer them.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use tokio::sync::oneshot;

use crate::history::Bounds;
use crate::registry;
use crate::server::{
    Address, Answered, Asked, Check, Config, Limits, Listener, Server, Session, Tls,
    Trytond, inherited, notify_ready, notify_stopping, raise_descriptor_limit,
};
use crate::sync::{Mutex, lock};

/// The limit of chats that wait for an answer.
const CHATS_MAX: usize = 10_000;

/// The configuration, from a dictionary. Times are in seconds.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
struct Options {
    listen: Vec<String>,
    reuse_port: bool,
    admin_listen: Vec<String>,
    keep_alive: f64,
    threads: usize,
    allow_subscribe: bool,
    relay_user: bool,
    long_polling_timeout: f64,
    cache_timeout: f64,
    cache_size: usize,
    /// None without a journal.
    journal_timeout: Option<f64>,
    cors: Vec<String>,
    num_proxies: usize,
    check_access: bool,
    session_cache: f64,
    drain: f64,
    header_size: usize,
    header_timeout: f64,
    body_size: usize,
    body_timeout: f64,
    write_timeout: f64,
    idle_timeout: f64,
    max_channels: usize,
    channel_size: usize,
    session_polls: usize,
    max_polls: usize,
    max_connections: usize,
    hold_time: f64,
    /// The paths of the certificate and of its key, none without TLS.
    ssl: Option<(PathBuf, PathBuf)>,
}

/// The bus server.
#[pyclass(frozen, name = "BusServer", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyServer {
    server: Server,
    requests: Receiver<Request>,
    /// The addresses that it listens on, as text.
    addresses: Vec<String>,
    descriptors: u64,
    /// None without TLS.
    tls: Option<Arc<Tls>>,
}

/// A question of the server, with a type for each kind.
#[derive(Debug, IntoPyObject)]
pub(super) enum Request {
    Databases(PyDatabasesRequest),
    Sessions(PySessionsRequest),
    Access(PyAccessRequest),
    Listener(PyListenerRequest),
}

/// Which of these databases exist?
#[pyclass(frozen, name = "DatabasesRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyDatabasesRequest {
    names: Vec<Box<str>>,
    answer: Asker<Option<Vec<bool>>>,
}

/// Which of these sessions of a database are valid?
#[pyclass(frozen, name = "SessionsRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PySessionsRequest {
    database: Box<str>,
    sessions: Vec<Arc<Session>>,
    answer: Asker<Vec<Check>>,
}

/// Which of these chats may a user follow?
#[pyclass(frozen, name = "AccessRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyAccessRequest {
    asked: Asked,
    answer: Asker<Option<Vec<Box<str>>>>,
    _counted: CountedChats,
}

/// A database that needs a listener.
#[pyclass(frozen, name = "ListenerRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyListenerRequest {
    #[pyo3(get)]
    database: String,
}

/// The part of the server that waits for an answer; none once it has one.
#[derive(Debug)]
struct Asker<T>(Mutex<Option<oneshot::Sender<T>>>);

/// Chats that are counted until this is dropped.
#[derive(Debug)]
struct CountedChats {
    number: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for CountedChats {
    fn drop(&mut self) {
        self.all.fetch_sub(self.number, Ordering::Relaxed);
    }
}

/// trytond, reached through the Python threads that take the questions.
struct Threads {
    requests: Sender<Request>,
    /// How many chats wait for an answer.
    chats: Arc<AtomicUsize>,
}

#[pymethods]
impl PyServer {
    /// Start the server with these options.
    #[new]
    fn new(py: Python<'_>, options: Options) -> PyResult<Self> {
        // A second call fails, which does no harm.
        let _ = pyo3_log::try_init();
        py.detach(|| options.start())
    }

    /// The next question, or None after `timeout` seconds.
    fn next_request(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Request>> {
        let timeout = seconds("timeout", timeout)?;
        let until = Instant::now() + timeout;
        Ok(py.detach(|| {
            loop {
                let request = self.requests.recv_deadline(until).ok()?;
                if request.is_wanted() {
                    return Some(request);
                }
            }
        }))
    }

    /// The addresses that the server listens on, such as `127.0.0.1:8001`.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// How many descriptors this process may have open.
    #[getter]
    fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// Tell the service manager that the server is ready.
    #[expect(clippy::unused_self, reason = "only a running server has this method")]
    fn ready(&self) -> PyResult<()> {
        Ok(notify_ready()?)
    }

    /// Read the certificate and its key again; returns whether there are any.
    fn reload(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(tls) = &self.tls else {
            return Ok(false);
        };
        py.detach(|| tls.reload())
            .map_err(|error| ssl_error(&error))?;
        Ok(true)
    }

    /// Begin to drain: answer the waiting polls, and then end.
    fn drain(&self) -> PyResult<()> {
        self.server.drain();
        Ok(notify_stopping()?)
    }

    /// Wait for the end of the server for at most `timeout` seconds; returns
    /// whether it has ended.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds("timeout", timeout)?;
        match py.detach(|| self.server.wait(timeout)) {
            None => Ok(false),
            Some(result) => Ok(result.map(|()| true)?),
        }
    }
}

/// Raise `ValueError` for a certificate and a key that can't be used.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "pyo3 passes values")]
pub(super) fn check_certificate(
    py: Python<'_>,
    certificate: PathBuf,
    privatekey: PathBuf,
) -> PyResult<()> {
    py.detach(|| Tls::read(&certificate, &privatekey))
        .map(|_| ())
        .map_err(|error| ssl_error(&error))
}

/// Raise `ValueError` for the text of an address that the server can't listen
/// on.
#[pyfunction]
pub(super) fn check_address(address: &str) -> PyResult<()> {
    let address = address.parse::<Address>();
    address.map(|_| ()).map_err(PyValueError::new_err)
}

#[pymethods]
impl PyDatabasesRequest {
    #[getter]
    fn names(&self) -> Vec<&str> {
        self.names.iter().map(AsRef::as_ref).collect()
    }

    /// Answer with a bool per database, or with None if the databases can't be
    /// listed now.
    fn answer(&self, exist: Option<Vec<bool>>) {
        self.answer.give(exist);
    }
}

#[pymethods]
impl PySessionsRequest {
    #[getter]
    fn database(&self) -> &str {
        &self.database
    }

    /// Each session as the user's id, the token, the address if it is known,
    /// and whether the connection comes from this host.
    #[getter]
    fn sessions(&self) -> Vec<(u32, &str, Option<&str>, bool)> {
        self.sessions
            .iter()
            .map(|session| {
                let address = session.address.as_deref();
                (session.user, &*session.token, address, session.is_local)
            })
            .collect()
    }

    /// Answer with one result per session: 'valid', 'invalid', 'unknown' if the
    /// database is unknown, or 'failed' if the session can't be checked now.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 passes values")]
    fn answer(&self, checks: Vec<PyBackedStr>) -> PyResult<()> {
        let checks = checks.iter().map(|check| match &**check {
            "valid" => Ok(Check::Valid),
            "invalid" => Ok(Check::Invalid),
            "unknown" => Ok(Check::UnknownDatabase),
            "failed" => Ok(Check::Failed),
            check => Err(PyValueError::new_err(format!(
                "unknown result '{check}': expected valid, invalid, unknown or failed"
            ))),
        });
        self.answer.give(checks.collect::<PyResult<_>>()?);
        Ok(())
    }
}

#[pymethods]
impl PyAccessRequest {
    #[getter]
    fn database(&self) -> &str {
        &self.asked.database
    }

    #[getter]
    fn user(&self) -> u32 {
        self.asked.user
    }

    #[getter]
    fn channels(&self) -> Vec<&str> {
        self.asked.chats.iter().map(AsRef::as_ref).collect()
    }

    /// Answer with the chats that the user may follow, or with None if trytond
    /// can't decide now.
    fn answer(&self, channels: Option<Vec<String>>) {
        let names = |names: Vec<String>| names.into_iter().map(Into::into);
        let channels = channels.map(|channels| names(channels).collect());
        self.answer.give(channels);
    }
}

impl Request {
    /// Whether an answer is still wanted, if there is one.
    fn is_wanted(&self) -> bool {
        match self {
            Self::Databases(request) => request.answer.is_wanted(),
            Self::Sessions(request) => request.answer.is_wanted(),
            Self::Access(request) => request.answer.is_wanted(),
            Self::Listener(_) => true,
        }
    }
}

impl<T: Send + 'static> Asker<T> {
    /// An answer, and the future that waits for it. The future gives
    /// `otherwise` if the answer is dropped.
    fn new(otherwise: T) -> (Self, Answered<T>) {
        let (sender, receiver) = oneshot::channel();
        let future = Box::pin(async { receiver.await.unwrap_or(otherwise) });
        (Self(Mutex::new(Some(sender))), future)
    }

    fn is_wanted(&self) -> bool {
        lock(&self.0)
            .as_ref()
            .is_some_and(|answer| !answer.is_closed())
    }

    /// Only the first answer counts.
    fn give(&self, with: T) {
        if let Some(answer) = lock(&self.0).take() {
            // The receiver may be dropped already.
            let _ = answer.send(with);
        }
    }
}

impl Options {
    fn start(self) -> PyResult<PyServer> {
        let config = self.config()?;
        let tls = config.tls.clone();
        let mut listeners = inherited()
            .map_err(|error| io_error("a socket of the service manager", &error))?;
        if listeners.is_empty() {
            let bind_one = if self.reuse_port {
                Address::bind_beside
            } else {
                Address::bind
            };
            listeners = bind("listen", &self.listen, bind_one)?;
        }
        let admin = bind("admin_listen", &self.admin_listen, Address::bind)?;
        let keep_alive = seconds("keep_alive", self.keep_alive)?;
        for listener in listeners.iter().chain(&admin) {
            listener.set_keep_alive(keep_alive).map_err(|error| {
                io_error(&format!("keep_alive, {listener}"), &error)
            })?;
        }
        let addresses = listeners.iter().chain(&admin);
        let addresses = addresses.map(ToString::to_string).collect();
        let descriptors = raise_descriptor_limit()?;
        let workers = match self.threads {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let (sender, requests) = unbounded();
        let server = Server::start(
            config,
            listeners,
            admin,
            Arc::new(Threads {
                requests: sender,
                chats: Arc::default(),
            }),
            registry::current(),
            workers,
        )?;
        Ok(PyServer {
            server,
            requests,
            addresses,
            descriptors,
            tls,
        })
    }

    fn config(&self) -> PyResult<Config> {
        let tls = self.ssl.as_ref().map(|(certificate, key)| {
            Tls::read(certificate, key).map_err(|error| ssl_error(&error))
        });
        Ok(Config {
            tls: tls.transpose()?.map(Arc::new),
            allow_subscribe: self.allow_subscribe,
            relay_user: self.relay_user,
            long_polling_timeout: seconds(
                "long_polling_timeout",
                self.long_polling_timeout,
            )?,
            history: Bounds {
                cache_timeout: seconds("cache_timeout", self.cache_timeout)?,
                journal_timeout: self
                    .journal_timeout
                    .map(|time| seconds("journal_timeout", time))
                    .transpose()?,
                cache_size: self.cache_size,
            },
            cors: self.cors.iter().map(|origin| (**origin).into()).collect(),
            num_proxies: self.num_proxies,
            check_access: self.check_access,
            session_cache: seconds("session_cache", self.session_cache)?,
            drain: seconds("drain", self.drain)?,
            limits: Limits {
                header_size: self.header_size,
                header_timeout: seconds("header_timeout", self.header_timeout)?,
                body_size: self.body_size,
                body_timeout: seconds("body_timeout", self.body_timeout)?,
                write_timeout: seconds("write_timeout", self.write_timeout)?,
                idle_timeout: seconds("idle_timeout", self.idle_timeout)?,
                max_channels: self.max_channels,
                channel_size: self.channel_size,
                session_polls: self.session_polls,
                max_polls: self.max_polls,
                max_connections: self.max_connections,
                hold_time: seconds("hold_time", self.hold_time)?,
            },
        })
    }
}

impl Threads {
    fn ask(&self, request: Request) {
        // If the server is about to end, no thread takes the question. The
        // sender in it is dropped then, which is an answer as well.
        let _ = self.requests.send(request);
    }
}

impl Trytond for Threads {
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>> {
        let (answer, answered) = Asker::new(None);
        self.ask(Request::Databases(PyDatabasesRequest { names, answer }));
        answered
    }

    fn sessions(
        &self,
        database: &str,
        sessions: Vec<Arc<Session>>,
    ) -> Answered<Vec<Check>> {
        let (answer, answered) = Asker::new(Vec::new());
        self.ask(Request::Sessions(PySessionsRequest {
            database: database.into(),
            sessions,
            answer,
        }));
        answered
    }

    fn readable(&self, asked: Asked) -> Answered<Option<Vec<Box<str>>>> {
        let number = asked.chats.len();
        let waiting = self.chats.fetch_add(number, Ordering::Relaxed);
        let counted = CountedChats {
            number,
            all: self.chats.clone(),
        };
        // One poll is always accepted, even if it has more chats.
        if waiting > 0 && waiting + number > CHATS_MAX {
            return Box::pin(async { None });
        }
        let (answer, answered) = Asker::new(None);
        self.ask(Request::Access(PyAccessRequest {
            asked,
            answer,
            _counted: counted,
        }));
        answered
    }

    fn opened(&self, database: &str) {
        let database = database.into();
        self.ask(Request::Listener(PyListenerRequest { database }));
    }
}

fn bind(
    option: &str,
    addresses: &[String],
    bind_one: fn(&Address) -> io::Result<Vec<Listener>>,
) -> PyResult<Vec<Listener>> {
    let mut listeners = Vec::new();
    for text in addresses {
        let address: Address = text
            .parse()
            .map_err(|error| PyValueError::new_err(format!("{option}: {error}")))?;
        let bound = bind_one(&address)
            .map_err(|error| io_error(&format!("{option} {address}"), &error))?;
        listeners.extend(bound);
    }
    Ok(listeners)
}

fn ssl_error(error: &str) -> PyErr {
    PyValueError::new_err(format!("[ssl] in the configuration: {error}"))
}

fn io_error(what: &str, error: &io::Error) -> PyErr {
    PyOSError::new_err(format!("{what}: {error}"))
}

fn seconds(option: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| {
        PyValueError::new_err(format!("{option} of {seconds} seconds: {error}"))
    })
}
