//! Measures how long the lock of a bus is held at most.
//!
//! `cargo test --release --no-default-features --test lock -- --ignored --nocapture`
//!
//! Each call that is timed holds the lock once. All calls are made in several
//! runs, and the shortest time of each call counts, because other programs of
//! the machine interrupt some of them. Set the allocator of glibc as the bus
//! server does: `GLIBC_TUNABLES=glibc.malloc.mxfast=0`.
#![cfg(not(loom))]
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use trytond_fastbus::bus::{Bus, Settling, Subscription, Ticket};
use trytond_fastbus::history::{Bounds, History};
use trytond_fastbus::message::Message;
use trytond_fastbus::waiter::Signal;

const NOW: Duration = Duration::ZERO;
/// All messages have expired.
const LATER: Duration = Duration::from_secs(1000);
const BOUNDS: Bounds = Bounds {
    cache_timeout: Duration::from_secs(300),
    journal_timeout: None,
    cache_size: 64 << 20,
};
const RUNS: usize = 5;
const WAITERS: usize = 100_000;
const MESSAGES: usize = 250_000;

#[test]
#[ignore = "it measures"]
fn lock_is_held_for_two_milliseconds_at_most() {
    println!("{:<52} {:>9} {:>10}", "operation", "calls", "longest");
    report("100,000 subscribe to a channel of their own", || {
        let (bus, mut times) = (bus(), Vec::new());
        let tickets: Vec<_> = (0..WAITERS)
            .map(|number| timed(&mut times, || subscribe(&bus, number)))
            .collect();
        drop(bus);
        drop(tickets);
        times
    });
    report("100,000 waiters leave", || {
        let (bus, mut times) = (bus(), Vec::new());
        let tickets: Vec<_> =
            (0..WAITERS).map(|number| subscribe(&bus, number)).collect();
        for ticket in tickets {
            timed(&mut times, || drop(ticket));
        }
        times
    });
    report("a message to 100,000 waiters, each slice", || {
        let (bus, mut times) = (bus(), Vec::new());
        let _tickets: Vec<_> =
            (0..WAITERS).map(|number| subscribe(&bus, number)).collect();
        let mut begun = Instant::now();
        bus.publish_to(vec![message("all", 0)], NOW, |crowd| {
            times.push(begun.elapsed().as_secs_f64());
            drop(crowd);
            begun = Instant::now();
        });
        times
    });
    for (name, is_same) in [
        ("250,000 messages on one channel", true),
        ("250,000 messages on channels of their own", false),
    ] {
        report(name, || {
            let (bus, mut times) = (bus(), Vec::new());
            for number in 0..MESSAGES {
                let message = numbered(number, is_same);
                timed(&mut times, || bus.publish(vec![message], NOW));
            }
            times
        });
        report(&format!("{name} expire, each slice"), || {
            let (mut history, mut times) = (History::new(BOUNDS), Vec::new());
            for number in 0..MESSAGES {
                drop(history.append(numbered(number, is_same), NOW));
            }
            while timed(&mut times, || history.expire(LATER)) {}
            times
        });
    }
    report("a message of 1 MB makes room in a full history", || {
        let (mut history, mut times) = (History::new(BOUNDS), Vec::new());
        for number in 0..MESSAGES {
            drop(history.append(numbered(number, false), NOW));
        }
        let text = "x".repeat(1 << 20);
        for number in 0..20 {
            let json = format!("{{\"message_id\":\"{number}\",\"text\":\"{text}\"}}");
            let message = Message::new("large", &json).expect("a message");
            timed(&mut times, || drop(history.append(message, NOW)));
            while timed(&mut times, || history.expire(NOW)) {}
        }
        times
    });
}

fn bus() -> Bus {
    Bus::new(BOUNDS)
}

fn numbered(number: usize, is_same: bool) -> Message {
    if is_same {
        message("all", number)
    } else {
        message(&format!("channel:{number}"), number)
    }
}

fn message(channel: &str, number: usize) -> Message {
    let json = format!("{{\"message_id\":\"{number:036}\",\"type\":\"test\"}}");
    Message::new(channel, &json).expect("a message")
}

fn subscribe(bus: &Bus, number: usize) -> Ticket {
    let channels: [Arc<str>; 2] = ["all".into(), format!("client:{number}").into()];
    let subscription = bus.subscribe(
        &channels,
        None,
        &mut Settling::default(),
        NOW,
        Signal::thread,
    );
    match subscription {
        Subscription::Waiting(ticket) => ticket,
        Subscription::Message(_) => unreachable!("nothing was published"),
    }
}

fn timed<T>(times: &mut Vec<f64>, call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = call();
    times.push(begun.elapsed().as_secs_f64());
    result
}

/// Prints the time of the longest call, and fails if it is too long.
fn report(name: &str, run: impl Fn() -> Vec<f64>) {
    let mut best = run();
    for _ in 1..RUNS {
        for (best, time) in best.iter_mut().zip(run()) {
            *best = best.min(time);
        }
    }
    let longest = best.iter().copied().fold(0.0, f64::max);
    println!("{name:<52} {:>9} {:>7.3} ms", best.len(), longest * 1000.0);
    assert!(longest < 0.002, "{name}");
}
