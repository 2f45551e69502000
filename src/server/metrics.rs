//! What the server counts, in the format of Prometheus.
use hyper::StatusCode;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::runtime::Handle;

use super::trytond::Check;
use crate::bus::Bus;

/// The bounds of the latency histogram, in seconds.
const LATENCIES: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 5.0,
];

/// What the server counts. Each server has its own.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) connections: IntGauge,
    pub(super) tls_failures: IntCounter,
    pub(super) polls: IntGauge,
    /// Polls beyond `max_polls`.
    pub(super) held: IntGauge,
    tasks: IntGauge,
    requests: IntCounterVec,
    /// That of the status 200, which nearly all have.
    requests_good: IntCounter,
    pub(super) delivered: IntCounter,
    pub(super) replayed: IntCounter,
    pub(super) latency: Histogram,
    pub(super) session_hits: IntCounter,
    pub(super) draining: IntGauge,
    session_checks: IntCounterVec,
    listening: IntGaugeVec,
    published: IntCounterVec,
    evicted: IntCounterVec,
    skipped: IntCounterVec,
    gaps: IntCounterVec,
    rewinds: IntCounterVec,
    history_bytes: IntGaugeVec,
    history_messages: IntGaugeVec,
    journal_number: IntGaugeVec,
}

impl Metrics {
    /// All at zero.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let latency = HistogramOpts::new(
            "trytond_bus_delivery_seconds",
            "From the arrival of a message to its answer, for polls that waited",
        );
        let latency = Histogram::with_opts(latency.buckets(LATENCIES.into()))
            .expect("the bounds rise");
        registry
            .register(Box::new(latency.clone()))
            .expect("the name is free");
        let requests = counters(&registry, "requests_total", "Answers", "status");
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
            latency,
            session_hits: counter(
                &registry,
                "session_cache_hits_total",
                "Sessions that were remembered",
            ),
            draining: gauge(&registry, "draining", "Whether the server is to stop"),
            session_checks: counters(
                &registry,
                "session_checks_total",
                "Sessions that trytond was asked for",
                "result",
            ),
            listening: gauges(
                &registry,
                "listening",
                "Whether there is a connection to the database",
            ),
            published: counters(
                &registry,
                "published_total",
                "Messages that arrived",
                "database",
            ),
            evicted: counters(
                &registry,
                "evicted_total",
                "Messages that can't be asked for any more, for want of room",
                "database",
            ),
            skipped: counters(
                &registry,
                "skipped_total",
                "Notifications that are no messages",
                "database",
            ),
            gaps: counters(
                &registry,
                "gaps_total",
                "Times in which messages may have been lost",
                "database",
            ),
            rewinds: counters(
                &registry,
                "journal_rewinds_total",
                "Times that the numbers of the journal went back",
                "database",
            ),
            history_bytes: gauges(
                &registry,
                "history_bytes",
                "What the retained messages take",
            ),
            history_messages: gauges(
                &registry,
                "history_messages",
                "How many messages are retained",
            ),
            journal_number: gauges(
                &registry,
                "journal_number",
                "The greatest number of the journal that was read",
            ),
            registry,
        }
    }

    pub(super) fn answered(&self, status: StatusCode) {
        if status == StatusCode::OK {
            self.requests_good.inc();
        } else {
            self.requests.with_label_values(&[status.as_str()]).inc();
        }
    }

    pub(super) fn session_check(&self, check: Check) {
        let result = match check {
            Check::Valid => "valid",
            Check::Invalid => "invalid",
            Check::UnknownDatabase => "unknown database",
            Check::Failed => "failed",
        };
        self.session_checks.with_label_values(&[result]).inc();
    }

    /// All in text, with what the buses of these databases count. It is asked
    /// for within the runtime, whose tasks are counted as well.
    pub(super) fn text(&self, databases: &[(Box<str>, Bus)]) -> Vec<u8> {
        let tasks = Handle::current().metrics().num_alive_tasks();
        self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        // A bus that is gone says nothing any more.
        for gauges in [
            &self.listening,
            &self.history_bytes,
            &self.history_messages,
            &self.journal_number,
        ] {
            gauges.reset();
        }
        for (name, bus) in databases {
            let labels = &[&**name];
            let statistics = bus.statistics();
            for (counter, value) in [
                (&self.published, statistics.published),
                (&self.evicted, statistics.evicted),
                (&self.skipped, statistics.skipped),
                (&self.gaps, statistics.gaps),
                (&self.rewinds, statistics.rewinds),
            ] {
                let counter = counter.with_label_values(labels);
                // A bus that was made anew counts from zero again, and so do
                // these: who reads counters knows that they may.
                if value < counter.get() {
                    counter.reset();
                }
                counter.inc_by(value.saturating_sub(counter.get()));
            }
            for (gauge, value) in [
                (&self.listening, statistics.listening.into()),
                (&self.history_bytes, statistics.bytes),
                (&self.history_messages, statistics.retained),
            ] {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                gauge.with_label_values(labels).set(value);
            }
            if bus.has_journal() {
                let number = i64::try_from(statistics.number).unwrap_or(i64::MAX);
                self.journal_number.with_label_values(labels).set(number);
            }
        }
        let mut text = Vec::new();
        // A Vec takes all, and the names are good.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("trytond_bus")
}

fn register<T: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<T>,
) -> T {
    let made = made.expect("the name is good");
    registry
        .register(Box::new(made.clone()))
        .expect("the name is free");
    made
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(options(name, help)))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(options(name, help)))
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    register(registry, IntCounterVec::new(options(name, help), &[label]))
}

fn gauges(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    register(
        registry,
        IntGaugeVec::new(options(name, help), &["database"]),
    )
}
