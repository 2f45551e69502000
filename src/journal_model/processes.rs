//! A client that polls several processes of one database.
use std::ops::Range;

use proptest::prelude::*;

use super::{BOUNDS, NOW, announce, id, id_of, journal, read};
use crate::bus::{Bus, NUMBER_MAX, Row, Settling, Subscription};
use crate::history::Bounds;
use crate::message::Message;
use crate::waiter::{Signal, Wake};

/// A process: its bus, and the number of notifications that it received.
struct Process {
    bus: Bus,
    notified: usize,
    connected: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// Publish to a channel. Without a notification if the queue of
    /// notifications is nearly full.
    Publish(u8, bool),
    /// A notification announces this row after the last one, which does not
    /// exist.
    Forge(u64),
    /// This number of notifications arrives at a process.
    Notify(prop::sample::Index, usize),
    Disconnect(prop::sample::Index),
    Connect(prop::sample::Index),
    Restart(prop::sample::Index),
    /// A client polls a process, and waits for this number of looks.
    Poll(prop::sample::Index, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let process = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0_u8..3, prop::bool::weighted(0.8))
            .prop_map(|(channel, notifies)| Step::Publish(channel, notifies)),
        1 => (1_u64..4).prop_map(Step::Forge),
        3 => (process(), 1_usize..4).prop_map(|(p, n)| Step::Notify(p, n)),
        1 => process().prop_map(Step::Disconnect),
        2 => process().prop_map(Step::Connect),
        1 => process().prop_map(Step::Restart),
        5 => (process(), 0_usize..4).prop_map(|(p, n)| Step::Poll(p, n)),
    ]
}

/// Reads the journal as the listener does.
fn catch_up(process: &Process, log: &[u8]) {
    let bus = &process.bus;
    bus.begin_look();
    read_until(bus, log, log.len());
    let _ = journal(bus).end_read(NUMBER_MAX);
    bus.end_look().wake();
    for request in journal(bus).requests(2) {
        let asked = |index: &usize| {
            request
                .channels
                .iter()
                .any(|name| name == channel(log, *index))
        };
        let after = usize::try_from(request.after).expect("small");
        let until = usize::try_from(request.until).expect("small");
        let row = match (after..until).find(asked) {
            Some(index) => Row::Message(row(log, index)),
            None => Row::None,
        };
        journal(bus).answer(request.key, row).wake();
    }
}

fn read_until(bus: &Bus, log: &[u8], until: usize) {
    let last = journal(bus).mark().map_or(0, |mark| mark.number);
    let last = usize::try_from(last).expect("small");
    if last < until {
        read(bus, rows(log, last..until));
    }
}

#[derive(Clone, Copy, Debug)]
enum Notification {
    Row(usize),
    Forged(u64),
}

/// Receives a batch of notifications as the listener does.
fn receive(process: &Process, log: &[u8], batch: &[Notification]) {
    let bus = &process.bus;
    let numbers = batch.iter().map(|notification| match *notification {
        Notification::Row(index) => index as u64 + 1,
        Notification::Forged(number) => number,
    });
    let Some(greatest) = numbers.max() else {
        return;
    };
    match batch[0] {
        Notification::Row(index) => announce(bus, row(log, index)),
        Notification::Forged(number) => {
            let json = format!("{{\"message_id\":\"forged {number}\"}}");
            let message = Message::new("b", &json).expect("a good message");
            announce(bus, message.numbered(number));
        }
    }
    let until = usize::try_from(greatest).expect("small");
    read_until(bus, log, until.min(log.len()));
    let _ = journal(bus).end_read(greatest);
}

/// A row, so large that the memory holds many more ids than messages.
fn row(log: &[u8], index: usize) -> Message {
    let (channel, number) = (channel(log, index), index as u64 + 1);
    let text = " ".repeat(10_000);
    let json = format!("{{\"message_id\":{number}{text}}}");
    let message = Message::new(channel, &json).expect("a good message");
    message.numbered(number)
}

fn channel(log: &[u8], index: usize) -> &'static str {
    ["a", "b", "c"][log[index] as usize]
}

pub(super) fn rows(log: &[u8], range: Range<usize>) -> Vec<Message> {
    range.map(|index| row(log, index)).collect()
}

/// Polls once; none if the poll still waits.
fn poll(process: &Process, last: Option<u64>, reads: usize, log: &[u8]) -> Option<u64> {
    let mut settling = Settling::default();
    let (asked, last) = (["a", "c"], last.map(id));
    for round in 0..=reads {
        let subscription = process.bus.subscribe(
            &asked,
            last.as_ref(),
            &mut settling,
            NOW,
            Signal::thread,
        );
        let ticket = match subscription {
            Subscription::Message(message) => return Some(id_of(&message)),
            Subscription::Waiting(ticket) => ticket,
        };
        if process.connected && round < reads {
            catch_up(process, log);
        }
        match ticket.waiter().woken() {
            Some(Wake::Message(message)) => return Some(id_of(&message)),
            Some(wake) => settling.woken(&wake),
            None => return None,
        }
    }
    None
}

proptest! {
    /// A client that polls a random process each time gets all messages of
    /// its channels, in their order and once, even if the processes have
    /// memory for very few, and some numbers are forged.
    #[test]
    fn client_may_poll_any_process(
        room in 3_usize..30,steps in prop::collection::vec(step(), 1..80)) {
        let bounds = Bounds { cache_size: room * 10_500, ..BOUNDS };
        let new = || Process { bus: Bus::new(bounds), notified: 0, connected: false };
        let mut processes = [new(), new(), new()];
        let (mut log, mut notified) = (Vec::<u8>::new(), Vec::new());
        let mut got = Vec::new();
        for step in steps {
            match step {
                Step::Publish(channel, notifies) => {
                    notified.extend(notifies.then_some(Notification::Row(log.len())));
                    log.push(channel);
                }
                Step::Forge(offset) => {
                    notified.push(Notification::Forged(log.len() as u64 + offset));
                }
                Step::Notify(index, count) => {
                    let process = index.get_mut(&mut processes);
                    if process.connected {
                        let until = notified.len().min(process.notified + count);
                        receive(process, &log, &notified[process.notified..until]);
                        process.notified = until;
                    }
                }
                Step::Disconnect(index) => index.get_mut(&mut processes).connected = false,
                Step::Connect(index) => {
                    let process = index.get_mut(&mut processes);
                    process.connected = true;
                    process.notified = notified.len().saturating_sub(1);
                    catch_up(process, &log);
                }
                Step::Restart(index) => *index.get_mut(&mut processes) = new(),
                Step::Poll(index, looks) => {
                    let process = index.get(&processes);
                    got.extend(poll(process, got.last().copied(), looks, &log));
                }
            }
        }
        let process = &mut processes[0];
        process.connected = true;
        catch_up(process, &log);
        while let Some(number) = poll(process, got.last().copied(), 4, &log) {
            got.push(number);
        }
        let asked = log.iter().enumerate().filter(|(_, channel)| **channel != 1);
        let asked = asked.map(|(index, _)| index as u64 + 1);
        // A poll without a last message gets only the retained messages.
        let first = got.first().copied().unwrap_or(u64::MAX);
        let asked: Vec<_> = asked.filter(|number| *number >= first).collect();
        prop_assert_eq!(got, asked);
    }
}
