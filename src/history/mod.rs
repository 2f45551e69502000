//! The retained messages of one database: their order, its indexes by channel
//! and by id, and the limits in time and bytes.
mod evicted;
mod find;
mod ids;
mod room;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use self::evicted::Evicted;
pub use self::find::Position;
use self::ids::Ids;
pub(crate) use self::room::SLICE;
use crate::index::Index;
use crate::message::Message;
use crate::queue::Queue;

/// How many bytes an entry of the order and its places in the two indexes take,
/// without the message itself.
const ENTRY_SIZE: usize = size_of::<Entry>() + 4 * size_of::<u64>() + 16;

/// The messages of one database, in the order in which they arrived.
///
/// Each has a number, one more than that of the message before. The history
/// reads no clock and no configuration. Times are those of the caller's clock,
/// which began so long ago that the age of any message can be subtracted.
///
/// ```
/// use std::time::Duration;
///
/// use trytond_fastbus::history::{Bounds, History};
/// use trytond_fastbus::message::Message;
///
/// let mut history = History::new(Bounds {
///     cache_timeout: Duration::from_secs(300),
///     journal_timeout: None,
///     cache_size: 1 << 20,
/// });
/// let now = Duration::from_secs(1000);
/// let first = history.append(Message::new("a", r#"{"message_id": 1}"#)?, now);
/// let second = history.append(Message::new("b", r#"{"message_id": 2}"#)?, now);
///
/// let oldest = history.next(&["a", "b"], None, now).expect("two messages");
/// assert_eq!(oldest.id(), first.id());
/// let next = history.next(&["a", "b"], Some(first.id()), now).expect("another");
/// assert_eq!(next.id(), second.id());
///
/// let later = now + Duration::from_secs(301);
/// assert!(history.next(&["a", "b"], None, later).is_none());
/// # Ok::<(), trytond_fastbus::Error>(())
/// ```
#[derive(Debug)]
pub struct History {
    entries: Queue<Entry>,
    /// The number of the first entry, or of the next entry if the history is
    /// empty.
    first: u64,
    /// The numbers of each channel's messages, rising. No list is empty.
    channels: Index<Channel>,
    /// The numbers of the messages, by the hash of their ids. The ids
    /// themselves are in the messages.
    ids: Ids,
    hasher: RandomState,
    bytes: usize,
    /// The evicted messages, where there is a journal.
    evicted: Evicted,
    /// How many messages were evicted, so that no poll can resume after them.
    forgotten: u64,
    bounds: Bounds,
}

#[derive(Debug)]
struct Entry {
    time: Duration,
    message: Arc<Message>,
}

/// The messages of one channel.
#[derive(Debug)]
struct Channel {
    name: Arc<str>,
    numbers: VecDeque<u64>,
}

/// How much is retained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// How long a message is retained.
    pub cache_timeout: Duration,
    /// With a journal: how long a message is retained for polls that resume
    /// after a known message.
    pub journal_timeout: Option<Duration>,
    /// The limit of bytes for the messages. The newest message is retained even
    /// if it is larger.
    pub cache_size: usize,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            entries: Queue::default(),
            first: 0,
            channels: Index::default(),
            ids: Ids::default(),
            hasher: RandomState::new(),
            bytes: 0,
            evicted: Evicted::default(),
            forgotten: 0,
            bounds,
        }
    }

    /// Changes the bounds, which hold from the next operation on.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Appends a message that arrived at `now`, and drops up to two slices of
    /// messages as [`History::expire`] does.
    pub fn append(&mut self, mut message: Message, now: Duration) -> Arc<Message> {
        self.expire(now);
        let number = self.end();
        let time = now.saturating_sub(message.age());
        // A message must not be older than those before it, even if the clock
        // is set back. Otherwise they would hide that it has expired.
        let time = self.entries.back().map_or(time, |last| last.time.max(time));
        self.note(&mut message, number);
        message.set_arrived(now);
        self.bytes += size(&message);
        let message = Arc::new(message);
        self.entries.push_back(Entry {
            time,
            message: message.clone(),
        });
        let hash = self.hasher.hash_one(message.id());
        let (entries, first) = (&self.entries, self.first);
        self.ids.insert(hash, number, |other| {
            entry(entries, first, other).message.id() == message.id()
        });
        self.expire(now);
        message
    }

    /// Notes that the message with this number is in its channel, whose name
    /// it shares with the other messages there.
    fn note(&mut self, message: &mut Message, number: u64) {
        let hash = self.hasher.hash_one(message.channel());
        let is_it = |channel: &Channel| *channel.name == *message.channel();
        if let Some(channel) = self.channels.find_mut(hash, is_it) {
            *message.shared_channel() = channel.name.clone();
            channel.numbers.push_back(number);
            return;
        }
        let channel = Channel {
            name: message.shared_channel().clone(),
            numbers: VecDeque::from([number]),
        };
        self.channels.insert(hash, channel);
    }

    /// The numbers of the messages in a channel, if there are any.
    fn numbers(&self, channel: &str) -> Option<&VecDeque<u64>> {
        let hash = self.hasher.hash_one(channel);
        let found = self.channels.find(hash, |other| *other.name == *channel);
        found.map(|channel| &channel.numbers)
    }

    /// Replaces the message with this number by its row, which has the journal
    /// number, unless they differ or the message is no longer retained.
    pub(crate) fn confirm(&mut self, number: u64, mut row: Message) {
        let index = number.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let entry = index.and_then(|index| self.entries.get_mut(index));
        if let Some(entry) = entry.filter(|entry| entry.message.is_same(&row)) {
            row.succeed(&entry.message);
            entry.message = Arc::new(row);
        }
    }

    /// The number of the oldest retained message, or of the next message if the
    /// history is empty.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next message.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// How many messages are retained.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no message is retained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes the retained messages and their indexes take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.evicted.bytes()
    }

    /// How many messages were evicted for lack of memory, so that no poll can
    /// resume after them.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The evicted messages that are in the journal.
    pub(crate) fn evicted(&self) -> &Evicted {
        &self.evicted
    }

    fn message(&self, number: u64) -> &Arc<Message> {
        &entry(&self.entries, self.first, number).message
    }
}

/// The entry with this number of `entries`, the first of which has the number
/// `first`.
fn entry(entries: &Queue<Entry>, first: u64, number: u64) -> &Entry {
    let index = usize::try_from(number - first);
    let entry = index.ok().and_then(|index| entries.get(index));
    entry.expect("its number is in an index")
}

fn size(message: &Message) -> usize {
    message.size() + ENTRY_SIZE
}
