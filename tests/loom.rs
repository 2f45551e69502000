//! Models of concurrent threads: a subscriber registers while others publish or
//! read the journal, and is woken in each way. loom runs every order in which
//! their steps can interleave.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test
//! loom`
#![cfg(loom)]
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Mutex, Notify};
use loom::thread;
use trytond_fastbus::bus::{Bus, Settling, Subscription};
use trytond_fastbus::gate::Gate;
use trytond_fastbus::history::Bounds;
use trytond_fastbus::message::{Id, Message};
use trytond_fastbus::waiter::{Signal, TaskQueue, TokenQueue, Waiter, Wake};

const NOW: Duration = Duration::ZERO;
const BOUNDS: Bounds = Bounds {
    cache_timeout: Duration::from_secs(5),
    journal_timeout: None,
    cache_size: usize::MAX,
};

fn publish(bus: &Bus, channel: &str, id: u8) {
    let message = format!("{{\"message_id\":{id}}}");
    let message = Message::new(channel, &message).expect("a good message");
    for crowd in bus.publish(vec![message], NOW) {
        crowd.wake();
    }
}

/// Waits for ever. In the model a missing wake-up is a deadlock.
fn subscribe(bus: &Bus, last: Option<&Id>) -> Option<Id> {
    match bus.subscribe(
        &["a", "b"],
        last,
        &mut Settling::default(),
        NOW,
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
        let oldest = bus.next(&["a", "b"], None, NOW).expect("two messages");
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
            move || bus.close().wake()
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
            NOW,
            Signal::thread,
        ));
        publisher.join().expect("no panic");
        assert_eq!(bus.statistics().waiting, 0);
        assert_eq!(subscribe(&bus, None), Some(Id::from_json("1")));
    });
}

/// Reads the rows of the table that were not read yet, as the listener does.
fn look(bus: &Bus, table: &Mutex<Vec<u64>>) {
    bus.begin_look();
    let rows = table.lock().expect("no panic").clone();
    let messages = rows.into_iter().map(|number| {
        let json = format!("{{\"message_id\":{number}}}");
        let message = Message::new("a", &json).expect("a good message");
        message.numbered(number)
    });
    for crowd in bus.publish(messages.collect(), NOW) {
        crowd.wake();
    }
    bus.end_look().wake();
}

/// The client has received message 2 from another process, after its commit.
#[test]
fn poll_waits_for_a_look_that_begins_after_it_came() {
    loom::model(|| {
        let bus = Bus::new(Bounds {
            journal_timeout: Some(Duration::from_secs(5)),
            ..BOUNDS
        });
        let table = Arc::new(Mutex::new(vec![1]));
        look(&bus, &table);
        let bell = Arc::new(Notify::new());
        let listener = thread::spawn({
            let (bus, table, bell) = (bus.clone(), table.clone(), bell.clone());
            move || {
                look(&bus, &table);
                bell.wait();
                look(&bus, &table);
            }
        });
        table.lock().expect("no panic").extend([2, 3]);
        let last = Id::from_json("2");
        let mut settling = Settling::default();
        let next = loop {
            let found =
                bus.subscribe(&["a"], Some(&last), &mut settling, NOW, Signal::thread);
            bell.notify();
            match found {
                Subscription::Message(message) => break message,
                Subscription::Waiting(ticket) => {
                    match ticket.waiter().wait(Duration::MAX) {
                        Some(Wake::Message(message)) => break message,
                        Some(wake) => settling.woken(&wake),
                        None => panic!("nothing has woken it"),
                    }
                }
            }
        };
        assert_eq!(*next.id(), Id::from_json("3"));
        listener.join().expect("no panic");
    });
}

#[test]
fn task_that_is_woken_by_another_thread_runs() {
    loom::model(|| {
        let tasks = Arc::new(TaskQueue::default());
        let waiter = Arc::new(Waiter::new(Signal::task(&tasks)));
        let waker = thread::spawn({
            let waiter = waiter.clone();
            move || waiter.wake(Wake::Closed)
        });
        // The task of a runtime, and then the runtime's relay
        let wake = block_on(poll_fn(|context| {
            let wake = waiter.poll(context);
            tasks.poll(context);
            wake
        }));
        assert!(matches!(wake, Wake::Closed));
        waker.join().expect("no panic");
    });
}

#[test]
fn loop_takes_each_token_that_was_pushed() {
    loom::model(|| {
        let signal = Arc::new(Notify::new());
        let queue = Arc::new(TokenQueue::new({
            let signal = signal.clone();
            move || signal.notify()
        }));
        let wakers = [1, 2].map(|token| {
            let waiter = Waiter::new(Signal::Queue(queue.clone(), token));
            thread::spawn(move || waiter.wake(Wake::Closed))
        });
        let mut taken = Vec::new();
        while taken.len() < 2 {
            signal.wait();
            taken.extend(queue.take());
        }
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        for waker in wakers {
            waker.join().expect("no panic");
        }
    });
}

#[test]
fn gate_lets_one_pass_at_a_time_and_all_in_the_end() {
    loom::model(|| {
        let gate = Gate::new(1);
        let inside = Arc::new(AtomicUsize::new(0));
        let pass = |gate: &Arc<Gate>, inside: &AtomicUsize| {
            let pass = gate.pass();
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(pass);
        };
        let others = [0; 2].map(|_| {
            let (gate, inside) = (gate.clone(), inside.clone());
            thread::spawn(move || pass(&gate, &inside))
        });
        pass(&gate, &inside);
        for other in others {
            other.join().expect("no panic");
        }
    });
}
