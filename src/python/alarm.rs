//! The alarm of the listening thread.
use std::os::fd::{AsRawFd, RawFd};

use pyo3::prelude::*;

use crate::alarm::{Alarm, Bell};

/// Wakes the listening thread.
#[pyclass(frozen, name = "Alarm", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyAlarm(Alarm);

/// Rings an alarm for one database.
#[pyclass(frozen, name = "Bell", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyBell(Bell);

#[pymethods]
impl PyAlarm {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Alarm::new()?))
    }

    /// A descriptor that is readable while a bell has rung.
    fn fileno(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// A bell with this key.
    fn bell(&self, key: u64) -> PyBell {
        PyBell(self.0.bell(key))
    }

    /// The keys of the bells that rang since the last call.
    fn take(&self) -> Vec<u64> {
        self.0.take()
    }
}

#[pymethods]
impl PyBell {
    /// Ring.
    fn ring(&self) {
        self.0.ring();
    }
}

impl PyBell {
    /// The bell of the engine.
    pub(super) fn bell(&self) -> Bell {
        self.0.clone()
    }
}
