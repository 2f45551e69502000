//! The buses of a process, from the first poll to the exit.
use std::time::Duration;

use super::*;
use crate::bus::{Settling, Subscription};
use crate::history::Bounds;
use crate::waiter::{Signal, Wake};

const BOUNDS: Bounds = Bounds {
    cache_timeout: Duration::from_secs(5),
    journal_timeout: None,
    cache_size: usize::MAX,
};

fn wait(process: &Process, bus: &Bus) -> Subscription {
    bus.subscribe(
        &["a"],
        None,
        &mut Settling::default(),
        process.now(),
        Signal::thread,
    )
}

#[test]
fn published_message_wakes_through_the_pool() {
    let process = Process::new();
    let bus = process.open("db", BOUNDS);
    let Subscription::Waiting(ticket) = wait(&process, &bus) else {
        panic!("nothing was published");
    };
    let message = Message::new("a", r#"{"message_id":1}"#).expect("a good message");
    process.publish(&bus, vec![message]).expect("threads");
    let wake = ticket.waiter().wait(Duration::MAX);
    assert!(matches!(wake, Some(Wake::Message(_))));
}

#[test]
fn forgotten_bus_ends_waits_that_begin_later() {
    let process = Process::new();
    let bus = process.open("db", BOUNDS);
    assert!(process.remove("db", Duration::ZERO));
    let Subscription::Waiting(ticket) = wait(&process, &bus) else {
        panic!("nothing was published");
    };
    let wake = ticket.waiter().wait(Duration::ZERO);
    assert!(matches!(wake, Some(Wake::Closed)));
}

#[test]
fn bus_is_forgotten_unless_a_poll_waits() {
    let process = Process::new();
    let bus = process.open("db", BOUNDS);
    let ticket = wait(&process, &bus);
    assert!(!process.remove("db", Duration::ZERO));
    assert!(process.bus("db").is_some());
    drop(ticket);
    assert!(process.remove("db", Duration::ZERO));
    assert!(process.bus("db").is_none());
}

#[test]
fn bus_is_kept_for_a_time_after_a_poll() {
    let process = Process::new();
    let _bus = process.open("db", BOUNDS);
    process.listen("db");
    assert!(process.ask("db").is_some());
    assert!(!process.is_idle("db", Duration::from_secs(60)));
    assert!(!process.remove("db", Duration::from_secs(60)));
    assert!(process.is_idle("db", Duration::ZERO));
    assert!(process.remove("db", Duration::ZERO));
    assert!(process.ask("db").is_none());
}

#[test]
fn bus_is_only_asked_while_it_is_listened_to() {
    let process = Process::new();
    assert!(process.ask("db").is_none());
    let bus = process.open("db", BOUNDS);
    assert!(process.ask("db").is_none());
    process.listen("db");
    assert!(process.ask("db").is_some());
    let ticket = wait(&process, &bus);
    process.abandon("db");
    assert!(process.ask("db").is_none());
    assert!(process.bus("db").is_some());
    drop(ticket);
    assert!(process.is_idle("db", Duration::from_secs(60)));
}

#[test]
fn closed_process_keeps_no_waiter() {
    let process = Process::new();
    let bus = process.open("db", BOUNDS);
    process.close();
    for bus in [bus, process.open("other", BOUNDS)] {
        let Subscription::Waiting(ticket) = wait(&process, &bus) else {
            panic!("nothing was published");
        };
        let wake = ticket.waiter().wait(Duration::MAX);
        assert!(matches!(wake, Some(Wake::Closed)));
    }
}
