//! The bus server, and its questions to trytond.
//!
//! The server runs on threads of its own that never call Python. Python threads
//! take its questions and answer them.
mod options;
mod requests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use self::options::{Options, ssl_error, time};
use self::requests::Request;
pub(super) use self::requests::{
    PyAccessRequest, PyDatabasesRequest, PyListenerRequest, PySessionsRequest,
};
use crate::server::{Address, Server, Tls, notify_ready, notify_stopping};

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
        let timeout = time("timeout", timeout)?;
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
    fn ready(&self, py: Python<'_>) {
        py.detach(notify_ready);
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
    fn drain(&self, py: Python<'_>) {
        py.detach(|| {
            self.server.drain();
            notify_stopping();
        });
    }

    /// Wait for the end of the server for at most `timeout` seconds; returns
    /// whether it has ended.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = time("timeout", timeout)?;
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
