//! What a bus knows of its journal: how far that was read, and who waits for
//! it to be read further.
//!
//! A poll may name a message that this process has not got yet: its client
//! got it from another one. To take it for unknown would show the client old
//! messages again. So the journal is looked into before anything is said of
//! it, and before the first look nothing is said at all.
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::history::History;
use crate::message::{Id, Message};
use crate::waiter::Waiter;
use crate::waitlist::Waitlist;

/// The only channel of the list of those who wait for a look.
const LOOK: &str = "look";

/// How far the journal of one database was read.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The greatest number that was read, and the id of its message.
    last: u64,
    last_id: Option<Id>,
    /// Whether it is read once more from its beginning.
    again: bool,
    /// How many looks were begun, and how many of these have ended.
    begun: u64,
    ended: u64,
    /// Whether somebody waits for a look that was not begun.
    wanted: bool,
    waiting: Waitlist,
    /// By which whoever looks is told that a look is wanted.
    alarm: Option<UnixStream>,
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
        !self.again || history.place::<&str>(message.id(), &[]).is_none()
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
    /// mean something else now. Messages that are still retained are not.
    pub(crate) fn rewind(&mut self) {
        self.last = 0;
        self.last_id = None;
        self.again = true;
    }

    /// A look begins: whoever asks from now on waits for the next one.
    pub(crate) fn begin_look(&mut self) {
        self.begun += 1;
        self.wanted = false;
    }

    /// The look that was begun last has ended; returns those who waited.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn end_look(&mut self) -> Vec<Arc<Waiter>> {
        self.ended = self.begun;
        self.again = false;
        self.waiting.take_all()
    }

    /// Whether the history says all of a poll after `last`; `after` is the
    /// look that it waits for, once it does.
    pub(crate) fn is_settled(
        &self,
        history: &History,
        last: Option<&Id>,
        after: Option<u64>,
    ) -> bool {
        let is_known = |id| history.place::<&str>(id, &[]).is_some();
        after.is_some_and(|after| self.ended >= after)
            || self.ended > 0 && last.is_none_or(is_known)
    }

    /// Registers who waits for the look `after`, or the next one that begins;
    /// returns the key to remove it with.
    pub(crate) fn wait(
        &mut self,
        after: &mut Option<u64>,
        waiter: Arc<Waiter>,
    ) -> usize {
        let after = *after.get_or_insert(self.begun + 1);
        if after > self.begun && !self.wanted {
            self.wanted = true;
            self.ring();
        }
        self.waiting.insert(&[LOOK], waiter)
    }

    /// Removes one who waits, if it still does.
    pub(crate) fn remove(&mut self, key: usize, waiter: &Arc<Waiter>) {
        self.waiting.remove(key, waiter);
    }

    /// Takes out all who wait.
    #[must_use = "the waiters are no longer registered, and must be woken"]
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Waiter>> {
        self.waiting.take_all()
    }

    /// Sets by what whoever looks is told: a socket that does not block.
    pub(crate) fn set_alarm(&mut self, alarm: UnixStream) {
        self.alarm = Some(alarm);
        if self.wanted {
            self.ring();
        }
    }

    /// Tells whoever looks that there may be something.
    pub(crate) fn ring(&self) {
        if let Some(mut alarm) = self.alarm.as_ref() {
            // It is full when nobody has come for many: one is enough. It is
            // closed when nobody looks any more.
            let _ = alarm.write(&[0]);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::bus::{Bus, Subscription, Ticket, Wakeup};
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

    fn settle(bus: &Bus, last: Option<u64>, after: &mut Option<u64>) -> Option<Ticket> {
        bus.settle(last.map(id).as_ref(), after, Signal::thread)
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
        let mut after = None;
        let ticket = settle(&bus, None, &mut after).expect("not settled");
        look(&bus, [message("c", 4)]);
        assert!(matches!(ticket.waiter().woken(), Some(Wake::Looked)));
        assert!(settle(&bus, None, &mut after).is_none());
        assert_eq!(next(&bus, None), Some(id(3)));
    }

    #[test]
    fn unknown_message_waits_for_a_look_that_begins_later() {
        let bus = Bus::new(BOUNDS);
        look(&bus, [message("c", 1)]);
        bus.begin_look();
        let mut after = None;
        let ticket = settle(&bus, Some(2), &mut after).expect("not settled");
        bus.end_look().run();
        // It has begun before the client came.
        assert!(matches!(ticket.waiter().woken(), Some(Wake::Looked)));
        drop(ticket);
        let ticket = settle(&bus, Some(2), &mut after).expect("not settled");
        assert_eq!(next(&bus, Some(2)), None);
        look(&bus, [message("c", 2), message("c", 3)]);
        assert!(ticket.waiter().woken().is_some());
        assert!(settle(&bus, Some(2), &mut after).is_none());
        assert_eq!(next(&bus, Some(2)), Some(id(3)));
        // One that nobody knows is unknown after a look.
        let mut after = None;
        let ticket = settle(&bus, Some(9), &mut after).expect("not settled");
        look(&bus, []);
        assert!(ticket.waiter().woken().is_some());
        assert!(settle(&bus, Some(9), &mut after).is_none());
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
    fn alarm_rings_once_for_all_who_want_a_look() {
        let bus = Bus::new(BOUNDS);
        let (mut alarm, bell) = UnixStream::pair().expect("sockets");
        alarm.set_nonblocking(true).expect("a socket");
        bell.set_nonblocking(true).expect("a socket");
        let mut rung = [0; 9];
        let _early = settle(&bus, None, &mut None);
        bus.set_alarm(bell);
        assert_eq!(alarm.read(&mut rung).expect("it has rung"), 1);
        look(&bus, []);
        let _first = settle(&bus, Some(1), &mut None);
        let _second = settle(&bus, Some(2), &mut None);
        assert_eq!(alarm.read(&mut rung).expect("it has rung"), 1);
        assert!(settle(&bus, None, &mut None).is_none());
        alarm.read(&mut rung).expect_err("nobody wants a look");
        bus.ring();
        assert_eq!(alarm.read(&mut rung).expect("it has rung"), 1);
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
            let mut after = None;
            let ticket = settle(&bus, None, &mut after).expect("not settled");
            end(&bus).run();
            assert!(ticket.waiter().woken().is_some());
            assert!(settle(&bus, None, &mut after).is_none());
        }
    }

    #[test]
    fn ticket_that_is_dropped_leaves() {
        let bus = Bus::new(BOUNDS);
        drop(settle(&bus, None, &mut None));
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
            5 => (process(), 0_usize..3).prop_map(|(p, n)| Step::Poll(p, n)),
        ]
    }

    /// Reads the journal as the listener does.
    fn read(process: &Process, log: &[u8]) {
        process.bus.begin_look();
        let last = usize::try_from(process.bus.statistics().number).expect("small");
        publish(&process.bus, rows(log, last..log.len()));
        process.bus.end_look().run();
    }

    fn rows(
        log: &[u8],
        range: std::ops::Range<usize>,
    ) -> impl Iterator<Item = Message> {
        let row = |index: usize| {
            message(["a", "b", "c"][log[index] as usize], index as u64 + 1)
        };
        range.map(row).collect::<Vec<_>>().into_iter()
    }

    /// Polls once; nothing if the poll waits still.
    fn poll(
        process: &Process,
        last: Option<u64>,
        looks: usize,
        log: &[u8],
    ) -> Option<u64> {
        let mut after = None;
        for round in 0..=looks {
            if settle(&process.bus, last, &mut after).is_none() {
                let last = last.map(id);
                return match process.bus.subscribe(
                    &["a", "c"],
                    last.as_ref(),
                    0.0,
                    Signal::thread,
                ) {
                    Subscription::Message(message) => Some(message.number()),
                    Subscription::Waiting(_) => None,
                };
            }
            if process.connected && round < looks {
                read(process, log);
            }
        }
        None
    }

    proptest! {
        /// A client that polls any process each time gets all messages of
        /// its channels, in their order and once.
        #[test]
        fn client_may_poll_any_process(steps in prop::collection::vec(step(), 1..80)) {
            let new = || Process { bus: Bus::new(BOUNDS), notified: 0, connected: false };
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
            while let Some(number) = poll(process, got.last().copied(), 2, &log) {
                got.push(number);
            }
            let asked = log.iter().enumerate().filter(|(_, channel)| **channel != 1);
            let asked: Vec<_> = asked.map(|(index, _)| index as u64 + 1).collect();
            prop_assert_eq!(got, asked);
        }
    }
}
