//! The metrics of the server, in the format of Prometheus.
pub(crate) mod exposition;
pub(crate) mod registered;

use std::time::Duration;

use hyper::StatusCode;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};
use tokio::runtime::Handle;

use self::exposition::Exposition;
use self::registered::{counter, counters, describe, gauge, histogram, text};
use super::config::Config;
use crate::bus::Bus;

/// The bounds of the latency histogram, in seconds.
const LATENCIES: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 5.0,
];

/// The buckets for the times after which clients close the connection. They
/// include the usual time-outs of proxies.
const CUTS: [f64; 14] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 75.0, 100.0, 120.0, 180.0, 240.0, 300.0,
    360.0,
];

/// The labels of [`Metrics::ended`].
const REASONS: [&str; 6] = [
    "message",
    "timeout",
    "drain",
    "superseded",
    "session",
    "client_gone",
];

/// The metrics of a server. Each server has its own.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) connections: IntGauge,
    pub(crate) tls_failures: IntCounter,
    polls: IntGauge,
    /// Polls beyond `max_polls`.
    pub(crate) held: IntGauge,
    tasks: IntGauge,
    requests: IntCounterVec,
    /// The counter of the status 200, which nearly all answers have.
    requests_good: IntCounter,
    pub(crate) delivered: IntCounter,
    pub(crate) replayed: IntCounter,
    pub(crate) latency: Histogram,
    pub(crate) draining: IntGauge,
    ended: IntCounterVec,
    client_gone: Histogram,
    certificate: IntGauge,
    buses: Exposition,
}

/// Something that a gauge counts, until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    pub(crate) fn by(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How the wait of a poll has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    Message,
    Timeout,
    Drain,
    /// Another poll of the same client has taken its place.
    Superseded,
    /// Its session is no longer valid.
    Session,
    /// The client has closed the connection after this time.
    ClientGone(Duration),
}

impl Metrics {
    /// Metrics at zero, for a server with this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let registry = Registry::new();
        describe(&registry);
        show(&registry, config);
        let requests = counters(&registry, "requests_total", "Answers", "status");
        let ended = counters(
            &registry,
            "polls_ended_total",
            "Polls that waited, by the reason of their end",
            "reason",
        );
        // A counter that begins with its first event hides that event.
        for reason in REASONS {
            ended.with_label_values(&[reason]);
        }
        Self {
            requests_good: requests.with_label_values(&["200"]),
            requests,
            connections: gauge(&registry, "connections", "Open connections"),
            tls_failures: counter(
                &registry,
                "tls_failures_total",
                "Connections that did not come to speak TLS",
            ),
            polls: gauge(&registry, "polls_waiting", "Polls that wait"),
            held: gauge(
                &registry,
                "polls_held",
                "Polls beyond max_polls, which look for a message but wait for none",
            ),
            tasks: gauge(&registry, "tasks", "Tasks of the server's threads"),
            delivered: counter(&registry, "delivered_total", "Messages answered"),
            replayed: counter(
                &registry,
                "replayed_total",
                "Messages answered that were there before the poll",
            ),
            latency: histogram(
                &registry,
                "delivery_seconds",
                "Time from the arrival of a message to its answer, for polls that waited",
                &LATENCIES,
            ),
            draining: gauge(&registry, "draining", "Whether the server is to stop"),
            ended,
            client_gone: histogram(
                &registry,
                "client_gone_seconds",
                "Time after which clients closed the connection of a waiting poll: \
                 many at one time show a proxy that cuts",
                &CUTS,
            ),
            certificate: gauge(
                &registry,
                "certificate_expiry_timestamp_seconds",
                "When the certificate expires, since 1970; 0 without TLS",
            ),
            buses: Exposition::default(),
            registry,
        }
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        if status == StatusCode::OK {
            self.requests_good.inc();
        } else {
            self.requests.with_label_values(&[status.as_str()]).inc();
        }
    }

    /// The registry that shows these metrics, and others that are added to it.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics as text, with this number of polls that wait, and with the
    /// counters of the buses of these databases.
    /// It is called within the runtime, whose tasks are counted as well.
    pub(crate) fn text(
        &self,
        config: &Config,
        polls: usize,
        databases: &[(Box<str>, Bus)],
    ) -> String {
        self.polls.set(i64::try_from(polls).unwrap_or(i64::MAX));
        let ends = config.tls.as_ref().map_or(0, |tls| tls.ends());
        self.certificate
            .set(i64::try_from(ends).unwrap_or(i64::MAX));
        let tasks = Handle::current().metrics().num_alive_tasks();
        self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        let mut text = text(&self.registry);
        self.buses.write(&mut text, databases);
        text
    }

    /// Notes how a poll has ended.
    pub(crate) fn ended(&self, ended: Ended) {
        let reason = match ended {
            Ended::Message => "message",
            Ended::Timeout => "timeout",
            Ended::Drain => "drain",
            Ended::Superseded => "superseded",
            Ended::Session => "session",
            Ended::ClientGone(time) => {
                self.client_gone.observe(time.as_secs_f64());
                "client_gone"
            }
        };
        self.ended.with_label_values(&[reason]).inc();
    }
}

/// Shows each limit beside its current use.
fn show(registry: &Registry, config: &Config) {
    let limits = &config.limits;
    for (name, help, value) in [
        (
            "connections_limit",
            "Most connections: [bus] max_connections",
            limits.max_connections,
        ),
        (
            "polls_waiting_limit",
            "Most polls that wait: [bus] max_polls",
            limits.max_polls,
        ),
        (
            "history_limit_bytes",
            "Most bytes of the retained messages of a database: [bus] cache_size",
            config.history.cache_size,
        ),
    ] {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        gauge(registry, name, help).set(value);
    }
    let timeout = config.long_polling_timeout.as_secs();
    gauge(
        registry,
        "long_polling_timeout_seconds",
        "Time after which a poll is answered empty: [bus] long_polling_timeout",
    )
    .set(i64::try_from(timeout).unwrap_or(i64::MAX));
}
