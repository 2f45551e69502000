//! The questions of the server to trytond, and their answers.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::Sender;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use tokio::sync::oneshot;

use crate::server::{Answered, Asked, Check, Session, Trytond};
use crate::sync::{Mutex, lock};

/// The limit of chats that wait for an answer.
const CHATS_MAX: usize = 10_000;

/// A question of the server, with a type for each kind.
#[derive(Debug, IntoPyObject)]
pub(in crate::python) enum Request {
    Databases(PyDatabasesRequest),
    Sessions(PySessionsRequest),
    Access(PyAccessRequest),
    Listener(PyListenerRequest),
}

/// Which of these databases exist?
#[pyclass(frozen, name = "DatabasesRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(in crate::python) struct PyDatabasesRequest {
    names: Vec<Box<str>>,
    answer: Asker<Option<Vec<bool>>>,
}

/// Which of these sessions of a database are valid?
#[pyclass(frozen, name = "SessionsRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(in crate::python) struct PySessionsRequest {
    database: Box<str>,
    sessions: Vec<Arc<Session>>,
    answer: Asker<Vec<Check>>,
}

/// Which of these chats may a user follow?
#[pyclass(frozen, name = "AccessRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(in crate::python) struct PyAccessRequest {
    asked: Asked,
    answer: Asker<Option<Vec<Box<str>>>>,
    _counted: CountedChats,
}

/// A database that needs a listener.
#[pyclass(frozen, name = "ListenerRequest", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(in crate::python) struct PyListenerRequest {
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
pub(super) struct Threads {
    requests: Sender<Request>,
    /// How many chats wait for an answer.
    chats: Arc<AtomicUsize>,
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
    pub(super) fn is_wanted(&self) -> bool {
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

impl Threads {
    /// trytond, whose threads receive the questions from `requests`.
    pub(super) fn new(requests: Sender<Request>) -> Self {
        let chats = Arc::default();
        Self { requests, chats }
    }

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
