//! Logging under the name that administrators know from trytond.
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};

use super::imports::GET_LOGGER;

/// `logging.DEBUG`
pub(super) const DEBUG: u8 = 10;
/// `logging.INFO`
pub(super) const INFO: u8 = 20;

/// Whether this level is logged. If it is not, lower levels are not either.
pub(super) fn is_logged(py: Python<'_>, level: u8) -> PyResult<bool> {
    // The bound method is kept, because each poll calls it.
    static IS_ENABLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let is_enabled = IS_ENABLED.get_or_try_init(py, || {
        let method = logger(py)?.getattr(pyo3::intern!(py, "isEnabledFor"))?;
        Ok::<_, PyErr>(method.unbind())
    })?;
    is_enabled.bind(py).call1((level,))?.is_truthy()
}

/// Logs a format with its values. The values are made only if the level is
/// logged.
pub(super) fn log<'py>(
    py: Python<'py>,
    level: u8,
    format: &str,
    values: impl FnOnce() -> PyResult<Bound<'py, PyTuple>>,
) -> PyResult<()> {
    if !is_logged(py, level)? {
        return Ok(());
    }
    let mut arguments = vec![
        level.into_pyobject(py)?.into_any(),
        PyString::new(py, format).into_any(),
    ];
    arguments.extend(values()?.iter());
    let arguments = PyTuple::new(py, arguments)?;
    logger(py)?.call_method1(pyo3::intern!(py, "log"), arguments)?;
    Ok(())
}

fn logger(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let logger = LOGGER.get_or_try_init(py, || {
        let logger = GET_LOGGER.get(py)?.call1(("trytond.bus",))?;
        Ok::<_, PyErr>(logger.unbind())
    })?;
    Ok(logger.bind(py))
}
