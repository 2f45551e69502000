//! The channels of a poll, limited to those that its user may see.
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::message::{Message, response};

/// The channels of one poll.
#[derive(Clone, Debug)]
pub struct Poll {
    /// In the order of their hashes. Shared with the waitlist.
    channels: Box<[Arc<str>]>,
    hashes: Box<[u64]>,
    /// The index of the one channel of the form `client:…`.
    client: Option<usize>,
}

impl Poll {
    /// A poll for `channels`, without those that belong to another user. A
    /// channel that is named twice counts once.
    ///
    /// trytond's route drops any `user:<id>` channel that the client asked for,
    /// and adds the one of the session's user. If there is exactly one, only
    /// the `notification:<id>` with the same id is kept. Otherwise the user is
    /// unknown and nothing is dropped.
    ///
    /// ```
    /// use trytond_fastbus::poll::Poll;
    ///
    /// let asked = ["client:x", "user:1", "notification:1", "notification:2"];
    /// let poll = Poll::new(asked.map(Into::into));
    /// assert_eq!((poll.user(), poll.client()), (Some("1"), Some("client:x")));
    /// assert_eq!(poll.channels().len(), 3, "without notification:2");
    /// ```
    #[must_use]
    pub fn new(channels: impl IntoIterator<Item = Arc<str>>) -> Self {
        let poll = Self::of(channels);
        let Some(user) = poll.user().map(str::to_owned) else {
            return poll;
        };
        let is_foreign = |channel: &Arc<str>| {
            let owner = channel.strip_prefix("notification:");
            owner.is_some_and(|owner| owner != user)
        };
        if poll.channels.iter().any(is_foreign) {
            let channels = poll.channels.into_iter();
            return Self::of(channels.filter(|channel| !is_foreign(channel)));
        }
        poll
    }

    fn of(channels: impl IntoIterator<Item = Arc<str>>) -> Self {
        let channels = channels.into_iter();
        let mut pairs: Vec<_> =
            channels.map(|channel| (hash(&channel), channel)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let (hashes, channels): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let client = only(&channels, "client:").map(|(index, _)| index);
        Self {
            channels: channels.into(),
            hashes: hashes.into(),
            client,
        }
    }

    /// The id of the user, if it is known.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        only(&self.channels, "user:").map(|(_, id)| id)
    }

    /// The chats among the channels.
    pub fn chats(&self) -> impl Iterator<Item = &str> {
        let channels = self.channels.iter().map(AsRef::as_ref);
        channels.filter(|channel| is_chat(channel))
    }

    /// Drops all chats except these.
    pub fn keep_chats(&mut self, mut chats: Vec<Box<str>>) {
        chats.sort_unstable();
        let is_kept = |channel: &Arc<str>| {
            let found = chats.binary_search_by(|chat| (**chat).cmp(channel));
            !is_chat(channel) || found.is_ok()
        };
        let channels = std::mem::take(&mut self.channels).into_iter();
        *self = Self::of(channels.filter(is_kept));
    }

    /// The channels whose messages the client gets, in no particular order.
    #[must_use]
    pub fn channels(&self) -> &[Arc<str>] {
        &self.channels
    }

    /// The [hashes](hash) of the channels, in the same order, which is the
    /// rising order of the hashes.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Whether the poll asks for the channel with this [hash].
    #[must_use]
    pub fn asks(&self, channel: u64) -> bool {
        self.hashes.binary_search(&channel).is_ok()
    }

    /// The channel of the form `client:…`, if there is exactly one.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.client.map(|index| &*self.channels[index])
    }

    /// The client's own channel, if `message` has to be answered there instead
    /// of on its own channel.
    ///
    /// From 7.6 on clients show a notification on their `client:` channel only.
    /// They would never show a notification that was published to a user.
    #[must_use]
    pub fn relay(&self, message: &Message) -> Option<&str> {
        let client = &self.channels[self.client?];
        (message.is_notification() && message.channel().starts_with("user:"))
            .then_some(client)
    }

    /// The JSON of the response with `message`, or without one.
    #[must_use]
    pub fn response(&self, message: Option<&Message>, relay: bool) -> String {
        match message {
            None => EMPTY_RESPONSE.into(),
            Some(message) => match self.relay(message).filter(|_| relay) {
                Some(channel) => response(message.json(), channel),
                None => message.response().into(),
            },
        }
    }
}

