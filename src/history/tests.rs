//! The history against its rules.
use proptest::prelude::*;

use super::room::EVICTED_PART;
use super::*;
use crate::message::Id;

const WIDE: Bounds = Bounds {
    cache_timeout: Duration::from_secs(5),
    journal_timeout: None,
    cache_size: usize::MAX,
};

fn message(channel: &str, id: u64) -> Message {
    Message::new(channel, &format!("{{\"message_id\":{id}}}")).expect("a good message")
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(id: u64) -> Id {
    Id::from_json(&id.to_string())
}

/// The id of the next message, as a number.
fn next(
    history: &mut History,
    channels: &[&str],
    last: Option<u64>,
    now: Duration,
) -> Option<u64> {
    let next = history.next(channels, last.map(id).as_ref(), now)?;
    let json = next.json();
    Some(
        json["{\"message_id\":".len()..json.len() - 1]
            .parse()
            .expect("a number"),
    )
}

#[test]
fn many_messages_of_one_id_are_retained_and_dropped() {
    const MANY: u64 = 20_000;
    let mut history = History::new(WIDE);
    for number in 0..MANY {
        history.append(message(if number < 5 { "a" } else { "b" }, 7), at(0));
        history.append(message("a", 100 + number), at(0));
    }
    // The first one counts, in the channels that are asked for.
    assert_eq!(history.place(&id(7), &["a", "b"]), Some(0));
    assert_eq!(history.place(&id(7), &["b"]), Some(10));
    assert_eq!(next(&mut history, &["a"], Some(7), at(0)), Some(100));
    assert_eq!(
        next(&mut history, &["a"], Some(100 + MANY - 1), at(0)),
        None
    );
    while history.expire(at(6)) {}
    assert!(history.is_empty() && history.ids.is_empty());
}

fn filled(count: u64) -> History {
    let mut history = History::new(WIDE);
    for number in 0..count {
        history.append(
            message(if number % 2 == 0 { "even" } else { "odd" }, number),
            at(0),
        );
    }
    history
}

#[test]
fn next_is_the_first_after_the_last_in_the_asked_channels() {
    let mut history = filled(10);
    for (channels, last, expected) in [
        (&["even", "odd"][..], Some(3), Some(4)),
        (&["odd"], Some(3), Some(5)),
        (&["odd"], Some(9), None),
        (&["even", "odd"], Some(9), None),
        (&["even", "odd"], None, Some(0)),
        (&["odd"], None, Some(1)),
        // The last message is in a channel that the poll no longer names.
        (&["odd"], Some(4), Some(5)),
        (&["even"], Some(9), None),
        // The last message is unknown.
        (&["odd"], Some(99), Some(1)),
        (&["other"], None, None),
        (&["other"], Some(3), None),
        (&[], Some(3), None),
    ] {
        assert_eq!(
            next(&mut history, channels, last, at(0)),
            expected,
            "{channels:?} after {last:?}"
        );
    }
}

#[test]
fn expired_message_is_not_returned_and_its_id_is_unknown() {
    let mut history = History::new(WIDE);
    for number in 0..15 {
        history.append(message("c", number), at(number));
    }
    assert_eq!(next(&mut history, &["c"], None, at(15)), Some(10));
    assert_eq!(next(&mut history, &["c"], Some(0), at(15)), Some(10));
    assert_eq!(next(&mut history, &["c"], Some(11), at(15)), Some(12));
    assert_eq!(next(&mut history, &["c"], None, at(100)), None);
    assert!(history.is_empty());
    assert_eq!(history.bytes(), 0);
}

#[test]
fn old_message_is_for_polls_that_resume_only() {
    let mut history = History::new(Bounds {
        journal_timeout: Some(Duration::from_secs(100)),
        ..WIDE
    });
    for number in 0..15 {
        history.append(message("c", number), at(number));
    }
    for (last, now, expected) in [
        (None, at(15), Some(10)),
        (Some(99), at(15), Some(10)),
        (Some(0), at(15), Some(1)),
        (Some(12), at(15), Some(13)),
        (None, at(50), None),
        (Some(13), at(50), Some(14)),
        (Some(13), at(150), None),
    ] {
        assert_eq!(
            next(&mut history, &["c"], last, now),
            expected,
            "after {last:?} at {now:?}"
        );
    }
}

#[test]
fn a_clock_set_back_does_not_keep_messages_for_ever() {
    let mut history = History::new(WIDE);
    history.append(message("c", 1), at(1000));
    history.append(message("c", 2), at(10));
    assert_eq!(next(&mut history, &["c"], Some(1), at(10)), Some(2));
    history.expire(at(1006));
    assert!(history.is_empty());
}

#[test]
fn bytes_bound_drops_the_oldest_but_never_the_newest() {
    let one = size(&message("c", 1));
    let mut history = History::new(Bounds {
        cache_size: 3 * one,
        ..WIDE
    });
    for number in 0..9 {
        history.append(message("c", number), at(0));
    }
    assert_eq!(history.len(), 3);
    assert_eq!(history.forgotten(), 6);
    assert_eq!(next(&mut history, &["c"], None, at(0)), Some(6));
    let large = format!("{{\"message_id\":9,\"x\":\"{}\"}}", "x".repeat(9 * one));
    history.append(Message::new("c", &large).expect("a good message"), at(0));
    assert_eq!(history.len(), 1);
    assert!(history.next(&["c"], None, at(0)).is_some());
}

#[test]
fn room_for_a_large_message_is_made_in_slices() {
    let one = size(&message("c", 1_000_000));
    let count = 10 * SLICE;
    let mut history = History::new(Bounds {
        cache_size: count * one,
        ..WIDE
    });
    for number in 0..count as u64 {
        history.append(message("c", 1_000_000 + number), at(0));
    }
    let text = "x".repeat(count * one);
    let large = Message::new("c", &format!("{{\"message_id\":1,\"x\":\"{text}\"}}"));
    history.append(large.expect("a good message"), at(0));
    let mut before = count + 1;
    loop {
        assert!(
            history.len() + SLICE >= before,
            "{} of {before}",
            history.len()
        );
        before = history.len();
        if !history.expire(at(0)) {
            break;
        }
    }
    assert_eq!(history.len(), 1);
}

#[test]
fn evicted_message_is_before_all_retained_ones() {
    let one = size(&message("c", 1));
    let bytes = 8 * one;
    let mut history = History::new(Bounds {
        cache_timeout: Duration::from_secs(5),
        journal_timeout: Some(Duration::from_secs(100)),
        cache_size: bytes,
    });
    for number in 1..=20 {
        history.append(message("c", number).numbered(number), at(0));
        assert!(history.bytes() <= bytes);
    }
    let last = history.evicted().last();
    assert_eq!(
        next(&mut history, &["c"], Some(last), at(0)),
        Some(last + 1)
    );
    assert_eq!(history.evicted().number(&id(last)), Some(last));
    assert!(history.evicted().bytes() <= bytes / EVICTED_PART);
    let known =
        (1..=last).filter(|known| history.evicted().number(&id(*known)).is_some());
    assert_eq!(history.forgotten() + known.count() as u64, last);
    history.expire(at(101));
    assert_eq!(history.bytes(), 0);
}

#[test]
fn evicted_messages_keep_their_numbers_over_a_time_without_the_journal() {
    let bounds = |journal_timeout| Bounds {
        cache_timeout: Duration::from_secs(5),
        journal_timeout,
        cache_size: 50 * size(&message("c", 1000)),
    };
    let mut history = History::new(bounds(Some(at(100))));
    for (numbers, journal) in [
        (1000..1100, Some(at(100))),
        (1100..1120, None),
        (1120..1140, Some(at(100))),
    ] {
        history.set_bounds(bounds(journal));
        for number in numbers {
            history.append(message("c", number).numbered(number), at(0));
        }
    }
    let known: Vec<_> = (1000..1140)
        .filter_map(|number| Some((number, history.evicted().number(&id(number))?)))
        .collect();
    assert!(known.iter().all(|(id, number)| id == number), "{known:?}");
    let gaps = known.windows(2).filter(|pair| pair[1].0 != pair[0].0 + 1);
    assert_eq!(gaps.count(), 1, "{known:?}");
}

#[test]
fn messages_are_evicted_while_older_ones_expire() {
    let journal = Bounds {
        cache_timeout: Duration::from_secs(5),
        journal_timeout: Some(Duration::from_secs(100)),
        cache_size: 20 * SLICE * size(&message("c", 10_000)),
    };
    let mut history = History::new(journal);
    let count = 30 * SLICE as u64;
    for number in 10_000..10_000 + count {
        let time = if number < 10_000 + count / 2 {
            at(0)
        } else {
            at(50)
        };
        history.append(message("c", number).numbered(number), time);
    }
    assert!(history.evicted().bytes() > 2 * SLICE * size_of::<Id>());
    history.set_bounds(Bounds {
        cache_size: journal.cache_size / 2,
        ..journal
    });
    let mut before = history.end() - history.first();
    while history.expire(at(101)) {
        let now = history.end() - history.first();
        assert!(before - now <= SLICE as u64);
        before = now;
    }
    assert!(history.bytes() <= journal.cache_size / 2);
    let last = history.evicted().last();
    assert_eq!(
        next(&mut history, &["c"], Some(last), at(101)),
        Some(last + 1)
    );
}

#[test]
fn old_messages_are_dropped_in_slices_and_not_returned_meanwhile() {
    let mut history = History::new(WIDE);
    for number in 0..10 * SLICE {
        let message = Message::new("a", &format!("{{\"message_id\":{number}}}"));
        history.append(message.expect("good"), at(0));
    }
    assert!(history.next(&["a"], None, at(6)).is_none());
    assert!(history.len() >= 8 * SLICE, "{}", history.len());
    let message = Message::new("a", r#"{"message_id":"young"}"#).expect("good");
    let young = history.append(message, at(6));
    let next = history.next(&["a"], None, at(6)).expect("the young one");
    assert_eq!(next.id(), young.id());
    while history.expire(at(6)) {}
    assert_eq!(history.len(), 1);
}

#[test]
fn channels_without_messages_cost_nothing() {
    let mut history = History::new(WIDE);
    for number in 0..10_000 {
        history.append(message(&format!("c{number}"), number), at(0));
    }
    while history.expire(at(6)) {}
    assert_eq!(history.channels.len(), 0);
    assert!(history.is_empty());
}

#[test]
fn all_messages_from_a_number_on_are_listed_with_their_times() {
    let mut history = History::new(WIDE);
    for number in 0..4 {
        history.append(message("c", number).aged(at(2)), at(number + 10));
    }
    history.expire(at(14));
    for (from, expected) in [
        (0, &[9, 10, 11][..]),
        (2, &[10, 11]),
        (4, &[]),
        (u64::MAX, &[]),
    ] {
        let times = history.all_from(from).map(|(time, _)| time.as_secs());
        assert_eq!(times.collect::<Vec<_>>(), expected, "from {from}");
    }
}

#[test]
fn clear_forgets_all() {
    let mut history = filled(10);
    drop(history.clear());
    assert_eq!(next(&mut history, &["even"], Some(3), at(0)), None);
    history.append(message("even", 20), at(0));
    assert_eq!(next(&mut history, &["even"], Some(3), at(0)), Some(20));
}

/// The rule in its simplest form, which examines every retained message.
fn slow_next(
    all: &[(u8, u64, Duration)],
    channels: &[u8],
    last: Option<u64>,
    now: Duration,
) -> Option<u64> {
    let fresh = all.iter().filter(|(_, _, time)| *time + at(5) >= now);
    let fresh: Vec<_> = fresh.collect();
    let place = last.and_then(|last| {
        let asked = |(channel, id, _): &&(u8, u64, Duration)| {
            *id == last && channels.contains(channel)
        };
        let anywhere = |(_, id, _): &&(u8, u64, Duration)| *id == last;
        fresh
            .iter()
            .position(asked)
            .or_else(|| fresh.iter().position(anywhere))
    });
    fresh[place.map_or(0, |place| place + 1)..]
        .iter()
        .find(|(channel, _, _)| channels.contains(channel))
        .map(|(_, id, _)| *id)
}

proptest! {
    #[test]
    fn next_agrees_with_a_scan(
        steps in prop::collection::vec((0_u8..4, 0_u64..30, 0_u64..2000), 1..80),
        polls in prop::collection::vec(
            (prop::collection::vec(0_u8..4, 0..4), prop::option::of(0_u64..30)), 1..20),
    ) {
        let names = ["a", "b", "c", "d"];
        let mut history = History::new(WIDE);
        let mut all = Vec::new();
        let mut now = Duration::ZERO;
        for (channel, id, passed) in steps {
            now += Duration::from_millis(passed);
            history.append(message(names[channel as usize], id), now);
            all.push((channel, id, now));
            for (channels, last) in &polls {
                let asked: Vec<_> = channels.iter().map(|c| names[*c as usize]).collect();
                prop_assert_eq!(
                    next(&mut history, &asked, *last, now),
                    slow_next(&all, channels, *last, now)
                );
            }
        }
        history.expire(now + at(6));
        prop_assert!(history.is_empty());
        prop_assert_eq!(history.bytes(), 0);
        prop_assert!(history.channels.is_empty() && history.ids.is_empty());
    }
}
