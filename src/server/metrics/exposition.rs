//! The counters of the buses of a process, in the format of Prometheus.
use std::collections::HashMap;
use std::fmt::Write;

use crate::bus::{Bus, Statistics};
use crate::sync::{Mutex, lock};

/// A counter of each database: its name, its help text, and how to read it.
type Counter = (&'static str, &'static str, fn(&Statistics) -> u64);

const COUNTERS: [Counter; 5] = [
    ("published_total", "Messages that arrived", |statistics| {
        statistics.published
    }),
    (
        "evicted_total",
        "Messages that were dropped before their time, for lack of memory",
        |statistics| statistics.evicted,
    ),
    (
        "skipped_total",
        "Notifications that are no messages",
        |statistics| statistics.skipped,
    ),
    (
        "gaps_total",
        "Times that messages may have been lost with the connection",
        |statistics| statistics.gaps,
    ),
    (
        "journal_rewinds_total",
        "Times that the numbers of the journal went back",
        |statistics| statistics.rewinds,
    ),
];

/// A gauge of each database; it has no value where it does not apply.
type Gauge = (
    &'static str,
    &'static str,
    fn(&Statistics, bool) -> Option<f64>,
);

#[expect(clippy::cast_precision_loss, reason = "so does Prometheus")]
const GAUGES: [Gauge; 5] = [
    (
        "listening",
        "Whether there is a connection to the database",
        |statistics, _| Some(u8::from(statistics.listening).into()),
    ),
    (
        "history_bytes",
        "Bytes that the retained messages take",
        |statistics, _| Some(statistics.bytes as f64),
    ),
    (
        "history_messages",
        "Messages that are retained",
        |statistics, _| Some(statistics.retained as f64),
    ),
    (
        "journal_number",
        "Greatest number of the journal that was read",
        |statistics, has_journal| has_journal.then_some(statistics.number as f64),
    ),
    (
        "queue_usage_ratio",
        "Part of PostgreSQL's queue of notifications that is in use",
        |statistics, _| Some(statistics.queue_usage),
    ),
];

/// The counters as they were last shown. A bus that was made anew counts from
/// zero, but a counter of Prometheus must not decrease.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    shown: Mutex<HashMap<Box<str>, [Shown; COUNTERS.len()]>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    /// The counts of earlier buses of the database.
    before: u64,
    last: u64,
}

impl Shown {
    fn next(self, value: u64) -> Self {
        let lost = if value < self.last { self.last } else { 0 };
        Self {
            before: self.before + lost,
            last: value,
        }
    }
}

impl Exposition {
    /// All metrics of these buses. The databases of other buses are forgotten.
    pub(crate) fn write(&self, text: &mut String, buses: &[(Box<str>, Bus)]) {
        let mut rows = Vec::with_capacity(buses.len());
        for (name, bus) in buses {
            rows.push((escaped(name), bus.statistics(), bus.journal().is_some()));
        }
        let shown = self.count(buses, &rows);
        for (index, (name, help, _)) in COUNTERS.iter().enumerate() {
            head(text, name, help, "counter");
            for ((database, ..), shown) in rows.iter().zip(&shown) {
                let value = shown[index].before + shown[index].last;
                row(text, name, database, &value.to_string());
            }
        }
        for (name, help, read) in GAUGES {
            head(text, name, help, "gauge");
            for (database, statistics, has_journal) in &rows {
                if let Some(value) = read(statistics, *has_journal) {
                    row(text, name, database, &value.to_string());
                }
            }
        }
    }

    fn count(
        &self,
        buses: &[(Box<str>, Bus)],
        rows: &[(String, Statistics, bool)],
    ) -> Vec<[Shown; COUNTERS.len()]> {
        let mut shown = lock(&self.shown);
        let mut before = std::mem::take(&mut *shown);
        buses
            .iter()
            .zip(rows)
            .map(|((name, _), (_, statistics, _))| {
                let mut all = before.remove(name).unwrap_or_default();
                for (one, (.., read)) in all.iter_mut().zip(COUNTERS) {
                    *one = one.next(read(statistics));
                }
                shown.insert(name.clone(), all);
                all
            })
            .collect()
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "# HELP trytond_bus_{name} {help}\n# TYPE trytond_bus_{name} {kind}"
    );
}

fn row(text: &mut String, name: &str, database: &str, value: &str) {
    let _ = writeln!(
        text,
        "trytond_bus_{name}{{database=\"{database}\"}} {value}"
    );
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::Bounds;
    use crate::message::Message;

    fn bus(messages: usize) -> Bus {
        let bus = Bus::new(Bounds {
            cache_timeout: Duration::from_secs(300),
            journal_timeout: None,
            cache_size: 1_000_000,
        });
        for number in 0..messages {
            let json = format!("{{\"message_id\":{number}}}");
            let message = Message::new("a", &json).expect("a message");
            let _no_waiters = bus.publish(vec![message], Duration::ZERO);
        }
        bus
    }

    #[test]
    fn counter_does_not_go_back_when_a_bus_is_made_anew() {
        let exposition = Exposition::default();
        for (name, messages, expected) in [
            ("a", 3, 3),
            ("a", 5, 5),
            ("a", 2, 7),
            ("a", 2, 7),
            ("a", 3, 8),
        ] {
            let mut text = String::new();
            exposition.write(&mut text, &[(name.into(), bus(messages))]);
            let row = format!("published_total{{database=\"{name}\"}} {expected}\n");
            assert!(text.contains(&row), "{text}");
        }
        let mut text = String::new();
        exposition.write(&mut text, &[("b\"\\\n".into(), bus(1))]);
        assert!(!text.contains("database=\"a\""), "it is forgotten: {text}");
        assert!(text.contains("database=\"b\\\"\\\\\\n\""), "{text}");
    }
}
