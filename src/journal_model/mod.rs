//! The journal of a bus, as its listener and its polls see it.
mod announced;
mod numbers;
mod processes;

use std::time::Duration;

use self::processes::rows;
use crate::alarm::Alarm;
use crate::bus::{Bus, Crowd, Journal, Mark, NUMBER_MAX, Settling, Ticket};
use crate::history::Bounds;
use crate::message::{Id, Message};
use crate::waiter::{Signal, Wake};

const NOW: Duration = Duration::ZERO;
const BOUNDS: Bounds = Bounds {
    cache_timeout: Duration::from_secs(5),
    journal_timeout: Some(Duration::from_secs(100)),
    cache_size: usize::MAX,
};

fn message(channel: &str, number: u64) -> Message {
    let json = format!("{{\"message_id\":{number}}}");
    let message = Message::new(channel, &json).expect("a good message");
    message.numbered(number)
}

fn id(number: u64) -> Id {
    Id::from_json(&number.to_string())
}

fn publish(bus: &Bus, messages: impl IntoIterator<Item = Message>) {
    let messages = messages.into_iter().collect();
    bus.publish(messages, NOW).iter().for_each(Crowd::wake);
}

/// Makes a look that finds these rows.
fn look(bus: &Bus, messages: impl IntoIterator<Item = Message>) {
    bus.begin_look();
    read(bus, messages);
    let _ = journal(bus).end_read(NUMBER_MAX);
    bus.end_look().wake();
}

fn read(bus: &Bus, messages: impl IntoIterator<Item = Message>) {
    for message in messages {
        let number = message.number();
        publish(bus, [message]);
        journal(bus).pass(mark(number));
    }
}

/// Receives the notification of a row, without reading the row.
fn announce(bus: &Bus, message: Message) {
    let number = message.number();
    publish(bus, [message.announced(number)]);
}

/// The number that is the id of a message.
fn id_of(message: &Message) -> u64 {
    let json = message.json();
    let id = &json["{\"message_id\":".len()..json.len() - 1];
    id.trim_end().parse().expect("a number")
}

fn mark(number: u64) -> Mark {
    let created = 0.0;
    Mark { number, created }
}

fn settle(bus: &Bus, last: Option<u64>, settling: &mut Settling) -> Option<Ticket> {
    let last = last.map(id);
    bus.settle(&["a", "c"], last.as_ref(), settling, Signal::thread)
}

/// A poll that has not waited yet.
fn new() -> Settling {
    Settling::default()
}

/// The journal of a bus that has one.
fn journal(bus: &Bus) -> Journal<'_> {
    bus.journal().expect("a journal")
}

fn next(bus: &Bus, last: Option<u64>) -> Option<Id> {
    let next = bus.next(&["c"], last.map(id).as_ref(), NOW)?;
    Some(next.id().clone())
}

#[test]
fn nothing_is_said_before_the_first_look() {
    let bus = Bus::new(BOUNDS);
    publish(&bus, [message("c", 3)]);
    assert_eq!(next(&bus, None), None);
    let mut settling = new();
    let ticket = settle(&bus, None, &mut settling).expect("not settled");
    look(&bus, [message("c", 4)]);
    assert!(matches!(ticket.waiter().woken(), Some(Wake::Looked)));
    assert!(settle(&bus, None, &mut settling).is_none());
    assert_eq!(next(&bus, None), Some(id(3)));
}

#[test]
fn unknown_message_waits_for_a_look_that_begins_later() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 1)]);
    bus.begin_look();
    let mut settling = new();
    let ticket = settle(&bus, Some(2), &mut settling).expect("not settled");
    bus.end_look().wake();
    // The look began before the poll arrived.
    assert!(matches!(ticket.waiter().woken(), Some(Wake::Looked)));
    drop(ticket);
    let ticket = settle(&bus, Some(2), &mut settling).expect("not settled");
    assert_eq!(next(&bus, Some(2)), None);
    look(&bus, [message("c", 2), message("c", 3)]);
    assert!(ticket.waiter().woken().is_some());
    assert!(settle(&bus, Some(2), &mut settling).is_none());
    assert_eq!(next(&bus, Some(2)), Some(id(3)));
    // A message that no process has is unknown after a look.
    let mut settling = new();
    let ticket = settle(&bus, Some(9), &mut settling).expect("not settled");
    look(&bus, []);
    assert!(ticket.waiter().woken().is_some());
    assert!(settle(&bus, Some(9), &mut settling).is_none());
}

#[test]
fn row_that_was_read_is_not_new() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 1), message("c", 3)]);
    publish(&bus, [message("c", 1), message("c", 3)]);
    read(&bus, [message("c", 4)]);
    // Messages without a number are always new.
    let live = Message::new("c", "{\"message_id\":3}").expect("a good message");
    publish(&bus, [live]);
    assert_eq!(bus.statistics().published, 4);
    assert_eq!(journal(&bus).mark(), Some(mark(4)));
    journal(&bus).pass(mark(9));
    publish(&bus, [message("c", 9)]);
    assert_eq!(bus.statistics().published, 4);
    assert_eq!(bus.statistics().number, 9);
}

