//! The bus: the messages that polls get, and the waiters that they wake.
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::message::Id;
use crate::waiter::Signal;

const NOW: Duration = Duration::ZERO;
const BOUNDS: Bounds = Bounds {
    cache_timeout: Duration::from_secs(5),
    journal_timeout: None,
    cache_size: usize::MAX,
};

fn message(channel: &str, id: u64) -> Message {
    Message::new(channel, &format!("{{\"message_id\":{id}}}")).expect("a good message")
}

fn subscribe(bus: &Bus, channels: &[&str], last: Option<u64>) -> Subscription {
    let last = last.map(|id| Id::from_json(&id.to_string()));
    bus.subscribe(
        channels,
        last.as_ref(),
        &mut Settling::default(),
        NOW,
        Signal::thread,
    )
}

fn waiting(subscription: Subscription) -> Ticket {
    match subscription {
        Subscription::Waiting(ticket) => ticket,
        Subscription::Message(message) => panic!("{message:?} was there"),
    }
}

#[test]
fn crowd_is_taken_in_slices_each_with_the_first_of_its_messages() {
    const CROWD: usize = 4 * TAKEN;
    let bus = Bus::new(BOUNDS);
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| waiting(subscribe(&bus, &["a", "b"], None)))
        .collect();
    let mut left = CROWD;
    let messages = vec![message("b", 1), message("a", 2)];
    bus.publish_to(messages, NOW, |crowd| {
        // The lock is not held during the call.
        let waiting = bus.statistics().waiting;
        assert!(left - waiting <= TAKEN, "{left} {waiting}");
        left = waiting;
        crowd.wake();
    });
    assert_eq!(left, 0);
    for ticket in crowd {
        let Some(Wake::Message(message)) = ticket.waiter().woken() else {
            panic!("not woken");
        };
        assert_eq!(message.channel(), "b");
    }
}

#[test]
fn waiter_gets_the_first_message_of_its_channels() {
    let bus = Bus::new(BOUNDS);
    let ticket = waiting(subscribe(&bus, &["a", "b"], None));
    assert!(bus.publish(vec![message("c", 1)], NOW).is_empty());
    for crowd in bus.publish(vec![message("b", 2), message("a", 3)], NOW) {
        crowd.wake();
    }
    let wake = ticket.waiter().wait(Duration::MAX);
    assert!(
        matches!(wake, Some(Wake::Message(message)) if *message.id() == Id::from_json("2"))
    );
    let next = subscribe(&bus, &["a", "b"], Some(2));
    assert!(
        matches!(next, Subscription::Message(message) if *message.id() == Id::from_json("3"))
    );
}

#[test]
fn ticket_that_is_dropped_leaves() {
    let bus = Bus::new(BOUNDS);
    let ticket = waiting(subscribe(&bus, &["a"], None));
    assert_eq!(bus.statistics().waiting, 1);
    drop(ticket);
    assert_eq!(bus.statistics().waiting, 0);
    assert!(bus.publish(vec![message("a", 1)], NOW).is_empty());
}

#[test]
fn close_ends_waits_now_and_later() {
    let bus = Bus::new(BOUNDS);
    let before = waiting(subscribe(&bus, &["a"], None));
    bus.close().wake();
    let after = waiting(subscribe(&bus, &["a"], None));
    for ticket in [before, after] {
        let wake = ticket.waiter().wait(Duration::MAX);
        assert!(matches!(wake, Some(Wake::Closed)));
    }
    assert_eq!(bus.statistics().waiting, 0);
}

#[test]
fn cleared_history_is_empty_and_waiters_stay() {
    let bus = Bus::new(BOUNDS);
    let _ = bus.publish(vec![message("a", 1)], NOW);
    let ticket = waiting(subscribe(&bus, &["b"], None));
    bus.clear();
    assert_eq!(
        bus.statistics(),
        Statistics {
            waiting: 1,
            published: 1,
            ..Statistics::default()
        }
    );
    drop(ticket);
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(Vec<u8>, Option<u64>),
    Leave(prop::sample::Index),
    Publish(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let channels = || prop::collection::vec(0_u8..4, 0..4);
    prop_oneof![
        (channels(), prop::option::of(0_u64..40))
            .prop_map(|(channels, last)| Step::Subscribe(channels, last)),
        any::<prop::sample::Index>().prop_map(Step::Leave),
        channels().prop_map(Step::Publish),
    ]
}

proptest! {
    /// A poll that waits gets the first message of its channels. A poll
    /// that does not wait finds its next message in the history. No other
    /// poll is woken.
    #[test]
    fn every_subscriber_gets_its_next_message(steps in prop::collection::vec(step(), 1..60)) {
        let names = ["a", "b", "c", "d"];
        let bus = Bus::new(BOUNDS);
        let mut published: Vec<u8> = Vec::new();
        let mut waiting: Vec<(Ticket, Vec<u8>)> = Vec::new();
        for step in steps {
            match step {
                Step::Subscribe(channels, last) => {
                    let asked: Vec<_> = channels.iter().map(|c| names[*c as usize]).collect();
                    let from = last.filter(|last| *last < published.len() as u64);
                    let from = from.map_or(0, |last| usize::try_from(last).unwrap() + 1);
                    let next = published[from..].iter().position(|c| channels.contains(c));
                    match subscribe(&bus, &asked, last) {
                        Subscription::Message(message) => {
                            let id = (from + next.expect("none was published")) as u64;
                            prop_assert_eq!(message.id(), &Id::from_json(&id.to_string()));
                        }
                        Subscription::Waiting(ticket) => {
                            prop_assert_eq!(next, None);
                            waiting.push((ticket, channels));
                        }
                    }
                }
                Step::Leave(index) if !waiting.is_empty() => {
                    waiting.swap_remove(index.index(waiting.len()));
                }
                Step::Leave(_) => {}
                Step::Publish(channels) => {
                    let first = published.len();
                    let id = |index: usize| (first + index) as u64;
                    let messages = channels.iter().enumerate();
                    let messages = messages.map(|(index, c)| message(names[*c as usize], id(index)));
                    bus.publish(messages.collect(), NOW).iter().for_each(Crowd::wake);
                    published.extend(&channels);
                    let mut still = Vec::new();
                    for (ticket, asked) in waiting {
                        match channels.iter().position(|c| asked.contains(c)) {
                            None => {
                                prop_assert!(ticket.waiter().woken().is_none());
                                still.push((ticket, asked));
                            }
                            Some(index) => {
                                let expected = Id::from_json(&id(index).to_string());
                                let woken = ticket.waiter().woken();
                                prop_assert!(
                                    matches!(woken, Some(Wake::Message(m)) if *m.id() == expected)
                                );
                            }
                        }
                    }
                    waiting = still;
                }
            }
            prop_assert_eq!(bus.statistics().waiting, waiting.len());
        }
    }
}
