//! The bus server, and the sessions that it asks for.
//!
//! The server runs on threads of its own that never call Python; threads of
//! Python take what it asks for, and answer.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::history::Bounds;
use crate::registry;
use crate::server::{
    Address, Asked, Check, CheckFuture, Config, Limits, Listener, ReadableFuture,
    Server, Session, Sessions, Tls, inherited, notify_ready, notify_stopping,
    raise_descriptor_limit,
};
use crate::sync::{Mutex, lock};

/// How many sessions may wait to be checked. Who comes then tries again
/// after a while: a flood of bad credentials must not fill the memory.
const REQUESTS_MAX: usize = 10_000;

/// How many chats may wait to be asked for, likewise.
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
    requests: Receiver<PyRequest>,
    /// What it listens on, as text.
    addresses: Vec<String>,
    descriptors: u64,
    /// None where it does not speak TLS.
    tls: Option<Arc<Tls>>,
}

/// What the server wants to know of trytond.
#[pyclass(frozen, name = "SessionRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyRequest {
    database: Box<str>,
    wanted: Wanted,
}

/// What is wanted of a database, and whom to answer: none once it is done.
#[derive(Debug)]
enum Wanted {
    /// That it is listened to.
    Listener,
    /// Whether this is a session.
    Session(Arc<Session>, Mutex<Option<oneshot::Sender<Check>>>),
    /// Which chats the user may follow.
    Chats(Chats, Mutex<Option<oneshot::Sender<Readable>>>),
}

/// Chats that a user may follow; none where that can't be told now.
type Readable = Option<Vec<Box<str>>>;

/// Chats that are counted until this is dropped.
#[derive(Debug)]
struct Chats {
    user: u32,
    names: Vec<Box<str>>,
    count: Arc<AtomicUsize>,
}

impl Drop for Chats {
    fn drop(&mut self) {
        self.count.fetch_sub(self.names.len(), Ordering::Relaxed);
    }
}

/// trytond, as the server sees it.
struct Trytond {
    requests: Sender<PyRequest>,
    /// How many chats wait to be asked for.
    chats: Arc<AtomicUsize>,
}

#[pymethods]
impl PyServer {
    /// Start to serve, with these options.
    #[new]
    fn new(py: Python<'_>, options: Options) -> PyResult<Self> {
        // A second try fails, which is all right.
        let _ = pyo3_log::try_init();
        py.detach(|| options.start())
    }

