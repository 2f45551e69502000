//! The state of a database's journal: how far it was read, and the polls that
//! wait for a row of their own.
//!
//! A poll may name a message that was evicted for lack of memory. It is served
//! row by row from the journal until it catches up with the history.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::History;
use crate::message::Message;
use crate::waiter::Waiter;

/// A request of a poll for the first row in its channels.
#[derive(Clone, Debug)]
pub struct Request {
    /// The key by which the request is answered.
    pub key: u64,
    /// The channels.
    pub channels: Vec<String>,
    /// The row's number is above this one.
    pub after: u64,
    /// The row's number is at most this one.
    pub until: u64,
}

/// The last row that was read. As long as this row is in the table, numbers
/// mean the same as before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Its number.
    pub number: u64,
    /// When it was committed, in seconds on the clock of the database.
    pub created: f64,
}

/// How far the journal of one database was read.
///
/// Only rows advance it. The number in a NOTIFY is no more than a hint to read,
/// because any role of the database may have sent it.
#[derive(Debug)]
pub(crate) struct Journal {
    /// None before the first row, and while all rows are read anew.
    mark: Option<Mark>,
    again: Option<Again>,
    /// The requests of polls that wait for a row, by key.
    requests: BTreeMap<u64, (Request, Arc<Waiter>)>,
    next: u64,
}

/// The state while rows are read that may have been read before.
#[derive(Debug)]
struct Again {
    before: Option<Mark>,
    /// The place in the history of the first message that arrived since. A row
    /// whose message is before that place is not new.
    known: u64,
    /// Whether a number that was used before belongs to a new message.
    is_back: bool,
}

impl Journal {
    /// A journal that was read up to the mark. The rows that follow may contain
    /// messages of the history that arrived while the journal was not used.
    pub(crate) fn new(mark: Option<Mark>, history: &History) -> Self {
        Self {
            mark,
            again: Some(Again {
                before: mark,
                known: history.end(),
                is_back: false,
            }),
            requests: BTreeMap::new(),
            next: 0,
        }
    }

    /// Whether a message is new. A message without a number always is. A
    /// message of a row is new unless the row was read before.
    pub(crate) fn admits(&mut self, message: &Message, history: &History) -> bool {
        let number = message.number();
        if number == 0 {
            return true;
        }
        if self.mark.is_some_and(|mark| number <= mark.number) {
            return false;
        }
        let Some(again) = &mut self.again else {
            return true;
        };
        let place = history.resume::<&str>(message.id(), &[]);
        let is_new = place.is_none_or(|place| place >= again.known);
        again.is_back |=
            is_new && again.before.is_some_and(|mark| number <= mark.number);
        is_new
    }

    /// Notes that the rows were read up to this one.
    pub(crate) fn pass(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    /// The last row that was read; none while all rows are read anew.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// The greatest number that was read; zero before the first.
    pub(crate) fn last(&self) -> u64 {
        let before = || self.again.as_ref()?.before;
        self.mark.or_else(before).map_or(0, |mark| mark.number)
    }

    /// Starts to read all rows anew. The mark is not in the table, so the
    /// numbers may mean something else. Messages in the history are not new.
    pub(crate) fn rewind(&mut self, history: &History) {
        let again = self.again.take();
        let (before, is_back) =
            again.map_or((None, false), |again| (again.before, again.is_back));
        self.again = Some(Again {
            before: self.mark.take().or(before),
            known: history.end(),
            is_back,
        });
    }

    /// Notes that all rows were read; returns the greatest numbers before and
    /// now if numbers went back.
    pub(crate) fn end_rewind(&mut self, history: &mut History) -> Option<(u64, u64)> {
        let again = self.again.take()?;
        if self.mark.is_none() {
            // An empty table proves nothing, because all rows may have expired,
            // or may be restored later.
            self.mark = again.before;
            self.again = Some(again);
            return None;
        }
        let (before, now) = (again.before?.number, self.last());
        if !again.is_back && now >= before {
            return None;
        }
        // The evicted messages have the old numbers.
        history.forget_gone();
        Some((before, now))
    }

    /// Registers a poll that waits for the first row in its channels with a
    /// number above `after`, up to `until`; returns the key of its request.
    pub(crate) fn request(
        &mut self,
        channels: &[impl AsRef<str>],
        after: u64,
        until: u64,
        waiter: Arc<Waiter>,
    ) -> u64 {
        let key = self.next;
        self.next += 1;
        let channels = channels.iter().map(|name| name.as_ref().to_owned());
        let request = Request {
            key,
            channels: channels.collect(),
            after,
            until,
        };
        self.requests.insert(key, (request, waiter));
        key
    }

    /// Removes a request, if it is still there.
    pub(crate) fn remove(&mut self, key: u64) {
        self.requests.remove(&key);
    }

    /// The number of requests.
    pub(crate) fn requested(&self) -> usize {
        self.requests.len()
    }

    /// The first `limit` rows that polls wait for.
    pub(crate) fn requests(&self, limit: usize) -> Vec<Request> {
        let requests = self.requests.values().take(limit);
        requests.map(|(request, _)| request.clone()).collect()
    }

    /// Takes out the waiter of this request; returns it with the greatest
    /// number of the request.
    pub(crate) fn take_request(&mut self, key: u64) -> Option<(Arc<Waiter>, u64)> {
        let (request, waiter) = self.requests.remove(&key)?;
        Some((waiter, request.until))
    }

    /// Takes out all requests; returns the polls that waited.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Waiter>> {
        let requests = std::mem::take(&mut self.requests);
        requests.into_values().map(|(_, waiter)| waiter).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::ops::Range;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::alarm::Alarm;
    use crate::bus::{Bus, Row, Settling, Subscription, Ticket, Wakeup};
    use crate::history::Bounds;
    use crate::message::Id;
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
        bus.publish(messages, NOW).iter().for_each(Wakeup::run);
    }

