//! The body of a poll.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::message::{Id, is_channel};
use crate::poll::Poll;
use crate::server::config::Limits;

/// The request of a client.
#[derive(Clone, Debug)]
pub(crate) struct PollRequest {
    pub(crate) poll: Poll,
    /// The last message that the client names.
    pub(crate) last: Option<Id>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(default)]
    channels: Vec<Arc<str>>,
    /// Any JSON.
    #[serde(borrow, default)]
    last_message: Option<&'a RawValue>,
}

impl PollRequest {
    /// Reads the body of a poll of `user`: `{"channels": […], "last_message":
    /// …}`. The user's own channel replaces every `user:` channel in it, as in
    /// trytond.
    ///
    /// # Errors
    ///
    /// The reason why the body is refused, for the client.
    pub(crate) fn read(
        body: &[u8],
        user: u32,
        limits: &Limits,
    ) -> Result<Self, &'static str> {
        // A derived struct would also be read from an array.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err("the body must be a JSON object");
        }
        // The whole value, because skipped input is not checked.
        let body = std::str::from_utf8(body).map_err(|_| "the body must be UTF-8")?;
        let body: Fields<'_> = serde_json::from_str(body)
            .map_err(|_| "the body must be JSON, its channels a list of strings")?;
        if body.channels.len() > limits.max_channels {
            return Err("too many channels");
        }
        let mut lengths = body.channels.iter().map(|channel| channel.len());
        if lengths.any(|length| length > limits.channel_size) {
            return Err("the name of a channel is too long");
        }
        if !body.channels.iter().all(|channel| is_channel(channel)) {
            return Err("the name of a channel contains a control character");
        }
        let mut channels = body.channels;
        channels.retain(|channel| !channel.starts_with("user:"));
        channels.push(format!("user:{user}").into());
        Ok(Self {
            poll: Poll::new(channels),
            last: body.last_message.map(|json| Id::from_json(json.get())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<PollRequest, &'static str> {
        let limits = Limits {
            max_channels: 3,
            channel_size: 14,
            ..Limits::default()
        };
        PollRequest::read(body.as_bytes(), 1, &limits)
    }

    #[test]
    fn own_channel_of_the_user_is_the_only_one() {
        for (body, channels) in [
            (r#"{"channels":["client:x"]}"#, &["client:x", "user:1"][..]),
            (r#"{"channels":["user:2","user:1"]}"#, &["user:1"]),
            (
                r#"{"channels":["notification:1","notification:2"]}"#,
                &["notification:1", "user:1"],
            ),
            (r#"{"channels":["a","a"]}"#, &["a", "user:1"]),
            (r#" {"other": [1]} "#, &["user:1"]),
        ] {
            let request = read(body).expect(body);
            let mut found: Vec<_> =
                request.poll.channels().iter().map(AsRef::as_ref).collect();
            found.sort_unstable();
            assert_eq!(found, channels, "{body}");
        }
    }

    #[test]
    fn last_message_is_any_json() {
        for (body, last) in [
            (r"{}", None),
            (r#"{"last_message":null}"#, None),
            (r#"{"last_message":"a"}"#, Some("\"a\"")),
            (r#"{"last_message":1.0}"#, Some("1")),
            (r#"{"last_message":{"a":[]}}"#, Some("{\"a\":[]}")),
        ] {
            let request = read(body).expect(body);
            assert_eq!(request.last, last.map(Id::from_json), "{body}");
        }
    }

    #[test]
    fn invalid_body_is_refused() {
        for body in [
            "",
            "null",
            "[]",
            r#"[["a"], null]"#,
            "{",
            r#"{"channels":null}"#,
            r#"{"channels":"a"}"#,
            r#"{"channels":[1]}"#,
            r#"{"channels":["\ud800"]}"#,
            r#"{"last_message":NaN}"#,
            r#"{"channels":["a","b","c","d"]}"#,
            r#"{"channels":["longer than fourteen"]}"#,
            r#"{"channels":["a\u0000b"]}"#,
            r#"{"channels":["a","\u0085"]}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        assert!(PollRequest::read(b"{\"a\":\"\xff\"}", 1, &Limits::default()).is_err());
        let deep = format!("{{\"last_message\":{}}}", "[".repeat(100_000));
        assert!(read(&deep).is_err());
    }
}
