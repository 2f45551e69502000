//! The Python objects that the engine uses. Each is imported when it is first
//! needed, because trytond must not be imported before its configuration is
//! read.
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// An attribute of a Python module.
pub(super) struct Import {
    module: &'static str,
    name: &'static str,
    object: PyOnceLock<Py<PyAny>>,
}

impl Import {
    const fn new(module: &'static str, name: &'static str) -> Self {
        Self {
            module,
            name,
            object: PyOnceLock::new(),
        }
    }

    /// The object, imported by the first call.
    pub(super) fn get<'a>(&'a self, py: Python<'a>) -> PyResult<&'a Bound<'a, PyAny>> {
        self.object.import(py, self.module, self.name)
    }
}

pub(super) static ACCESS_TIMEOUT: Import =
    Import::new("trytond_fastbus.access", "timeout");
pub(super) static CURRENT_WAKER: Import =
    Import::new("trytond_fastbus.coroutine", "current_waker");
pub(super) static ENDS_AT_EXIT: Import =
    Import::new("trytond_fastbus.coroutine", "ends_at_exit");
pub(super) static END_WITH_WORKER: Import =
    Import::new("trytond_fastbus.hangup", "end_with_worker");
pub(super) static ENSURE_LISTENER: Import =
    Import::new("trytond_fastbus.queues", "ensure");
pub(super) static ESCAPE_STRING: Import =
    Import::new("json.encoder", "encode_basestring_ascii");
pub(super) static GET_LOGGER: Import = Import::new("logging", "getLogger");
pub(super) static IS_PATCHED: Import =
    Import::new("trytond_fastbus.coroutine", "is_patched");
pub(super) static JSON_DECODER: Import =
    Import::new("trytond.protocols.jsonrpc", "JSONDecoder");
pub(super) static JSON_ENCODER: Import =
    Import::new("trytond.protocols.jsonrpc", "JSONEncoder");
pub(super) static JSON_LOADS: Import = Import::new("json", "loads");
pub(super) static LOCK: Import = Import::new("threading", "Lock");
pub(super) static LONG_POLLING_TIMEOUT: Import =
    Import::new("trytond_fastbus.settings", "long_polling_timeout");
pub(super) static MAIN_THREAD: Import = Import::new("threading", "main_thread");
pub(super) static READABLE: Import = Import::new("trytond_fastbus.access", "readable");
pub(super) static RELAY_USER: Import =
    Import::new("trytond_fastbus.settings", "relay_user");
pub(super) static SEND: Import = Import::new("trytond_fastbus.publish", "send");
pub(super) static TRANSACTION: Import =
    Import::new("trytond.transaction", "Transaction");
pub(super) static WATCH_CLIENT: Import = Import::new("trytond_fastbus.hangup", "watch");
