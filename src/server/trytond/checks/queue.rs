//! The sessions of one database that wait for a check.
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::server::metrics::Counted;
use crate::server::trytond::backoff::Backoff;
use crate::server::trytond::{Check, Session};

/// The order in which sessions of a database are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// The session was valid a short while ago.
    Lately,
    /// The session is unknown. The networks of such clients take turns.
    Stranger,
}

#[derive(Default)]
pub(super) struct Queue {
    lately: VecDeque<Pending>,
    /// By network; none where the address is unknown.
    strangers: HashMap<Option<IpAddr>, VecDeque<Pending>>,
    /// The keys of `strangers`, in turn.
    turns: VecDeque<Option<IpAddr>>,
    /// The pauses after questions that fail; none if the last one did not.
    pub(super) pauses: Option<Backoff>,
}

pub(super) struct Pending {
    pub(super) session: Arc<Session>,
    pub(super) rank: Rank,
    /// Closed when the answer is no longer wanted.
    pub(super) answer: oneshot::Sender<Check>,
    pub(super) since: Instant,
    /// Counts the session as waiting.
    pub(super) _counted: Counted,
}

impl Queue {
    pub(super) fn push(&mut self, pending: Pending) {
        if pending.rank == Rank::Lately {
            self.lately.push_back(pending);
            return;
        }
        let network = pending.session.address.as_deref().and_then(network);
        match self.strangers.entry(network) {
            Entry::Occupied(mut queue) => queue.get_mut().push_back(pending),
            Entry::Vacant(place) => {
                self.turns.push_back(network);
                place.insert(VecDeque::from([pending]));
            }
        }
    }

    /// Takes at most this number of sessions that are still wanted.
    pub(super) fn take(&mut self, most: usize) -> Vec<Pending> {
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some(pending) = self.pop() else {
                break;
            };
            if !pending.answer.is_closed() {
                batch.push(pending);
            }
        }
        batch
    }

    fn pop(&mut self) -> Option<Pending> {
        if let Some(pending) = self.lately.pop_front() {
            return Some(pending);
        }
        let network = self.turns.pop_front()?;
        let queue = self.strangers.get_mut(&network)?;
        let pending = queue.pop_front();
        if queue.is_empty() {
            self.strangers.remove(&network);
        } else {
            self.turns.push_back(network);
        }
        pending
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.all().any(|pending| !pending.answer.is_closed())
    }

    /// Drops the sessions that are not wanted; returns how many remain.
    pub(super) fn sweep(&mut self) -> usize {
        let wanted = |pending: &Pending| !pending.answer.is_closed();
        self.lately.retain(wanted);
        self.strangers.retain(|_, queue| {
            queue.retain(wanted);
            !queue.is_empty()
        });
        let strangers = &self.strangers;
        self.turns.retain(|network| strangers.contains_key(network));
        self.all().count()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Pending> {
        self.lately.iter().chain(self.strangers.values().flatten())
    }

    pub(super) fn into_all(self) -> impl Iterator<Item = Pending> {
        let strangers = self.strangers.into_values().flatten();
        self.lately.into_iter().chain(strangers)
    }
}

/// The address itself, or the first half of an IPv6 address, because a client
/// may have every address that begins with it.
fn network(address: &str) -> Option<IpAddr> {
    Some(match address.parse().ok()? {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_is_the_first_half_of_an_address_of_ipv6() {
        for (address, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::")),
            ("2001:db8:1:3::1", Some("2001:db8:1:3::")),
            ("nonsense", None),
        ] {
            let expected = expected.and_then(|text| text.parse().ok());
            assert_eq!(network(address), expected, "{address}");
        }
    }
}
