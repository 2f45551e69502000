//! `_MessageQueue`: the history under the name that trytond gives it.
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::decode::decode;
use super::encode::encode;
use super::process::seconds;
use super::wire;
use crate::bus::Bus;
use crate::history::Bounds;
use crate::registry;

/// The retained messages of a database.
#[pyclass(frozen, name = "_MessageQueue", module = "trytond_fastbus._native")]
#[derive(Debug)]
pub(super) struct PyMessageQueue {
    bus: Bus,
    clock: Clock,
}

/// The clock of a queue.
#[derive(Debug)]
enum Clock {
    /// `time.time`, looked up at each call because trytond's tests replace it.
    Wall,
    /// The clock of the registry.
    Process,
}

#[pymethods]
impl PyMessageQueue {
    #[new]
    fn new(timeout: f64) -> Self {
        Self {
            bus: Bus::new(Bounds {
                cache_timeout: seconds(timeout),
                journal_timeout: None,
                cache_size: usize::MAX,
            }),
            clock: Clock::Wall,
        }
    }

    /// Append a message to a channel.
    fn append(&self, channel: &str, element: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = element.py();
        let mut json = String::new();
        encode(&mut json, element)?;
        let message = wire::message(py, channel, &json)
            .map_err(|why| PyValueError::new_err(why.to_string()))?;
        let now = self.now(py)?;
        for crowd in self.bus.publish(vec![message], now) {
            py.detach(|| crowd.wake());
        }
        Ok(())
    }

    /// The channel and the message after `from_id` in any of the channels, or
    /// `(None, None)`.
    #[pyo3(signature = (channels, from_id=None))]
    fn get_next<'py>(
        &self,
        channels: &Bound<'py, PyAny>,
        from_id: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Option<String>, Option<Bound<'py, PyAny>>)> {
        let py = channels.py();
        let channels = wire::channels(channels)?;
        let last = from_id.and_then(wire::id);
        let next = self.bus.next(&channels, last.as_ref(), self.now(py)?);
        Ok(match next {
            None => (None, None),
            Some(message) => (
                Some(message.channel().to_owned()),
                Some(decode(py, message.json())?),
            ),
        })
    }

    fn __len__(&self) -> usize {
        self.bus.statistics().retained
    }
}

impl PyMessageQueue {
    /// The queue of a bus in the registry.
    pub(super) fn live(bus: Bus) -> Self {
        Self {
            bus,
            clock: Clock::Process,
        }
    }

    fn now(&self, py: Python<'_>) -> PyResult<Duration> {
        match self.clock {
            Clock::Wall => {
                let time = py.import(pyo3::intern!(py, "time"))?;
                let now = time.call_method0(pyo3::intern!(py, "time"))?;
                now.extract().map(seconds)
            }
            Clock::Process => Ok(registry::current().now()),
        }
    }
}