    /// What is to be answered next, or None after some seconds.
    fn next_request(
        &self,
        py: Python<'_>,
        timeout: f64,
    ) -> PyResult<Option<PyRequest>> {
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

    /// What the server listens on, such as `127.0.0.1:8001`.
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
    #[expect(clippy::unused_self, reason = "it says that there is a server")]
    fn ready(&self) -> PyResult<()> {
        Ok(notify_ready()?)
    }

    /// Read the certificate and its key again; whether there are any.
    fn reload(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(tls) = &self.tls else {
            return Ok(false);
        };
        py.detach(|| tls.reload())
            .map_err(|error| ssl_error(&error))?;
        Ok(true)
    }

    /// Begin to answer the waiting polls, and then end.
    fn drain(&self) -> PyResult<()> {
        self.server.drain();
        Ok(notify_stopping()?)
    }

    /// Wait for the end of the server, for at most some seconds; whether it
    /// has ended.
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
#[expect(clippy::needless_pass_by_value, reason = "pyo3 gives values")]
pub(super) fn check_certificate(
    py: Python<'_>,
    certificate: PathBuf,
    privatekey: PathBuf,
) -> PyResult<()> {
    py.detach(|| Tls::read(&certificate, &privatekey))
        .map(|_| ())
        .map_err(|error| ssl_error(&error))
}

/// Raise `ValueError` for the text of an address that can't be listened on.
#[pyfunction]
pub(super) fn check_address(address: &str) -> PyResult<()> {
    let address = address.parse::<Address>();
    address.map(|_| ()).map_err(PyValueError::new_err)
}

#[pymethods]
impl PyRequest {
    #[getter]
    fn database(&self) -> &str {
        &self.database
    }

    /// The id of the user, or None where nothing is to be answered but the
    /// database listened to.
    #[getter]
    fn user(&self) -> Option<u32> {
        match &self.wanted {
            Wanted::Listener => None,
            Wanted::Session(session, _) => Some(session.user),
            Wanted::Chats(chats, _) => Some(chats.user),
        }
    }

    #[getter]
    fn token(&self) -> Option<&str> {
        self.session().map(|session| &*session.token)
    }

    /// The address of the client, if it is known.
    #[getter]
    fn address(&self) -> Option<&str> {
        self.session()?.address.as_deref()
    }

    /// Whether the connection comes from this host, and not through a proxy
    /// that is counted.
    #[getter]
    fn is_local(&self) -> bool {
        self.session().is_some_and(|session| session.is_local)
    }

    /// The chats of which those are wanted that the user may follow, or None
    /// where a session is to be checked.
    #[getter]
    fn channels(&self) -> Option<Vec<&str>> {
        match &self.wanted {
            Wanted::Chats(chats, _) => {
                Some(chats.names.iter().map(AsRef::as_ref).collect())
            }
            _ => None,
        }
    }

    /// Say what the session is: 'valid', 'invalid', 'unknown' for one of an
    /// unknown database, or 'failed' where that can't be told.
    fn answer(&self, check: &str) -> PyResult<()> {
        let check = match check {
            "valid" => Check::Valid,
            "invalid" => Check::Invalid,
            "unknown" => Check::UnknownDatabase,
            "failed" => Check::Failed,
            _ => {
                let text = format!("'{check}' says nothing of a session");
                return Err(PyValueError::new_err(text));
            }
        };
        if let Wanted::Session(_, answer) = &self.wanted {
            reply(answer, check);
        }
        Ok(())
    }

    /// Say which chats the user may follow, or None where that can't be told.
    fn answer_readable(&self, channels: Option<Vec<String>>) {
        if let Wanted::Chats(_, answer) = &self.wanted {
            let names = |names: Vec<String>| names.into_iter().map(Into::into);
            reply(answer, channels.map(|channels| names(channels).collect()));
        }
    }
}

impl PyRequest {
    fn session(&self) -> Option<&Session> {
        match &self.wanted {
            Wanted::Session(session, _) => Some(session),
            _ => None,
        }
    }

    /// Whether somebody waits for an answer, or needs none.
    fn is_wanted(&self) -> bool {
        match &self.wanted {
            Wanted::Listener => true,
            Wanted::Session(_, answer) => is_awaited(answer),
            Wanted::Chats(_, answer) => is_awaited(answer),
        }
    }
}

fn is_awaited<T>(answer: &Mutex<Option<oneshot::Sender<T>>>) -> bool {
    lock(answer)
        .as_ref()
        .is_some_and(|answer| !answer.is_closed())
}

fn reply<T>(answer: &Mutex<Option<oneshot::Sender<T>>>, with: T) {
    if let Some(answer) = lock(answer).take() {
        // Nobody may be left who wants to know.
        let _ = answer.send(with);
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
            Arc::new(Trytond {
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
                seconds: self.cache_timeout,
                journal: self.journal_timeout,
                bytes: self.cache_size,
            },
            cors: self.cors.iter().map(|origin| (**origin).into()).collect(),
            num_proxies: self.num_proxies,
            check_access: self.check_access,
            session_cache: seconds("session_cache", self.session_cache)?,
            drain: seconds("drain", self.drain)?,
            limits: Limits {
                header_size: self.header_size,
                header_time: seconds("header_timeout", self.header_timeout)?,
                body_size: self.body_size,
                body_time: seconds("body_timeout", self.body_timeout)?,
                write_time: seconds("write_timeout", self.write_timeout)?,
                idle_time: seconds("idle_timeout", self.idle_timeout)?,
                channels: self.max_channels,
                channel_size: self.channel_size,
                session_polls: self.session_polls,
                max_polls: self.max_polls,
                max_connections: self.max_connections,
                hold_time: seconds("hold_time", self.hold_time)?,
            },
        })
    }
}

impl Trytond {
    fn ask(&self, database: &str, wanted: Wanted) {
        let database = database.into();
        // Whatever becomes of it, the sender in it is dropped: nobody is left
        // to answer where the server is about to end.
        let _ = self.requests.send(PyRequest { database, wanted });
    }
}

impl Sessions for Trytond {
    fn check(&self, session: Arc<Session>) -> CheckFuture {
        if self.requests.len() >= REQUESTS_MAX {
            return Box::pin(async { Check::Failed });
        }
        let (sender, check) = oneshot::channel();
        let database = session.database.clone();
        let sender = Mutex::new(Some(sender));
        self.ask(&database, Wanted::Session(session, sender));
        Box::pin(async { check.await.unwrap_or(Check::Failed) })
    }

    fn readable(&self, asked: Asked) -> ReadableFuture {
        let Asked {
            database,
            user,
            chats,
        } = asked;
        let waiting = self.chats.fetch_add(chats.len(), Ordering::Relaxed);
        let chats = Chats {
            user,
            names: chats,
            count: self.chats.clone(),
        };
        // One poll is always taken, however much it asks for.
        if waiting > 0 && waiting + chats.names.len() > CHATS_MAX {
            return Box::pin(async { None });
        }
        let (sender, readable) = oneshot::channel();
        self.ask(&database, Wanted::Chats(chats, Mutex::new(Some(sender))));
        Box::pin(async { readable.await.unwrap_or(None) })
    }

    fn opened(&self, database: &str) {
        self.ask(database, Wanted::Listener);
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
