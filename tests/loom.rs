//! A model of a subscriber that registers while others publish: loom runs
//! every order in which their steps can interleave.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test loom`
#![cfg(loom)]
use std::time::Duration;

use loom::thread;
use trytond_fastbus::bus::{Bus, Settling, Subscription};
use trytond_fastbus::history::Bounds;
use trytond_fastbus::message::{Id, Message};
use trytond_fastbus::waiter::{Signal, Wake};

const BOUNDS: Bounds = Bounds {
    seconds: 5.0,
    journal: None,
    bytes: usize::MAX,
};

fn publish(bus: &Bus, channel: &str, id: u8) {
    let message = format!("{{\"message_id\":{id}}}");
    let message = Message::new(channel, &message).expect("a good message");
    for wakeup in bus.publish(vec![message], 0.0) {
        wakeup.run();
    }
}

/// Waits for ever: in the model a wake-up that is missing is a deadlock.
fn subscribe(bus: &Bus, last: Option<&Id>) -> Option<Id> {
    match bus.subscribe(
        &["a", "b"],
        last,
        &mut Settling::default(),
        0.0,
        Signal::thread,
    ) {
        Subscription::Message(message) => Some(message.id().clone()),
        Subscription::Waiting(ticket) => match ticket.waiter().wait(Duration::MAX) {
            Some(Wake::Message(message)) => Some(message.id().clone()),
            Some(Wake::Closed) => None,
            other => panic!("woken by {other:?}"),
        },
    }
}

#[test]
fn message_published_while_one_registers_arrives() {
    loom::model(|| {
        let bus = Bus::new(BOUNDS);
        let publisher = thread::spawn({
            let bus = bus.clone();
            move || publish(&bus, "a", 1)
        });
        assert_eq!(subscribe(&bus, None), Some(Id::from_json("1")));
        publisher.join().expect("no panic");
        assert_eq!(bus.statistics().waiting, 0);
    });
}

#[test]
fn both_messages_of_two_publishers_arrive_in_the_order_of_the_history() {
    loom::model(|| {
        let bus = Bus::new(BOUNDS);
        let publishers = [("a", 1), ("b", 2)].map(|(channel, id)| {
            let bus = bus.clone();
            thread::spawn(move || publish(&bus, channel, id))
        });
        let first = subscribe(&bus, None).expect("a message");
        let second = subscribe(&bus, Some(&first)).expect("a message");
        assert_ne!(first, second);
        for publisher in publishers {
            publisher.join().expect("no panic");
        }
        let oldest = bus.next(&["a", "b"], None, 0.0).expect("two messages");
        assert_eq!(*oldest.id(), first);
    });
}

#[test]
fn two_subscribers_get_the_same_message() {
    loom::model(|| {
        let bus = Bus::new(BOUNDS);
        let other = thread::spawn({
            let bus = bus.clone();
            move || subscribe(&bus, None)
        });
        publish(&bus, "b", 1);
        assert_eq!(subscribe(&bus, None), Some(Id::from_json("1")));
        assert_eq!(other.join().expect("no panic"), Some(Id::from_json("1")));
    });
}

#[test]
fn close_ends_a_wait_that_begins() {
    loom::model(|| {
        let bus = Bus::new(BOUNDS);
        let closer = thread::spawn({
            let bus = bus.clone();
            move || bus.close().run()
        });
        assert_eq!(subscribe(&bus, None), None);
        closer.join().expect("no panic");
    });
}

#[test]
fn ticket_dropped_while_it_is_woken_leaves_nothing() {
    loom::model(|| {
        let bus = Bus::new(BOUNDS);
        let publisher = thread::spawn({
            let bus = bus.clone();
            move || publish(&bus, "a", 1)
        });
        drop(bus.subscribe(
            &["a", "b"],
            None,
            &mut Settling::default(),
            0.0,
            Signal::thread,
        ));
        publisher.join().expect("no panic");
        assert_eq!(bus.statistics().waiting, 0);
        assert_eq!(subscribe(&bus, None), Some(Id::from_json("1")));
    });
}
