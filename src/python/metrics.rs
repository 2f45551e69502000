//! The metrics of a process that answers the polls itself (class mode).
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Encoder, IntGauge, Registry, TextEncoder};
use prometheus::{IntCounterVec, Opts};
use pyo3::prelude::*;

use crate::bus::Bus;
use crate::registry;
use crate::server::metrics::describe;
use crate::server::metrics::exposition::Exposition;
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
        let mut text = Vec::new();
        if let Ok(polls) = polls(&registry) {
            let waiting = waiting.sum::<usize>();
            polls.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
        // Writing to a Vec can't fail, and the names are valid.
        let _ = TextEncoder::new().encode(&registry.gather(), &mut text);
        let mut text = String::from_utf8_lossy(&text).into_owned();
        Exposition::default().write(&mut text, &buses);
        text
    })
}

/// Registers the counter of ended polls, and returns the gauge of waiting
/// polls.
fn polls(registry: &Registry) -> prometheus::Result<IntGauge> {
    let options =
        |name: &str, help: &str| Opts::new(name, help).namespace("trytond_bus");
    let ended = IntCounterVec::new(
        options(
            "polls_ended_total",
            "Polls that waited, by the reason of their end",
        ),
        &["reason"],
    )?;
    registry.register(Box::new(ended.clone()))?;
    for (reason, counter) in [
        ("message", &MESSAGE),
        ("timeout", &TIMEOUT),
        ("client_gone", &CLIENT_GONE),
        ("drain", &DRAIN),
    ] {
        let number = counter.load(Ordering::Relaxed);
        ended.with_label_values(&[reason]).inc_by(number);
    }
    let waiting = IntGauge::with_opts(options("polls_waiting", "Polls that wait"))?;
    registry.register(Box::new(waiting.clone()))?;
    Ok(waiting)
}
