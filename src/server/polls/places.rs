//! From which message on a client wants each of its channels.
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::poll::Poll;

/// How long a channel is kept after the last poll that asked for it,
/// because requests of a client may overtake each other.
const LINGER: Duration = Duration::from_secs(5);

/// The most channels that are kept in this way.
const LINGERING: usize = 1024;

/// From which number on a client wants the messages of each of its channels.
#[derive(Debug)]
pub(crate) enum Places {
    /// All channels of a poll have the same place, as for most clients.
    Same(Arc<Poll>, u64),
    /// The channels have places of their own, in the order of their hashes.
    Each(Box<[Place]>),
}

/// The place of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The hash of the name.
    channel: u64,
    from: u64,
    /// The time until which it is kept though no poll asks for it.
    until: Duration,
}

/// The polls of a client, beside the one that arrives.
#[derive(Debug)]
pub(crate) struct Others<'a> {
    /// The polls that wait.
    pub(crate) waiting: SmallVec<[&'a Arc<Poll>; 2]>,
    /// The polls that have ended since the previous poll arrived.
    pub(crate) ended: &'a [Arc<Poll>],
    /// The channels of the poll whose answer is acknowledged, because its
    /// client knows best which of them it still wants.
    pub(crate) acknowledged: Option<&'a Places>,
}

impl Default for Places {
    fn default() -> Self {
        Self::Each(Box::default())
    }
}

impl Places {
    /// The place of the channel with this hash, if the channel is known.
    pub(crate) fn get(&self, channel: u64) -> Option<u64> {
        match self {
            Self::Same(poll, from) => poll.asks(channel).then_some(*from),
            Self::Each(each) => {
                let found = each.binary_search_by_key(&channel, |place| place.channel);
                found.ok().map(|index| each[index].from)
            }
        }
    }

    /// The place of all channels of the poll, if they are those of
    /// [`Places::Same`].
    pub(crate) fn same(&self, poll: &Poll) -> Option<u64> {
        match self {
            Self::Same(known, from) if known.hashes() == poll.hashes() => Some(*from),
            _ => None,
        }
    }

    /// The poll that asks for the same channels as `poll`, if one is kept.
    pub(crate) fn shared(&self, poll: &Poll) -> Option<&Arc<Poll>> {
        match self {
            Self::Same(known, _) if known.hashes() == poll.hashes() => Some(known),
            _ => None,
        }
    }

    /// Registers the channels of a poll that arrives at `now`, and forgets the
    /// channels that its client does not ask for any more. `place` gives the
    /// new place of a channel from the old one.
    pub(crate) fn arrive(
        &mut self,
        poll: &Arc<Poll>,
        others: &Others<'_>,
        now: Duration,
        place: impl Fn(u64, Option<u64>) -> u64,
    ) {
        let same = self.same(poll);
        let places: Vec<_> = poll
            .hashes()
            .iter()
            .map(|&channel| Place {
                channel,
                from: place(channel, same.or_else(|| self.get(channel))),
                until: now + LINGER,
            })
            .collect();
        let first = places.first().map_or(0, |place| place.from);
        let are_same = places.iter().all(|place| place.from == first);
        let is_other = |other: &Arc<Poll>| other.hashes() != poll.hashes();
        let is_alone = !others.waiting.iter().any(|other| is_other(other))
            && !others.ended.iter().any(is_other);
        if !are_same || !is_alone || same.is_none() {
            let kept = self.kept(places, others, now, place);
            if !are_same || kept.len() > poll.hashes().len() {
                *self = Self::Each(kept);
                return;
            }
        }
        *self = Self::Same(poll.clone(), first);
    }

    /// The places of the poll that arrives, and of other channels that its
    /// client may still want.
    fn kept(
        &self,
        mut kept: Vec<Place>,
        others: &Others<'_>,
        now: Duration,
        place: impl Fn(u64, Option<u64>) -> u64,
    ) -> Box<[Place]> {
        let asked = |&channel: &u64| Place {
            channel,
            from: place(channel, self.get(channel)),
            until: now + LINGER,
        };
        let is_closed = |channel| {
            let acknowledged = others.acknowledged;
            acknowledged.is_some_and(|places| places.get(channel).is_some())
        };
        let waiting = others.waiting.iter();
        kept.extend(waiting.flat_map(|poll| poll.hashes()).map(asked));
        let ended = others.ended.iter().flat_map(|poll| poll.hashes());
        let known = match self {
            Self::Same(..) => &[][..],
            Self::Each(each) => each,
        };
        let known = known.iter().filter(|place| now < place.until);
        let lingering = ended.map(asked).chain(known.copied());
        let lingering = lingering.filter(|place| !is_closed(place.channel));
        kept.extend(lingering.take(LINGERING));
        // Of several places of a channel the first stays.
        kept.sort_by_key(|place| place.channel);
        kept.dedup_by_key(|place| place.channel);
        kept.into()
    }

