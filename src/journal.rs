//! The state of a database's journal: how far it was read, and the polls that
//! wait for a row of their own.
//!
//! A poll may name a message that was evicted for lack of memory. It is served
//! row by row from the journal until it catches up with the history.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::History;
use crate::message::{Id, Message};
use crate::waiter::Waiter;

/// The first row in some channels, as somebody waits for it.
#[derive(Clone, Debug)]
pub struct Request {
    /// By which it is answered.
    pub key: u64,
    /// The channels.
    pub channels: Vec<String>,
    /// Its number is above this one.
    pub after: u64,
    /// Its number is at most this one.
    pub until: u64,
}

/// How far the journal of one database was read.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The greatest number that was read, and the id of its message.
    last: u64,
    last_id: Option<Id>,
    /// Whether it is read once more from its beginning.
    again: bool,
    /// Those who wait for a row of their own, by key.
    requests: BTreeMap<u64, (Request, Arc<Waiter>)>,
    next: u64,
}

impl Journal {
    /// Whether a message that arrives is new. One that comes by a
    /// notification and was read before is not.
    pub(crate) fn admits(&mut self, message: &Message, history: &History) -> bool {
        let number = message.number();
        if number == 0 {
            return true;
        }
        if number <= self.last {
            return false;
        }
        self.last = number;
        self.last_id = Some(message.id().clone());
        !self.again || history.resume::<&str>(message.id(), &[]).is_none()
    }

    /// Notes that it was read up to this number, be there no message with it.
    pub(crate) fn pass(&mut self, number: u64) {
        if number > self.last {
            self.last = number;
            self.last_id = None;
        }
    }

    /// The greatest number that was read; zero before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether the message with that number has this id.
    pub(crate) fn is_last(&self, id: &Id) -> bool {
        self.last_id.as_ref() == Some(id)
    }

    /// Takes every number anew until the end of the next look: the numbers
    /// mean something else now. Messages that are still known are not.
    pub(crate) fn rewind(&mut self) {
        self.last = 0;
        self.last_id = None;
        self.again = true;
    }

