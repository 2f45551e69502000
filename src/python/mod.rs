//! The native module `trytond_fastbus._native`.
//!
//! It ties the engine to Python. The Python package around it ties it to
//! trytond. These modules call the package for a transaction, a configuration
//! or a connection.
mod access;
mod alarm;
mod bus;
mod coroutine;
mod database;
mod decode;
mod encode;
mod imports;
mod logging;
mod metrics;
mod notify;
mod parts;
mod process;
mod queue;
mod server;
mod state;
mod wait;
mod wire;

use pyo3::prelude::*;

/// The engine of trytond-fastbus.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::alarm::{PyAlarm, PyBell};
    #[pymodule_export]
    use super::bus::PyBus;
    #[pymodule_export]
    use super::coroutine::PyTokenQueue;
    #[pymodule_export]
    use super::database::PyDatabase;
    #[pymodule_export]
    use super::metrics::metrics;
    #[pymodule_export]
    use super::notify::notify;
    #[pymodule_export]
    use super::parts::{PyAssembly, split};
    #[pymodule_export]
    use super::process::{PyDeadline, close, forked, statistics, watch};
    #[pymodule_export]
    use super::queue::PyMessageQueue;
    #[pymodule_export]
    use super::server::{
        PyAccessRequest, PyDatabasesRequest, PyListenerRequest, PyServer,
        PySessionsRequest, check_address, check_certificate,
    };

    #[pymodule_export]
    const CHANNELS_MAX: usize = super::wire::CHANNELS_MAX;
    #[pymodule_export]
    const PAYLOAD_MAX: usize = crate::parts::PAYLOAD_MAX;
    #[pymodule_export]
    const NUMBER_MAX: u64 = crate::bus::NUMBER_MAX;
}
