//! The attributes of `Bus` that hold its state. trytond's own tests access
//! them.
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::imports::LOCK;
use super::queue::PyMessageQueue;
use crate::registry;

/// A lock for each process, by its id, because a child must not use its
/// parent's lock.
#[pyclass(frozen, mapping, name = "_Locks", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyLocks {
    locks: Py<PyDict>,
}

#[pymethods]
impl PyLocks {
    fn __getitem__<'py>(&self, pid: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = pid.py();
        let locks = self.locks.bind(py);
        match locks.get_item(&pid)? {
            Some(lock) => Ok(lock),
            // Atomic, because two threads may make the first call at once.
            None => locks.call_method1("setdefault", (pid, LOCK.get(py)?.call0()?)),
        }
    }
}

impl PyLocks {
    pub(super) fn new(py: Python<'_>) -> Self {
        Self {
            locks: PyDict::new(py).unbind(),
        }
    }
}

/// The retained messages of this process, by database.
#[pyclass(
    frozen,
    mapping,
    name = "_Messages",
    module = "trytond_fastbus._native"
)]
#[derive(Debug)]
pub(super) struct PyMessages;

#[pymethods]
#[expect(clippy::unused_self, reason = "Python methods take self")]
impl PyMessages {
    fn __len__(&self) -> usize {
        registry::current().databases().len()
    }

    fn __contains__(&self, database: &str) -> bool {
        registry::current().bus(database).is_some()
    }

    fn __getitem__(&self, database: &str) -> PyResult<PyMessageQueue> {
        self.get(database)
            .ok_or_else(|| PyKeyError::new_err(database.to_owned()))
    }

    /// The queue of a database, or None.
    fn get(&self, database: &str) -> Option<PyMessageQueue> {
        let process = registry::current();
        process.bus(database).map(PyMessageQueue::live)
    }

    /// Drop the retained messages of all databases.
    fn clear(&self) {
        let process = registry::current();
        for database in process.databases() {
            if let Some(bus) = process.bus(&database) {
                bus.clear();
            }
        }
    }
}
