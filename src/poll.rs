//! The channels of a poll, limited to those that its user may see.
use std::sync::Arc;

use crate::message::{Message, response};

/// The channels of one poll.
#[derive(Clone, Debug)]
pub struct Poll {
    /// Shared with the waitlist.
    channels: Box<[Arc<str>]>,
    /// The index of the one channel of the form `client:…`.
    client: Option<usize>,
}

impl Poll {
    /// A poll for `channels`, without those that belong to another user.
    ///
    /// trytond's route drops any `user:<id>` channel that the client asked for,
    /// and adds the one of the session's user. If there is exactly one, only
    /// the `notification:<id>` with the same id is kept. Otherwise the user is
    /// unknown and nothing is dropped.
    #[must_use]
    pub fn new(channels: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut channels: Vec<_> = channels.into_iter().collect();
        if let Some(user) = only(&channels, "user:").map(|(_, id)| id.to_owned()) {
            channels.retain(|channel| {
                channel
                    .strip_prefix("notification:")
                    .is_none_or(|id| id == user)
            });
        }
        Self::of(channels)
    }

    fn of(channels: Vec<Arc<str>>) -> Self {
        let client = only(&channels, "client:").map(|(index, _)| index);
        Self {
            channels: channels.into(),
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
        *self = Self::of(channels.filter(is_kept).collect());
    }

    /// The channels whose messages the client gets.
    #[must_use]
    pub fn channels(&self) -> &[Arc<str>] {
        &self.channels
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
            let poll = poll(asked);
            let channels: Vec<_> = poll.channels().iter().map(AsRef::as_ref).collect();
            assert_eq!(channels, kept, "of {asked:?}");
        }
    }

    #[test]
    fn chats_but_some_are_dropped() {
        let mut poll = poll(&["chat:b,1", "chat:a,1", "user:1", "client:x", "chat:"]);
        assert_eq!(poll.user(), Some("1"));
        assert!(poll.chats().eq(["chat:b,1", "chat:a,1", "chat:"]));

        poll.keep_chats(vec!["chat:a,1".into(), "chat:a,2".into()]);

        let channels: Vec<_> = poll.channels().iter().map(AsRef::as_ref).collect();
        assert_eq!(channels, ["chat:a,1", "user:1", "client:x"]);
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
