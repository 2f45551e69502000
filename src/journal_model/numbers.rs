//! A journal whose numbers go back, or mean something else.
use std::collections::VecDeque;

use proptest::prelude::*;

use super::{BOUNDS, NOW, announce, id_of, journal, message, publish};
use crate::bus::{Bus, Found, Mark};
use crate::history::Bounds;

/// The table of a journal, with a snapshot of it.
#[derive(Clone, Debug, Default)]
struct Table {
    /// The number, the time of the commit, and the id of each row.
    rows: Vec<(u64, f64, u64)>,
    /// The numbers and ids of the notifications that have not arrived.
    notified: VecDeque<(u64, u64)>,
    sequence: u64,
    snapshot: Vec<(u64, f64, u64)>,
}

impl Table {
    /// Commits a message, as the trigger numbers it.
    fn commit(&mut self, time: f64, id: u64) {
        let last = self.rows.last().map_or(0, |row| row.0);
        self.sequence = (self.sequence + 1).max(last + 1);
        self.rows.push((self.sequence, time, id));
        self.notified.push_back((self.sequence, id));
    }

    /// Receives a batch of notifications, as the listener does.
    fn receive(&mut self, bus: &Bus, count: usize) {
        let batch = self.notified.drain(..count.min(self.notified.len()));
        let batch: Vec<_> = batch.collect();
        if let Some(&(number, id)) = batch.first() {
            announce(bus, message("c", id).numbered(number));
        }
        if let Some(until) = batch.iter().map(|(number, _)| *number).max() {
            self.read(bus, until);
        }
    }

    /// Reads the rows up to a number, as the listener does, two at a time.
    fn read(&self, bus: &Bus, mut until: u64) {
        loop {
            let after = journal(bus).mark().map_or(0, |mark| mark.number);
            let end = until.max(after);
            let page = self.rows.iter();
            let page = page.filter(|row| (after..=end).contains(&row.0));
            let mut page: Vec<_> = page.take(3).collect();
            if let Some(mark) = journal(bus).mark() {
                let first = page.first().map(|row| (row.0, row.1));
                if first != Some((mark.number, mark.created)) {
                    journal(bus).rewind();
                    until = u64::MAX;
                    continue;
                }
                page.remove(0);
            }
            let Some(&&(number, created, _)) = page.last() else {
                break;
            };
            let message = |row: &&(u64, f64, u64)| message("c", row.2).numbered(row.0);
            publish(bus, page.iter().map(message));
            journal(bus).pass(Mark { number, created });
        }
        let _ = journal(bus).end_read(until);
    }
}

#[derive(Clone, Debug)]
enum Change {
    Commit(u8),
    /// Rollbacks leave numbers that no row has.
    Gap(u64),
    /// This number of notifications arrives.
    Notify(usize),
    /// A notification is forged, with this number.
    Forge(u64),
    /// A notification is forged, with the number after the last row.
    ForgeNext,
    Look,
    TakeSnapshot,
    Restore,
    Truncate,
    SetSequence(u64),
    DeleteOld(usize),
    /// The journal can't be used for a while, and this number of messages
    /// is published without it.
    Suspend(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let number = || prop_oneof![4 => 0_u64..40, 1 => Just(u64::MAX), 1 => any::<u64>()];
    prop_oneof![
        6 => (1_u8..5).prop_map(Change::Commit),
        1 => (1_u64..5).prop_map(Change::Gap),
        6 => (1_usize..4).prop_map(Change::Notify),
        2 => number().prop_map(Change::Forge),
        2 => Just(Change::ForgeNext),
        4 => Just(Change::Look),
        1 => Just(Change::TakeSnapshot),
        1 => Just(Change::Restore),
        1 => Just(Change::Truncate),
        1 => (0_u64..40).prop_map(Change::SetSequence),
        1 => (1_usize..9).prop_map(Change::DeleteOld),
        1 => (0_u8..4).prop_map(Change::Suspend),
    ]
}

proptest! {
    /// A row that a look finds is delivered once, and the rows of one look
    /// are delivered in their order. This holds for any change of the table
    /// and any notified number.
    #[test]
    fn numbers_may_go_back(changes in prop::collection::vec(change(), 1..60)) {
        let (bus, mut table) = (Bus::new(BOUNDS), Table::default());
        let (mut id, mut time, mut forged) = (0_u64, 0.0, 1_000_000);
        let mut expected = Vec::new();
        for change in changes.into_iter().chain([Change::Look]) {
            time += 1.0;
            match change {
                Change::Commit(count) => for _ in 0..count {
                    id += 1;
                    table.commit(time, id);
                },
                Change::Gap(count) => table.sequence += count,
                Change::Notify(count) => table.receive(&bus, count),
                Change::Forge(number) => {
                    forged += 1;
                    table.notified.push_back((number, forged));
                }
                Change::ForgeNext => {
                    forged += 1;
                    table.notified.push_back((table.sequence + 1, forged));
                }
                Change::Look => {
                    bus.begin_look();
                    table.read(&bus, u64::MAX);
                    bus.end_look().wake();
                }
                Change::TakeSnapshot => table.snapshot = table.rows.clone(),
                Change::Restore => {
                    table.rows = table.snapshot.clone();
                    table.sequence = table.rows.last().map_or(0, |row| row.0);
                }
                Change::Truncate => {
                    table.rows.clear();
                    table.sequence = 0;
                }
                Change::SetSequence(number) => table.sequence = number,
                Change::DeleteOld(count) => {
                    // Restored rows keep their age.
                    let mut old =
                        table.rows.drain(..count.min(table.rows.len()));
                    let last = old.next_back().map_or(0, |row| row.0);
                    table.snapshot.retain(|row| row.0 > last);
                }
                Change::Suspend(count) => {
                    bus.set_bounds(Bounds { journal_timeout: None, ..BOUNDS }).wake();
                    for _ in 0..count {
                        id += 1;
                        table.commit(time, id);
                        publish(&bus, [message("c", id).numbered(0)]);
                    }
                    bus.set_bounds(BOUNDS).wake();
                }
            }
            let got = delivered(&bus);
            let new = &got[expected.len().min(got.len())..];
            let order = new.iter().map(|id| table.rows.iter().position(|row| row.2 == *id));
            let order: Vec<_> = order.flatten().collect();
            prop_assert!(order.is_sorted(), "{:?} of {:?}", new, table.rows);
            expected = got;
        }
        for row in &table.rows {
            prop_assert!(expected.contains(&row.2), "{row:?} was not delivered");
        }
        let mut once = expected.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), expected.len(), "delivered twice");
    }
}

/// The ids on the bus, in their order.
pub(super) fn delivered(bus: &Bus) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut from = 0;
    let first = |from| bus.first_or_wait::<&str>([("c", from)], None, NOW, None);
    while let Found::Message(number, message) = first(from) {
        ids.push(id_of(&message));
        from = number + 1;
    }
    ids
}
