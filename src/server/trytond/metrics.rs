//! The metrics of sessions.
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};

use super::Check;
use crate::server::metrics::registered::{counter, counters, gauge, histogram};

/// The buckets for session checks, in seconds.
const CHECKS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// The metrics of sessions; clones are the same metrics.
#[derive(Clone, Debug)]
pub(crate) struct SessionMetrics {
    pub(super) hits: IntCounter,
    checks: IntCounterVec,
    /// How long sessions wait for the answer of trytond.
    pub(super) seconds: Histogram,
    /// How many sessions wait for an answer.
    pub(super) waiting: IntGauge,
    pub(super) renewals: IntCounter,
}

impl SessionMetrics {
    /// Metrics at zero, shown by `registry`.
    pub(crate) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            hits: counter(
                registry,
                "session_cache_hits_total",
                "Sessions that were cached",
            ),
            checks: counters(
                registry,
                "session_checks_total",
                "Sessions that trytond was asked for",
                "result",
            ),
            seconds: histogram(
                registry,
                "session_check_seconds",
                "Time that a session waited for its check by trytond",
                &CHECKS,
            ),
            waiting: gauge(
                registry,
                "session_checks_waiting",
                "Sessions that wait for a check by trytond",
            ),
            renewals: counter(
                registry,
                "session_renewals_total",
                "Checks of sessions that have a poll waiting",
            ),
        };
        // A counter that begins with its first event hides that event.
        for check in [
            Check::Valid,
            Check::Invalid,
            Check::UnknownDatabase,
            Check::Failed,
        ] {
            metrics.checks.with_label_values(&[label(check)]);
        }
        metrics
    }

    /// Counts an answer of trytond.
    pub(super) fn checked(&self, check: Check) {
        self.checks.with_label_values(&[label(check)]).inc();
    }
}

fn label(check: Check) -> &'static str {
    match check {
        Check::Valid => "valid",
        Check::Invalid => "invalid",
        Check::UnknownDatabase => "unknown database",
        Check::Failed => "failed",
    }
}
