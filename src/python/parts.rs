//! Payloads in parts, for the Python package.
use pyo3::prelude::*;

use super::process::py_error;
use crate::parts::{self, Assembly};
use crate::sync::{Mutex, lock};

/// Cut a payload that is too large for a NOTIFY into parts.
#[pyfunction]
pub(super) fn split(payload: &str) -> Vec<String> {
    parts::split(payload)
}

/// Assembles parts.
#[derive(Debug)]
#[pyclass(name = "Assembly", frozen, module = "trytond_fastbus._native")]
pub(super) struct PyAssembly(Mutex<Assembly>);

#[pymethods]
impl PyAssembly {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(Assembly::default()))
    }

    /// Take the next part; returns the payload after its last part.
    fn push(&self, part: &str, limit: usize) -> PyResult<Option<String>> {
        lock(&self.0)
            .push(part, limit)
            .map_err(|error| py_error(&error))
    }
}
