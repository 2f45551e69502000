//! Polls that wait for a look, without a journal.
use std::time::Duration;

use proptest::prelude::*;

use crate::alarm::Alarm;
use crate::bus::{Bus, Crowd, Settling, Subscription};
use crate::history::Bounds;
use crate::message::{Id, Message};
use crate::waiter::{Signal, Wake};

const NOW: Duration = Duration::ZERO;
const BOUNDS: Bounds = Bounds {
    cache_timeout: Duration::from_secs(5),
    journal_timeout: None,
    cache_size: usize::MAX,
};
const ASKED: [&str; 2] = ["a", "c"];

fn id(number: usize) -> Id {
    Id::from_json(&number.to_string())
}

fn message(log: &[bool], number: usize) -> Message {
    let channel = if log[number] { "a" } else { "b" };
    let json = format!("{{\"message_id\":{number}}}");
    Message::new(channel, &json).expect("a good message")
}

/// A process: its bus, and the number of messages that it has received.
struct Process {
    bus: Bus,
    received: usize,
}

impl Process {
    fn new() -> Self {
        let bus = Bus::new(BOUNDS);
        bus.expect_looks();
        Self { bus, received: 0 }
    }

    /// Receives the messages up to this one.
    fn receive(&mut self, log: &[bool], until: usize) {
        let messages = (self.received..until).map(|number| message(log, number));
        let messages = messages.collect();
        self.bus.publish(messages, NOW).iter().for_each(Crowd::wake);
        self.received = self.received.max(until);
    }

    fn look(&mut self, log: &[bool]) {
        self.bus.begin_look();
        self.receive(log, log.len());
        self.bus.end_look().wake();
    }

    fn subscribe(&self, last: Option<usize>, settling: &mut Settling) -> Subscription {
        let last = last.map(id);
        self.bus
            .subscribe(&ASKED, last.as_ref(), settling, NOW, Signal::thread)
    }

    /// Polls, and gives up after `looks` looks.
    fn poll(
        &mut self,
        log: &[bool],
        last: Option<usize>,
        looks: usize,
    ) -> Option<usize> {
        let mut settling = Settling::default();
        for left in (0..=looks).rev() {
            let ticket = match self.subscribe(last, &mut settling) {
                Subscription::Message(found) => return number(&found),
                Subscription::Waiting(ticket) => ticket,
            };
            if left > 0 {
                self.look(log);
            }
            match ticket.waiter().woken() {
                Some(Wake::Message(found)) => return number(&found),
                Some(wake) => settling.woken(&wake),
                None => return None,
            }
        }
        None
    }
}

fn number(message: &Message) -> Option<usize> {
    let number = |number: &usize| message.id() == &id(*number);
    (0..1000).find(number)
}

#[test]
fn poll_waits_for_a_look_that_begins_after_it() {
    let mut process = Process::new();
    let log = [true, true];
    process.receive(&log, 1);
    process.bus.begin_look();
    let mut settling = Settling::default();
    let Subscription::Waiting(ticket) = process.subscribe(Some(1), &mut settling)
    else {
        panic!("the message is not known here");
    };
    assert!(process.bus.is_look_awaited() && process.bus.is_waiting());
    process.bus.end_look().wake();
    assert!(matches!(ticket.waiter().woken(), Some(Wake::Looked)));
    drop(ticket);
    assert_eq!(process.poll(&log, Some(1), 1), None);
    // A message that a look has not found is unknown.
    assert_eq!(process.poll(&log, Some(9), 1), Some(0));
}

#[test]
fn one_look_serves_all_polls_that_wait() {
    let mut process = Process::new();
    let alarm = Alarm::new().expect("sockets");
    process.bus.set_bell(alarm.bell(1));
    let log = [true];
    process.receive(&log, 1);
    let polls: Vec<_> = (1..9)
        .map(|last| process.subscribe(Some(last), &mut Settling::default()))
        .collect();
    assert_eq!(alarm.take(), [1]);
    process.look(&log);
    assert!(alarm.take().is_empty());
    for poll in polls {
        let Subscription::Waiting(ticket) = poll else {
            panic!("the message is not known here");
        };
        assert!(matches!(ticket.waiter().woken(), Some(Wake::Looked)));
    }
}

#[test]
fn without_a_listener_an_id_is_unknown_at_once() {
    let bus = Bus::new(BOUNDS);
    let _ = bus.publish(vec![message(&[true], 0)], NOW);
    let mut settling = Settling::default();
    let last = id(9);
    let found = bus.subscribe(&ASKED, Some(&last), &mut settling, NOW, Signal::thread);
    assert!(matches!(found, Subscription::Message(_)));
}

#[derive(Clone, Debug)]
enum Step {
    /// Publish a message, to a channel of the poll or to another one.
    Publish(bool),
    /// A process receives some of the messages that it does not have yet.
    Receive(prop::sample::Index, usize),
    /// The client polls a process, which makes this number of looks
    /// meanwhile.
    Poll(prop::sample::Index, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let process = any::<prop::sample::Index>;
    prop_oneof![
        3 => any::<bool>().prop_map(Step::Publish),
        3 => (process(), 1_usize..4).prop_map(|(p, n)| Step::Receive(p, n)),
        4 => (process(), 0_usize..3).prop_map(|(p, n)| Step::Poll(p, n)),
    ]
}

proptest! {
    /// A client gets each message of its channels once and in order, even
    /// if it polls a random process that lags behind.
    #[test]
    fn client_may_poll_any_process_that_lags(
        count in 2_usize..8, steps in prop::collection::vec(step(), 1..120)) {
        let mut processes: Vec<_> = (0..count).map(|_| Process::new()).collect();
        let (mut log, mut got) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Publish(is_asked) => log.push(is_asked),
                Step::Receive(index, some) => {
                    let process = index.get_mut(&mut processes);
                    let until = log.len().min(process.received + some);
                    process.receive(&log, until);
                }
                Step::Poll(index, looks) => {
                    let process = index.get_mut(&mut processes);
                    got.extend(process.poll(&log, got.last().copied(), looks));
                }
            }
        }
        let process = &mut processes[0];
        process.receive(&log, log.len());
        while let Some(number) = process.poll(&log, got.last().copied(), 2) {
            got.push(number);
        }
        let asked: Vec<_> = (0..log.len()).filter(|number| log[*number]).collect();
        prop_assert_eq!(got, asked);
    }
}