/// The response that tells a client to poll again.
pub const EMPTY_RESPONSE: &str = r#"{"message":null,"channel":null}"#;

/// A number in place of the name of a channel. Its key is random, so that a
/// client can't choose two names with the same number.
#[must_use]
pub fn hash(channel: &str) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(channel)
}

fn is_chat(channel: &str) -> bool {
    channel.starts_with("chat:")
}

/// The index and the rest of the only channel that starts with `prefix`.
fn only<'a>(channels: &'a [Arc<str>], prefix: &str) -> Option<(usize, &'a str)> {
    let mut found = channels
        .iter()
        .enumerate()
        .filter_map(|(index, channel)| Some((index, channel.strip_prefix(prefix)?)));
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(channels: &[&str]) -> Poll {
        Poll::new(channels.iter().map(|channel| (*channel).into()))
    }

    fn sorted<'a>(channels: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut channels: Vec<_> = channels.into_iter().collect();
        channels.sort_unstable();
        channels
    }

    fn names(poll: &Poll) -> Vec<&str> {
        sorted(poll.channels().iter().map(AsRef::as_ref))
    }

    #[test]
    fn hashes_are_those_of_the_channels() {
        let poll = poll(&["c", "a", "client:x", "a", "b", "client:x"]);
        assert_eq!(names(&poll), ["a", "b", "c", "client:x"]);
        assert_eq!(poll.client(), Some("client:x"));
        let hashes: Vec<_> = poll.channels().iter().map(|name| hash(name)).collect();
        assert_eq!(poll.hashes(), hashes);
        assert!(poll.asks(hash("b")) && !poll.asks(hash("d")));
    }

    #[test]
    fn channels_of_other_users_are_dropped() {
        for (asked, kept) in [
            (
                &["user:1", "notification:1", "notification:2", "client:x"][..],
                &["user:1", "notification:1", "client:x"][..],
            ),
            (&["user:1", "notification:11"], &["user:1"]),
            (&["user:1", "notification:"], &["user:1"]),
            (
                &["user:1", "chat:res.user,2"],
                &["user:1", "chat:res.user,2"],
            ),
            // The user is unknown.
            (&["notification:2"], &["notification:2"]),
            (
                &["user:1", "user:2", "notification:3"],
                &["user:1", "user:2", "notification:3"],
            ),
            (&[], &[]),
        ] {
            let kept = sorted(kept.iter().copied());
            assert_eq!(names(&poll(asked)), kept, "of {asked:?}");
        }
    }

    #[test]
    fn chats_but_some_are_dropped() {
        let mut poll = poll(&["chat:b,1", "chat:a,1", "user:1", "client:x", "chat:"]);
        assert_eq!(poll.user(), Some("1"));
        assert_eq!(sorted(poll.chats()), ["chat:", "chat:a,1", "chat:b,1"]);

        poll.keep_chats(vec!["chat:a,1".into(), "chat:a,2".into()]);

        assert_eq!(names(&poll), ["chat:a,1", "client:x", "user:1"]);
        assert_eq!(poll.client(), Some("client:x"));
    }

    #[test]
    fn notification_of_the_user_is_relayed_to_the_only_client() {
        let notification = r#"{"message_id":1,"type":"notification"}"#;
        let other = r#"{"message_id":1,"type":"other"}"#;
        for (asked, channel, message, expected) in [
            (
                &["user:1", "client:x"][..],
                "user:1",
                notification,
                Some("client:x"),
            ),
            (&["user:1", "client:x"], "user:1", other, None),
            (&["user:1", "client:x"], "client:x", notification, None),
            (
                &["notification:1", "client:x"],
                "notification:1",
                notification,
                None,
            ),
            (&["user:1"], "user:1", notification, None),
            (
                &["user:1", "client:x", "client:y"],
                "user:1",
                notification,
                None,
            ),
        ] {
            let message = Message::new(channel, message).expect("a good message");
            let poll = poll(asked);
            assert_eq!(poll.relay(&message), expected, "{asked:?}");
            let shown = expected.unwrap_or(channel);
            assert_eq!(
                poll.response(Some(&message), true),
                format!("{{\"message\":{},\"channel\":\"{shown}\"}}", message.json())
            );
            assert_eq!(poll.response(Some(&message), false), message.response());
        }
        assert_eq!(poll(&[]).response(None, true), EMPTY_RESPONSE);
    }
}