    /// Makes a look that finds these rows.
    fn look(bus: &Bus, messages: impl IntoIterator<Item = Message>) {
        bus.begin_look();
        read(bus, messages);
        let _ = bus.end_rewind();
        bus.end_look().run();
    }

    fn read(bus: &Bus, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            let number = message.number();
            publish(bus, [message]);
            bus.pass(mark(number));
        }
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
        bus.end_look().run();
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
        assert_eq!(bus.mark(), Some(mark(4)));
        bus.pass(mark(9));
        publish(&bus, [message("c", 9)]);
        assert_eq!(bus.statistics().published, 4);
        assert_eq!(bus.statistics().number, 9);
    }

    #[test]
    fn after_a_rewind_only_known_messages_are_not_new() {
        let bus = Bus::new(BOUNDS);
        look(&bus, [message("c", 7), message("c", 8)]);
        bus.rewind();
        assert_eq!((bus.mark(), bus.statistics().number), (None, 8));
        read(&bus, [message("c", 7), message("c", 5).numbered(8)]);
        assert_eq!(bus.end_rewind(), Some((8, 8)));
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
        bus.rewind();
        assert_eq!(bus.end_rewind(), None);
        assert_eq!(bus.mark(), Some(mark(8)));
        bus.rewind();
        read(&bus, [message("c", 9)]);
        assert_eq!(bus.end_rewind(), None);
        assert_eq!((bus.mark(), bus.statistics().rewinds), (Some(mark(9)), 0));
    }

    #[test]
    fn equal_ids_in_rows_that_are_read_together_are_both_new() {
        let bus = Bus::new(BOUNDS);
        let same = |number| message("c", 5).numbered(number);
        look(&bus, [same(1), same(2)]);
        bus.rewind();
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
        .run();
        publish(
            &bus,
            [message("c", 2).numbered(0), message("c", 3).numbered(0)],
        );
        bus.set_bounds(BOUNDS).run();
        assert_eq!(bus.mark(), Some(mark(1)));
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
        assert_eq!(bus.requests(9).len(), 0, "its place has left with it");
        // The message is known nevertheless, and not new.
        bus.rewind();
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
            end(&bus).run();
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

    /// A process: its bus, and the number of messages that it was notified of.
    struct Process {
        bus: Bus,
        notified: usize,
        connected: bool,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish(u8),
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
            3 => (0_u8..3).prop_map(Step::Publish),
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
        let _ = bus.end_rewind();
        bus.end_look().run();
        for request in bus.requests(2) {
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
            bus.answer(request.key, row).run();
        }
    }

    fn read_until(bus: &Bus, log: &[u8], until: usize) {
        let last = bus.mark().map_or(0, |mark| mark.number);
        let last = usize::try_from(last).expect("small");
        if last < until {
            read(bus, rows(log, last..until));
        }
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

    fn rows(log: &[u8], range: Range<usize>) -> Vec<Message> {
        range.map(|index| row(log, index)).collect()
    }

    /// Polls once; none if the poll still waits.
    fn poll(
        process: &Process,
        last: Option<u64>,
        reads: usize,
        log: &[u8],
    ) -> Option<u64> {
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
                Subscription::Message(message) => return Some(message.number()),
                Subscription::Waiting(ticket) => ticket,
            };
            if process.connected && round < reads {
                catch_up(process, log);
            }
            match ticket.waiter().woken() {
                Some(Wake::Message(message)) => return Some(message.number()),
                Some(wake) => settling.woken(&wake),
                None => return None,
            }
        }
        None
    }

    /// The table of a journal, with a snapshot of it.
    #[derive(Clone, Debug, Default)]
    struct Table {
        /// The number, the time of the commit, and the id of each row.
        rows: Vec<(u64, f64, u64)>,
        sequence: u64,
        snapshot: Vec<(u64, f64, u64)>,
    }

    impl Table {
        /// Commits a message, as the trigger numbers it.
        fn commit(&mut self, time: f64, id: u64) {
            let last = self.rows.last().map_or(0, |row| row.0);
            self.sequence = (self.sequence + 1).max(last + 1);
            self.rows.push((self.sequence, time, id));
        }

        /// Reads the rows up to a number, as the listener does, two at a time.
        fn read(&self, bus: &Bus, mut until: u64) {
            loop {
                let after = bus.mark().map_or(0, |mark| mark.number);
                let end = until.max(after);
                let page = self.rows.iter();
                let page = page.filter(|row| (after..=end).contains(&row.0));
                let mut page: Vec<_> = page.take(3).collect();
                if let Some(mark) = bus.mark() {
                    let first = page.first().map(|row| (row.0, row.1));
                    if first != Some((mark.number, mark.created)) {
                        bus.rewind();
                        until = u64::MAX;
                        continue;
                    }
                    page.remove(0);
                }
                let Some(&&(number, created, _)) = page.last() else {
                    break;
                };
                let message =
                    |row: &&(u64, f64, u64)| message("c", row.2).numbered(row.0);
                publish(bus, page.iter().map(message));
                bus.pass(Mark { number, created });
            }
            if until == u64::MAX {
                let _ = bus.end_rewind();
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Change {
        Commit(u8),
        /// Rollbacks leave numbers that no row has.
        Gap(u64),
        /// A notification with a number, which may be forged.
        Hint(u64),
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
        let number =
            || prop_oneof![4 => 0_u64..40, 1 => Just(u64::MAX), 1 => any::<u64>()];
        prop_oneof![
            6 => (1_u8..5).prop_map(Change::Commit),
            1 => (1_u64..5).prop_map(Change::Gap),
            4 => number().prop_map(Change::Hint),
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
            let (mut id, mut time) = (0_u64, 0.0);
            let mut expected = Vec::new();
            for change in changes.into_iter().chain([Change::Look]) {
                time += 1.0;
                match change {
                    Change::Commit(count) => for _ in 0..count {
                        id += 1;
                        table.commit(time, id);
                    },
                    Change::Gap(count) => table.sequence += count,
                    Change::Hint(number) => table.read(&bus, number),
                    Change::Look => {
                        bus.begin_look();
                        table.read(&bus, u64::MAX);
                        bus.end_look().run();
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
                        bus.set_bounds(Bounds { journal_timeout: None, ..BOUNDS }).run();
                        for _ in 0..count {
                            id += 1;
                            table.commit(time, id);
                            publish(&bus, [message("c", id).numbered(0)]);
                        }
                        bus.set_bounds(BOUNDS).run();
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
    fn delivered(bus: &Bus) -> Vec<u64> {
        let mut ids = Vec::new();
        bus.look(|history| {
            let mut from = 0;
            while let Some((place, message)) = history.next_from([("c", from)], NOW) {
                let json = message.json();
                let id = &json["{\"message_id\":".len()..json.len() - 1];
                ids.push(id.parse().expect("a number"));
                from = place + 1;
            }
        });
        ids
    }

    proptest! {
        /// A client that polls a random process each time gets all messages of
        /// its channels, in their order and once, even if the processes have
        /// memory for very few.
        #[test]
        fn client_may_poll_any_process(
            room in 3_usize..30,steps in prop::collection::vec(step(), 1..80)) {
            let bounds = Bounds { cache_size: room * 10_500, ..BOUNDS };
            let new = || Process { bus: Bus::new(bounds), notified: 0, connected: false };
            let mut processes = [new(), new(), new()];
            let mut log: Vec<u8> = Vec::new();
            let mut got = Vec::new();
            for step in steps {
                match step {
                    Step::Publish(channel) => log.push(channel),
                    Step::Notify(index, count) => {
                        let process = index.get_mut(&mut processes);
                        if process.connected {
                            let until = log.len().min(process.notified + count);
                            read_until(&process.bus, &log, until);
                            process.notified = until;
                        }
                    }
                    Step::Disconnect(index) => index.get_mut(&mut processes).connected = false,
                    Step::Connect(index) => {
                        let process = index.get_mut(&mut processes);
                        process.connected = true;
                        process.notified = log.len().saturating_sub(1);
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
}
