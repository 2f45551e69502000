//! The waiters of a gevent hub, woken from any thread.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

use super::imports::CURRENT_WAKER;
use crate::waiter::{Signal, TokenQueue};

/// The tokens of the woken greenlets that their hub has not resumed yet.
#[pyclass(frozen, name = "TokenQueue", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyTokenQueue {
    queue: Arc<TokenQueue>,
    next: AtomicU64,
}

#[pymethods]
impl PyTokenQueue {
    #[new]
    fn new(send: Py<PyAny>) -> Self {
        let signal = move || {
            // The result is none if the interpreter exits, and an error if the
            // hub was destroyed. No greenlet has to be woken then.
            let _ = Python::try_attach(|py| send.call0(py).map(drop));
        };
        Self {
            queue: Arc::new(TokenQueue::new(signal)),
            next: AtomicU64::new(0),
        }
    }

    /// Take the tokens of all woken greenlets.
    fn take(&self, py: Python<'_>) -> Vec<u64> {
        py.detach(|| self.queue.take())
    }
}

/// The waker of the running hub, and the token for one wait there.
#[derive(Debug)]
pub(super) struct PyWaker<'py> {
    waker: Bound<'py, PyAny>,
    queue: Arc<TokenQueue>,
    token: u64,
}

impl<'py> PyWaker<'py> {
    /// The waker of the running hub; none if threads are not greenlets.
    pub(super) fn current(py: Python<'py>) -> PyResult<Option<Self>> {
        let waker = CURRENT_WAKER.get(py)?.call0()?;
        if waker.is_none() {
            return Ok(None);
        }
        let queue = waker.getattr(pyo3::intern!(py, "queue"))?;
        let queue = queue.cast::<PyTokenQueue>()?.get();
        Ok(Some(Self {
            queue: queue.queue.clone(),
            token: queue.next.fetch_add(1, Ordering::Relaxed),
            waker,
        }))
    }

    /// The signal for this wait.
    pub(super) fn signal(&self) -> Signal {
        Signal::Queue(self.queue.clone(), self.token)
    }

    /// Lets the hub run other greenlets until this wait is woken, or `timeout`
    /// has passed.
    pub(super) fn wait(self, py: Python<'py>, timeout: Duration) -> PyResult<()> {
        let wait = pyo3::intern!(py, "wait");
        self.waker
            .call_method1(wait, (self.token, timeout.as_secs_f64()))?;
        Ok(())
    }
}