    /// A look has ended.
    pub(crate) fn end_look(&mut self, history: &mut History) {
        if self.again {
            self.again = false;
            // Its numbers are those from before.
            history.forget_gone();
        }
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

    /// Takes out who waits for this row; returns up to which number it did.
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

    use proptest::prelude::*;

    use super::*;
    use crate::alarm::Alarm;
    use crate::bus::{Bus, Row, Settling, Subscription, Ticket, Wakeup};
    use crate::history::Bounds;
    use crate::waiter::{Signal, Wake};

    const BOUNDS: Bounds = Bounds {
        seconds: 5.0,
        journal: Some(100.0),
        bytes: usize::MAX,
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
        bus.publish(messages, 0.0).iter().for_each(Wakeup::run);
    }

    fn look(bus: &Bus, messages: impl IntoIterator<Item = Message>) {
        bus.begin_look();
        publish(bus, messages);
        bus.end_look().run();
    }

    fn settle(bus: &Bus, last: Option<u64>, settling: &mut Settling) -> Option<Ticket> {
        let last = last.map(id);
        bus.settle(&["a", "c"], last.as_ref(), settling, Signal::thread)
    }

    /// What a poll has waited for so far: nothing.
    fn new() -> Settling {
        Settling::default()
    }

    fn next(bus: &Bus, last: Option<u64>) -> Option<Id> {
        let next = bus.next(&["c"], last.map(id).as_ref(), 0.0)?;
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
        // It has begun before the client came.
        assert!(matches!(ticket.waiter().woken(), Some(Wake::Looked)));
        drop(ticket);
        let ticket = settle(&bus, Some(2), &mut settling).expect("not settled");
        assert_eq!(next(&bus, Some(2)), None);
        look(&bus, [message("c", 2), message("c", 3)]);
        assert!(ticket.waiter().woken().is_some());
        assert!(settle(&bus, Some(2), &mut settling).is_none());
        assert_eq!(next(&bus, Some(2)), Some(id(3)));
        // One that nobody knows is unknown after a look.
        let mut settling = new();
        let ticket = settle(&bus, Some(9), &mut settling).expect("not settled");
        look(&bus, []);
        assert!(ticket.waiter().woken().is_some());
        assert!(settle(&bus, Some(9), &mut settling).is_none());
    }

    #[test]
    fn message_that_was_read_is_not_new_when_it_is_notified() {
        let bus = Bus::new(BOUNDS);
        look(&bus, [message("c", 1), message("c", 3)]);
        publish(&bus, [message("c", 1), message("c", 3), message("c", 4)]);
        // Those of no number are always new.
        let live = Message::new("c", "{\"message_id\":3}").expect("a good message");
        publish(&bus, [live]);
        assert_eq!(bus.statistics().published, 4);
        assert_eq!(bus.statistics().number, 4);
        assert!(bus.is_last(&id(4)) && !bus.is_last(&id(3)));
        bus.pass(9);
        assert!(!bus.is_last(&id(4)));
        publish(&bus, [message("c", 9)]);
        assert_eq!(bus.statistics().published, 4);
    }

    #[test]
    fn after_a_rewind_only_retained_messages_are_not_new() {
        let bus = Bus::new(BOUNDS);
        look(&bus, [message("c", 7), message("c", 8)]);
        bus.rewind();
        let other = message("c", 5).numbered(8);
        look(&bus, [message("c", 7), other]);
        assert_eq!(bus.statistics().published, 3);
        assert_eq!(next(&bus, Some(8)), Some(id(5)));
        // From the next look on the numbers count again.
        publish(&bus, [message("c", 8), message("c", 9)]);
        assert_eq!(bus.statistics().published, 4);
    }

    #[test]
    fn after_a_rewind_old_numbers_of_what_left_are_forgotten() {
        let bus = Bus::new(Bounds {
            bytes: 100_000,
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
        // By now it is unknown: what comes then is what there is.
        let mut settling = new();
        assert!(settle(&bus, Some(3), &mut settling).is_some());
        look(&bus, []);
        assert!(settle(&bus, Some(3), &mut settling).is_none());
    }

    #[test]
    fn alarm_rings_once_for_all_who_want_a_look() {
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
    fn who_waits_for_a_look_goes_on_without_a_journal() {
        for end in [
            |bus: &Bus| {
                bus.set_bounds(Bounds {
                    journal: None,
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

    /// A process: its bus, and up to which message it has been notified.
    struct Process {
        bus: Bus,
        notified: usize,
        connected: bool,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish(u8),
        /// So many notifications arrive at a process.
        Notify(prop::sample::Index, usize),
        Disconnect(prop::sample::Index),
        Connect(prop::sample::Index),
        Restart(prop::sample::Index),
        /// A client polls a process, and waits for so many looks.
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
    fn read(process: &Process, log: &[u8]) {
        let bus = &process.bus;
        bus.begin_look();
        let last = usize::try_from(bus.statistics().number).expect("small");
        publish(bus, rows(log, last..log.len()));
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

    /// A row, so large that many more ids than messages find room.
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

    /// Polls once; nothing if the poll waits still.
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
                0.0,
                Signal::thread,
            );
            let ticket = match subscription {
                Subscription::Message(message) => return Some(message.number()),
                Subscription::Waiting(ticket) => ticket,
            };
            if process.connected && round < reads {
                read(process, log);
            }
            match ticket.waiter().woken() {
                Some(Wake::Message(message)) => return Some(message.number()),
                Some(wake) => settling.woken(&wake),
                None => return None,
            }
        }
        None
    }

    proptest! {
        /// A client that polls any process each time gets all messages of
        /// its channels, in their order and once, however few the processes
        /// have room for.
        #[test]
        fn client_may_poll_any_process(
            room in 3_usize..30,steps in prop::collection::vec(step(), 1..80)) {
            let bounds = Bounds { bytes: room * 10_500, ..BOUNDS };
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
                            publish(&process.bus, rows(&log, process.notified..until));
                            process.notified = until;
                        }
                    }
                    Step::Disconnect(index) => index.get_mut(&mut processes).connected = false,
                    Step::Connect(index) => {
                        let process = index.get_mut(&mut processes);
                        process.connected = true;
                        process.notified = log.len().saturating_sub(1);
                        read(process, &log);
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
            read(process, &log);
            while let Some(number) = poll(process, got.last().copied(), 4, &log) {
                got.push(number);
            }
            let asked = log.iter().enumerate().filter(|(_, channel)| **channel != 1);
            let asked = asked.map(|(index, _)| index as u64 + 1);
            // Who comes without a last message gets what there is room for.
            let first = got.first().copied().unwrap_or(u64::MAX);
            let asked: Vec<_> = asked.filter(|number| *number >= first).collect();
            prop_assert_eq!(got, asked);
        }
    }
}
