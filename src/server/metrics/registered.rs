//! Metrics that a registry has.
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Adds the version and the resources of the process to a registry.
pub(crate) fn describe(registry: &Registry) {
    let info = IntGaugeVec::new(
        options("build_info", "The version of trytond-fastbus"),
        &["version"],
    );
    let version = [env!("CARGO_PKG_VERSION")];
    register(registry, info).with_label_values(&version).set(1);
    #[cfg(target_os = "linux")]
    registry
        .register(Box::new(ProcessCollector::for_self()))
        .expect("the names are free");
}

/// All metrics of a registry as text.
pub(crate) fn text(registry: &Registry) -> String {
    let mut text = Vec::new();
    // Writing to a Vec can't fail, and the names are valid.
    let _ = TextEncoder::new().encode(&registry.gather(), &mut text);
    String::from_utf8_lossy(&text).into_owned()
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

pub(crate) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(options(name, help)))
}

pub(crate) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(options(name, help)))
}

pub(crate) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> IntCounterVec {
    register(registry, IntCounterVec::new(options(name, help), &[label]))
}

pub(crate) fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    bounds: &[f64],
) -> Histogram {
    let options = HistogramOpts::from(options(name, help)).buckets(bounds.to_vec());
    register(registry, Histogram::with_opts(options))
}