    /// Keeps numbers in place of names, for a client that may never return.
    pub(crate) fn forget_names(&mut self) {
        if let Self::Same(poll, from) = self {
            let channels = poll.hashes().iter();
            let each = channels.map(|&channel| Place {
                channel,
                from: *from,
                until: Duration::ZERO,
            });
            *self = Self::Each(each.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::poll::hash;

    fn poll(channels: &[&str]) -> Arc<Poll> {
        Arc::new(Poll::new(channels.iter().map(|channel| (*channel).into())))
    }

    fn known(places: &Places, channels: &[&str]) -> Vec<Option<u64>> {
        let channels = channels.iter();
        channels.map(|name| places.get(hash(name))).collect()
    }

    fn others<'a>(waiting: &'a [Arc<Poll>], ended: &'a [Arc<Poll>]) -> Others<'a> {
        Others {
            waiting: waiting.iter().collect(),
            ended,
            acknowledged: None,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn begin(from: u64) -> impl Fn(u64, Option<u64>) -> u64 {
        move |_, old| old.unwrap_or(from)
    }

    #[test]
    fn channels_that_no_poll_asks_for_are_forgotten_after_a_while() {
        const ALL: [&str; 3] = ["a", "b", "c"];
        let (ab, ac, c) = ([poll(&["a", "b"])], poll(&["a", "c"]), poll(&["c"]));
        let mut places = Places::default();
        places.arrive(&ab[0], &others(&[], &[]), at(0), begin(1));
        assert_eq!(known(&places, &ALL), [Some(1), Some(1), None]);
        places.arrive(&ac, &others(&ab, &[]), at(100), begin(2));
        assert_eq!(known(&places, &ALL), [Some(1), Some(1), Some(2)]);
        places.arrive(&c, &others(&[], &ab), at(200), begin(3));
        assert_eq!(known(&places, &ALL), [Some(1), Some(1), Some(2)]);
        places.arrive(&c, &others(&[], &[]), at(200) + LINGER / 2, begin(3));
        assert_eq!(known(&places, &ALL), [Some(1), Some(1), Some(2)]);
        places.arrive(&c, &others(&[], &[]), at(200) + LINGER, begin(3));
        assert_eq!(known(&places, &ALL), [None, None, Some(2)]);
    }

    #[test]
    fn channel_that_is_closed_with_an_acknowledgement_is_forgotten_at_once() {
        let ab = [poll(&["a", "b"])];
        let mut places = Places::default();
        places.arrive(&ab[0], &others(&[], &[]), at(0), begin(1));
        let acknowledged = Places::Same(ab[0].clone(), 1);
        let closing = Others {
            acknowledged: Some(&acknowledged),
            ..others(&[], &ab)
        };
        places.arrive(&poll(&["b"]), &closing, at(0), begin(2));
        assert_eq!(known(&places, &["a", "b"]), [None, Some(1)]);
    }

    #[test]
    fn client_that_changes_channels_all_the_time_takes_bounded_memory() {
        let mut places = Places::default();
        for number in 0..300 {
            let names: Vec<_> = (0..100)
                .map(|channel| format!("{number}:{channel}"))
                .collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let last = [poll(&names)];
            places.arrive(&last[0], &others(&[], &last), at(0), begin(1));
            let Places::Each(each) = &places else {
                continue;
            };
            assert!(each.len() <= LINGERING + names.len(), "{}", each.len());
        }
    }

    #[test]
    fn work_is_proportional_to_the_number_of_channels() {
        /// The shortest time of an arrival that acknowledges a poll for this
        /// number of channels, and asks for other channels, beside others that
        /// linger.
        fn time(channels: usize) -> Duration {
            let names = |kind: &str, count: usize| -> Vec<_> {
                let name = |number| format!("{kind}:{number:0250}");
                (0..count).map(name).collect()
            };
            let poll = |names: &[String]| {
                let names = names.iter().map(|name| name.as_str().into());
                Arc::new(Poll::new(names))
            };
            let ended: Vec<_> = (0..4)
                .map(|number| poll(&names(&format!("ended:{number}"), channels)))
                .collect();
            let (first, next) = (names("a", channels), names("b", channels));
            let (first, next) = (poll(&first), poll(&next));
            let acknowledged = Places::Same(first.clone(), 1);
            let acknowledging = Others {
                acknowledged: Some(&acknowledged),
                ..others(&[], &ended)
            };
            let arrival = || {
                let mut places = Places::default();
                places.arrive(&first, &others(&[], &[]), at(0), begin(1));
                assert!(matches!(places, Places::Same(..)));
                let begun = Instant::now();
                places.arrive(&next, &acknowledging, at(0), begin(2));
                let time = begun.elapsed();
                let Places::Each(each) = places else {
                    panic!("ended polls linger");
                };
                assert_eq!(each.len(), 5 * channels);
                time
            };
            (0..100).map(|_| arrival()).min().unwrap_or_default()
        }

        let (few, many) = (time(32), time(256));
        // Eight times as many channels; if each were compared with each, it
        // would take 64 times as long.
        assert!(many < few * 24, "{few:?} {many:?}");
    }

    #[test]
    fn places_are_kept_without_the_names() {
        let mut places = Places::default();
        places.arrive(&poll(&["a", "b"]), &others(&[], &[]), at(0), |_, _| 7);
        assert!(places.shared(&poll(&["a", "b"])).is_some());
        places.forget_names();
        assert!(places.shared(&poll(&["a", "b"])).is_none());
        assert_eq!(known(&places, &["a", "b", "c"]), [Some(7), Some(7), None]);
    }
}
