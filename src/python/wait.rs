//! Waiting for a message in a thread, in the main thread or in a greenlet.
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::coroutine::PyWaker;
use super::imports::{MAIN_THREAD, WATCH_CLIENT};
use super::metrics;
use crate::bus::{Bus, Settling, Subscription, Ticket};
use crate::message::{Id, Message};
use crate::poll::Poll;
use crate::registry::Process;
use crate::waiter::{Signal, Waiter, Wake};

/// How often the main thread checks for signals such as Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// Waits at most `timeout` for the message after `last`; none if that has
/// passed, or the process exits.
///
/// # Errors
///
/// An exception that ends the wait from outside, raised by a signal handler or
/// in the greenlet.
pub(super) fn next_message(
    py: Python<'_>,
    process: &Process,
    bus: &Bus,
    poll: &Poll,
    last: Option<&Id>,
    timeout: impl FnOnce() -> PyResult<Duration>,
) -> PyResult<Option<Arc<Message>>> {
    // Most polls of a client that resumes end here.
    if let Some(message) = bus.next(poll.channels(), last, process.now()) {
        return Ok(Some(message));
    }
    let timeout = timeout()?;
    let started = Instant::now();
    let mut settling = Settling::default();
    loop {
        let waker = PyWaker::current(py)?;
        let signal = || match &waker {
            Some(waker) => waker.signal(),
            None => Signal::thread(),
        };
        let channels = poll.channels();
        let now = process.now();
        let ticket = match bus.subscribe(channels, last, &mut settling, now, signal) {
            Subscription::Message(message) => return Ok(Some(message)),
            Subscription::Waiting(ticket) => ticket,
        };
        let left = timeout.saturating_sub(started.elapsed());
        let wake = wait(py, process, &ticket, waker, left)?;
        metrics::ended(wake.as_ref(), process.is_closed());
        match wake {
            Some(Wake::Message(message)) => return Ok(Some(message)),
            Some(Wake::Closed) | None => return Ok(None),
            Some(wake) => settling.woken(&wake),
        }
    }
}

/// Waits until the waiter of this ticket is woken, as a greenlet if there is a
/// waker, else as a thread.
fn wait(
    py: Python<'_>,
    process: &Process,
    ticket: &Ticket,
    waker: Option<PyWaker<'_>>,
    timeout: Duration,
) -> PyResult<Option<Wake>> {
    if let Some(waker) = waker {
        waker.wait(py, timeout)?;
        return Ok(ticket.waiter().woken());
    }
    let end_watch = watch_client(py, ticket)?;
    let wake = wait_in_thread(py, process, ticket, timeout);
    if !end_watch.is_none() {
        end_watch.call0()?;
    }
    wake
}

/// Ends the wait when its client closes the connection, where the WSGI server
/// makes that visible. Returns the function that ends the watch, or None.
fn watch_client<'py>(py: Python<'py>, ticket: &Ticket) -> PyResult<Bound<'py, PyAny>> {
    let hang_up = PyHangUp(ticket.waiter().clone());
    WATCH_CLIENT.get(py)?.call1((hang_up,))
}

/// Ends a wait whose client has closed the connection.
#[pyclass(frozen, name = "HangUp", module = "trytond_fastbus._native")]
#[derive(Debug)]
struct PyHangUp(Arc<Waiter>);

#[pymethods]
impl PyHangUp {
    fn __call__(&self) {
        self.0.wake(Wake::Closed);
    }
}

fn wait_in_thread(
    py: Python<'_>,
    process: &Process,
    ticket: &Ticket,
    timeout: Duration,
) -> PyResult<Option<Wake>> {
    if !is_main_thread(py)? {
        let (wake, pass) = py.detach(|| {
            let wake = ticket.waiter().wait(timeout);
            (wake, process.gate().pass())
        });
        // Dropped only now, when this thread has Python's lock again.
        drop(pass);
        return Ok(wake);
    }
    // Only the main thread runs the handlers of signals, and only between
    // two waits.
    let started = Instant::now();
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        let wake = py.detach(|| ticket.waiter().wait(left.min(SIGNALS_EVERY)));
        if wake.is_some() || left.is_zero() {
            return Ok(wake);
        }
        py.check_signals()?;
    }
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let main = MAIN_THREAD.get(py)?.call0()?;
    let threading = py.import(pyo3::intern!(py, "threading"))?;
    let current = threading.call_method0(pyo3::intern!(py, "get_ident"))?;
    main.getattr(pyo3::intern!(py, "ident"))?.eq(current)
}
