//! A message whose NOTIFY arrives before its row is read.
use super::numbers::delivered;
use super::{BOUNDS, NOW, announce, id, journal, look, message, next, read};
use crate::bus::{Bus, Found};
use crate::history::Bounds;

#[test]
fn next_row_is_published_before_it_is_read() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 1)]);
    announce(&bus, message("c", 2));
    assert_eq!(next(&bus, Some(1)), Some(id(2)));
    // No second one, before the row of the first one is read.
    announce(&bus, message("c", 99).numbered(2));
    announce(&bus, message("c", 3));
    assert_eq!(next(&bus, Some(2)), None);
    read(&bus, [message("c", 2), message("c", 3)]);
    assert_eq!(journal(&bus).end_read(3), None);
    assert_eq!(next(&bus, Some(2)), Some(id(3)));
    assert_eq!(bus.statistics().published, 3);
    for number in 1..=3 {
        let found = bus.first_or_wait::<&str>([("c", number - 1)], None, NOW, None);
        let Found::Message(_, message) = found else {
            panic!("three messages were published");
        };
        assert_eq!(message.number(), number);
    }
}

#[test]
fn row_that_is_not_the_next_is_read_first() {
    let bus = Bus::new(BOUNDS);
    // All rows have to be read first.
    announce(&bus, message("c", 1));
    look(&bus, [message("c", 1)]);
    for number in [0, 1, 3, u64::MAX] {
        announce(&bus, message("c", number));
    }
    // The message is known.
    announce(&bus, message("c", 1).numbered(2));
    assert_eq!(bus.statistics().published, 1);
    journal(&bus).rewind();
    announce(&bus, message("c", 2));
    assert_eq!(bus.statistics().published, 1);
}

#[test]
fn forged_announcement_is_a_message_without_a_number() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 1)]);
    announce(&bus, message("c", 99).numbered(2));
    // The row differs from it.
    read(&bus, [message("c", 2)]);
    assert_eq!(journal(&bus).end_read(2), None);
    // There is no row, and a later one with this content is new.
    announce(&bus, message("c", 98).numbered(3));
    assert_eq!(journal(&bus).end_read(3), None);
    read(&bus, [message("c", 98).numbered(3)]);
    assert_eq!(delivered(&bus), [1, 99, 2, 98, 98]);
}

#[test]
fn announced_row_is_known_when_the_journal_can_be_used_again() {
    let bus = Bus::new(BOUNDS);
    look(&bus, [message("c", 1)]);
    announce(&bus, message("c", 2));
    bus.set_bounds(Bounds {
        journal_timeout: None,
        ..BOUNDS
    })
    .wake();
    bus.set_bounds(BOUNDS).wake();
    look(&bus, [message("c", 2), message("c", 3)]);
    assert_eq!(delivered(&bus), [1, 2, 3]);
}
