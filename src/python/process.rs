//! Functions that concern the whole process.
use std::os::fd::RawFd;
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::imports::IS_PATCHED;
use crate::error::Error;
use crate::registry;
use crate::sync::{Mutex, lock};
use crate::watchdog::Guard;

/// The exception for an error of the engine.
pub(super) fn py_error(error: &Error) -> PyErr {
    match error {
        Error::Thread(_) => PyOSError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// Begin anew in the child of a fork.
#[pyfunction]
pub(super) fn forked() {
    registry::forked();
}

/// End all waits, and make later waits end at once, because the interpreter
/// exits.
#[pyfunction]
pub(super) fn close(py: Python<'_>) -> PyResult<()> {
    let process = registry::current();
    // The threads that wake greenlets need Python in order to end.
    py.detach(|| process.close());
    // Greenlets can't return while this blocks their thread.
    if !IS_PATCHED.get(py)?.call0()?.is_truthy()? {
        py.detach(|| process.wait_for_visits());
    }
    Ok(())
}

/// The state and the counters of the buses of this process.
#[pyfunction]
pub(super) fn statistics(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let process = registry::current();
    let databases = PyDict::new(py);
    for name in process.databases() {
        let Some(bus) = process.bus(&name) else {
            continue;
        };
        let statistics = bus.statistics();
        let values = PyDict::new(py);
        values.set_item("retained", statistics.retained)?;
        values.set_item("bytes", statistics.bytes)?;
        values.set_item("waiting", statistics.waiting)?;
        values.set_item("published", statistics.published)?;
        values.set_item("evicted", statistics.evicted)?;
        values.set_item("skipped", statistics.skipped)?;
        values.set_item("gaps", statistics.gaps)?;
        values.set_item("rewinds", statistics.rewinds)?;
        values.set_item("listening", statistics.listening)?;
        values.set_item("queue_usage", statistics.queue_usage)?;
        values.set_item("number", statistics.number)?;
        databases.set_item(&*name, values)?;
    }
    Ok(databases)
}

/// A deadline at which a socket is shut down.
#[pyclass(frozen, name = "Deadline", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyDeadline {
    /// None after it was lifted.
    guard: Mutex<Option<Guard>>,
}

#[pymethods]
impl PyDeadline {
    /// Lift the deadline; returns whether it had passed.
    fn lift(&self, py: Python<'_>) -> bool {
        py.detach(|| lock(&self.guard).take().is_some_and(Guard::lift))
    }
}

/// Shut the socket with this descriptor down after `seconds` seconds.
///
/// The descriptor must stay open until the deadline is lifted.
#[pyfunction]
pub(super) fn watch(fd: RawFd, seconds: f64) -> PyResult<PyDeadline> {
    let limit = Duration::try_from_secs_f64(seconds).map_err(|error| {
        PyValueError::new_err(format!("{seconds} seconds: {error}"))
    })?;
    let process = registry::current();
    let watchdog = process.watchdog().map_err(|error| py_error(&error))?;
    Ok(PyDeadline {
        guard: Mutex::new(Some(watchdog.watch(fd, limit))),
    })
}

/// A time in seconds, as Python has it. A negative one is zero, and one that a
/// `Duration` can't represent has no end.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
