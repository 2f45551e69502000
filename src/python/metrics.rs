//! The metrics of a process that answers the polls itself (class mode).
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::Registry;
use pyo3::prelude::*;

use crate::bus::Bus;
use crate::registry;
use crate::server::metrics::exposition::Exposition;
use crate::server::metrics::registered::{counters, describe, gauge, text};
use crate::waiter::Wake;

/// Polls that waited, by the reason of their end. Atomics, because a fork could
/// break a lock.
static MESSAGE: AtomicU64 = AtomicU64::new(0);
static TIMEOUT: AtomicU64 = AtomicU64::new(0);
static CLIENT_GONE: AtomicU64 = AtomicU64::new(0);
static DRAIN: AtomicU64 = AtomicU64::new(0);

/// Counts a poll by the reason of its end; none is the timeout.
pub(super) fn ended(wake: Option<&Wake>, is_closed: bool) {
    let counter = match wake {
        Some(Wake::Message(_)) => &MESSAGE,
        Some(Wake::Closed) if is_closed => &DRAIN,
        Some(Wake::Closed) => &CLIENT_GONE,
        None => &TIMEOUT,
        // The poll continues.
        Some(_) => return,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The metrics of this process, in the format of Prometheus.
#[pyfunction]
pub(super) fn metrics(py: Python<'_>) -> String {
    py.detach(|| {
        let process = registry::current();
        let names = process.databases().into_iter();
        let buses: Vec<(Box<str>, Bus)> = names
            .filter_map(|name| Some((name.clone(), process.bus(&name)?)))
            .collect();
        let waiting = buses.iter().map(|(_, bus)| bus.statistics().waiting);
        let registry = Registry::new();
        describe(&registry);
        show_polls(&registry, waiting.sum());
        let mut text = text(&registry);
        Exposition::default().write(&mut text, &buses);
        text
    })
}

/// Shows the polls that have ended, and those that wait.
fn show_polls(registry: &Registry, waiting: usize) {
    let ended = counters(
        registry,
        "polls_ended_total",
        "Polls that waited, by the reason of their end",
        "reason",
    );
    for (reason, counter) in [
        ("message", &MESSAGE),
        ("timeout", &TIMEOUT),
        ("client_gone", &CLIENT_GONE),
        ("drain", &DRAIN),
    ] {
        let number = counter.load(Ordering::Relaxed);
        ended.with_label_values(&[reason]).inc_by(number);
    }
    let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
    gauge(registry, "polls_waiting", "Polls that wait").set(waiting);
}