#[test]
fn after_a_rewind_only_known_messages_are_not_new() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 7), message("c", 8)]);
    journal(&bus).rewind();
    assert_eq!((journal(&bus).mark(), bus.statistics().number), (None, 8));
    read(&bus, [message("c", 7), message("c", 5).numbered(8)]);
    assert_eq!(journal(&bus).end_read(NUMBER_MAX), Some((8, 8)));
    assert_eq!(bus.statistics().published, 3);
    assert_eq!(next(&bus, Some(8)), Some(id(5)));
    read(&bus, [message("c", 8), message("c", 9)]);
    assert_eq!(bus.statistics().published, 4);
    assert_eq!(bus.statistics().rewinds, 1);
}

#[test]
fn numbers_do_not_go_back_when_old_rows_are_deleted() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 7), message("c", 8)]);
    journal(&bus).rewind();
    assert_eq!(journal(&bus).end_read(NUMBER_MAX), None);
    assert_eq!(journal(&bus).mark(), Some(mark(8)));
    journal(&bus).rewind();
    read(&bus, [message("c", 9)]);
    assert_eq!(journal(&bus).end_read(NUMBER_MAX), None);
    assert_eq!(
        (journal(&bus).mark(), bus.statistics().rewinds),
        (Some(mark(9)), 0)
    );
}

#[test]
fn equal_ids_in_rows_that_are_read_together_are_both_new() {
    let bus = Bus::new(BOUNDS);
    let same = |number| message("c", 5).numbered(number);
    look(&bus, [same(1), same(2)]);
    journal(&bus).rewind();
    read(
        &bus,
        [same(1), message("c", 6), message("c", 6).numbered(7)],
    );
    assert_eq!(bus.statistics().published, 4);
}

#[test]
fn messages_sent_while_the_journal_can_not_be_used_are_known() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 1)]);
    bus.set_bounds(Bounds {
        journal_timeout: None,
        ..BOUNDS
    })
    .wake();
    publish(
        &bus,
        [message("c", 2).numbered(0), message("c", 3).numbered(0)],
    );
    bus.set_bounds(BOUNDS).wake();
    assert_eq!(journal(&bus).mark(), Some(mark(1)));
    look(&bus, [message("c", 2), message("c", 3), message("c", 4)]);
    assert_eq!(bus.statistics().published, 4);
    assert_eq!(bus.statistics().rewinds, 0);
}

#[test]
fn after_a_rewind_old_numbers_of_evicted_messages_are_forgotten() {
    let bus = Bus::new(Bounds {
        cache_size: 100_000,
        ..BOUNDS
    });
    let log = [2; 20];
    look(&bus, rows(&log, 0..20));
    let mut settling = new();
    assert!(settle(&bus, Some(3), &mut settling).is_some());
    assert_eq!(
        journal(&bus).requests(9).len(),
        0,
        "its place has left with it"
    );
    // The message is known nevertheless, and not new.
    journal(&bus).rewind();
    let published = bus.statistics().published;
    look(&bus, rows(&log, 0..5));
    assert_eq!(bus.statistics().published, published);
    // The message is unknown now, so the poll gets the retained messages.
    let mut settling = new();
    assert!(settle(&bus, Some(3), &mut settling).is_some());
    look(&bus, []);
    assert!(settle(&bus, Some(3), &mut settling).is_none());
}

#[test]
fn alarm_rings_once_for_all_that_want_a_look() {
    let bus = Bus::new(BOUNDS);
    let alarm = Alarm::new().expect("sockets");
    let has_rung = || !alarm.take().is_empty();
    let _early = settle(&bus, None, &mut new());
    bus.set_bell(alarm.bell(1));
    assert!(has_rung());
    look(&bus, []);
    let _first = settle(&bus, Some(1), &mut new());
    assert!(has_rung());
    let _second = settle(&bus, Some(2), &mut new());
    assert!(!has_rung());
    assert!(settle(&bus, None, &mut new()).is_none());
    assert!(!has_rung());
    bus.ring();
    assert!(has_rung());
}

#[test]
fn poll_that_waits_for_a_look_continues_without_a_journal() {
    for end in [
        |bus: &Bus| {
            bus.set_bounds(Bounds {
                journal_timeout: None,
                ..BOUNDS
            })
        },
        Bus::close,
    ] {
        let bus = Bus::new(BOUNDS);
        let mut settling = new();
        let ticket = settle(&bus, None, &mut settling).expect("not settled");
        end(&bus).wake();
        assert!(ticket.waiter().woken().is_some());
        assert!(settle(&bus, None, &mut settling).is_none());
    }
}

#[test]
fn ticket_that_is_dropped_leaves() {
    let bus = Bus::new(BOUNDS);
    drop(settle(&bus, None, &mut new()));
    bus.begin_look();
    assert!(bus.end_look().waiters.is_empty());
}
