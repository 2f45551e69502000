//! A message on its way from the payload of a NOTIFY to the body of a response.
//! It is never decoded in between.
mod id;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::id::Id;
use crate::error::{Error, Result};
use crate::json;

/// The constant parts of a response, around the message and its channel.
const BEFORE_MESSAGE: &str = "{\"message\":";
const BEFORE_CHANNEL: &str = ",\"channel\":";

/// The row of the journal that a payload announces. Any role of the database may
/// send such a payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hint {
    /// The journal number.
    pub number: u64,
    /// The object identifier of the table, if the payload has the message.
    pub table: Option<u32>,
}

impl Hint {
    /// Reads the hint in a payload as the trigger sends it. A part is the
    /// number, and a message ends with the keys `table` and `seq`.
    #[must_use]
    pub fn parse(is_part: bool, payload: &str) -> Option<Self> {
        if is_part {
            let number = digits(payload)?;
            return Some(Self {
                number,
                table: None,
            });
        }
        let (start, last) = payload.rsplit_once(",\"seq\":")?;
        let number = last.strip_suffix('}').and_then(digits)?;
        let table = start.rsplit_once(",\"table\":");
        let table = table.and_then(|(_, table)| digits(table)?.try_into().ok());
        Some(Self { number, table })
    }
}

fn digits(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Whether a channel may have this name. Control characters are refused:
/// PostgreSQL does not accept the null character, and a line break would break
/// log lines.
#[must_use]
pub fn is_channel(name: &str) -> bool {
    !name.chars().any(char::is_control)
}

/// A message of the bus.
///
/// ```
/// use trytond_fastbus::message::{Id, Message};
///
/// let payload = r#"{"channel": "user:1", "message": {"message_id": "a", "n": 1}}"#;
/// let message = Message::parse(payload)?;
/// assert_eq!(message.channel(), "user:1");
/// assert_eq!(*message.id(), Id::from_text("a"));
/// assert_eq!(
///     message.response(),
///     r#"{"message":{"message_id": "a", "n": 1},"channel":"user:1"}"#,
/// );
/// # Ok::<(), trytond_fastbus::Error>(())
/// ```
#[derive(Debug)]
pub struct Message {
    channel: Arc<str>,
    id: Id,
    /// The whole response: `{"message":…,"channel":"…"}`. The message's own
    /// JSON ends in it at `json_end`.
    response: Box<str>,
    json_end: usize,
    is_notification: bool,
    number: Number,
    /// How long ago it was published when it arrived.
    age: Duration,
    /// The time at which it was appended to the history.
    arrived: Duration,
}

/// The journal number of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Number {
    /// The message is not in the journal.
    #[default]
    None,
    /// A notification has brought the message, and announces a row with this
    /// number, which was not read yet.
    Announced(u64),
    /// The message is the row with this number.
    Read(u64),
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    message: &'a RawValue,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    message_id: &'a RawValue,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
}

impl Message {
    /// Reads the payload of a NOTIFY: `{"channel":"…","message":{…}}`, where
    /// the message has a `message_id` of any type. Other keys are ignored.
    ///
    /// # Errors
    ///
    /// When the payload is not JSON, or lacks one of these keys.
    pub fn parse(payload: &str) -> Result<Self> {
        // A derived struct would accept an array as well.
        object(payload, "payload")?;
        let payload: Payload<'_> =
            serde_json::from_str(payload).map_err(Error::Payload)?;
        Self::new(&payload.channel, payload.message.get())
    }

    /// Makes a message of its channel and its JSON.
    ///
    /// # Errors
    ///
    /// When `message` is not JSON, not an object, or has no `message_id`.
    pub fn new(channel: &str, message: &str) -> Result<Self> {
        object(message, "message")?;
        let content: Content<'_> =
            serde_json::from_str(message).map_err(Error::Payload)?;
        Ok(Self::from_trusted(
            channel,
            Id::from_json(content.message_id.get()),
            message,
            content
                .kind
                .is_some_and(|kind| kind.get() == "\"notification\""),
        ))
    }

    /// Makes a message of the values that Python has decoded, for JSON that
    /// Python accepts and [`Message::new`] refuses.
    #[must_use]
    pub fn from_trusted(
        channel: &str,
        id: Id,
        message: &str,
        is_notification: bool,
    ) -> Self {
        let response = response(message, channel);
        Self {
            channel: channel.into(),
            id,
            json_end: BEFORE_MESSAGE.len() + message.len(),
            response: response.into(),
            is_notification,
            number: Number::None,
            age: Duration::ZERO,
            arrived: Duration::ZERO,
        }
    }

    /// The same message with its journal number.
    #[must_use]
    pub fn numbered(mut self, number: u64) -> Self {
        self.number = Number::Read(number);
        self
    }

    /// The same message, whose row was announced with this number.
    #[must_use]
    pub fn announced(mut self, number: u64) -> Self {
        self.number = Number::Announced(number);
        self
    }

    /// The same message, published this long ago.
    #[must_use]
    pub fn aged(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// The channel that the message was published to.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The channel, to share it with an index of the channels.
    pub(crate) fn shared_channel(&mut self) -> &mut Arc<str> {
        &mut self.channel
    }

    /// The message's identifier.
    #[must_use]
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The JSON of the message alone, as it was published.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.response[BEFORE_MESSAGE.len()..self.json_end]
    }

    /// How many bytes of [`Message::response`] do not depend on the channel.
    #[cfg(feature = "server")]
    pub(crate) fn shared_length(&self) -> usize {
        self.json_end
    }

    /// The JSON of a response with this message and its channel.
    #[must_use]
    pub fn response(&self) -> &str {
        &self.response
    }

    /// Whether this is a notification, as `notify` publishes it: of the type
    /// `notification`.
    #[must_use]
    pub fn is_notification(&self) -> bool {
        self.is_notification
    }

    /// Its journal number; zero for a message whose row was not read. Numbers
    /// rise in the order of the commits.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self.number {
            Number::Read(number) => number,
            Number::None | Number::Announced(_) => 0,
        }
    }

    /// Its journal number, and its source.
    pub(crate) fn source(&self) -> Number {
        self.number
    }

    /// How long ago the message was published when it arrived.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// The time at which the message was appended to the history, on the
    /// history's clock; zero before that.
    #[must_use]
    pub fn arrived(&self) -> Duration {
        self.arrived
    }

    /// Sets the time at which the message is appended to the history.
    pub(crate) fn set_arrived(&mut self, now: Duration) {
        self.arrived = now;
    }

    /// Whether both have the same channel and the same JSON.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.response == other.response
    }

    /// Takes the time and the shared channel of a message that is the same.
    pub(crate) fn succeed(&mut self, other: &Self) {
        self.channel = other.channel.clone();
        self.arrived = other.arrived;
    }

    /// How many bytes the message takes, including its own allocations.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = self.response.len() + self.channel.len();
        size_of::<Self>() + texts + self.id.allocated()
    }
}

/// The JSON of a response with the JSON `message` on `channel`.
#[must_use]
pub fn response(message: &str, channel: &str) -> String {
    let mut out = String::with_capacity(
        BEFORE_MESSAGE.len() + message.len() + BEFORE_CHANNEL.len() + channel.len() + 3,
    );
    out.push_str(BEFORE_MESSAGE);
    out.push_str(message);
    push_channel(&mut out, channel);
    out
}

/// The end of a response, with its channel.
pub(crate) fn push_channel(out: &mut String, channel: &str) {
    out.push_str(BEFORE_CHANNEL);
    json::push_string(out, channel);
    out.push('}');
}

fn object(json: &str, what: &'static str) -> Result<()> {
    if json.trim_ascii_start().starts_with('{') {
        Ok(())
    } else {
        Err(Error::NotAnObject(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_becomes_response() {
        for (payload, channel, message, response) in [
            (
                r#"{"channel":"user:1","message":{"type":"notification","message_id":"a"}}"#,
                "user:1",
                r#"{"type":"notification","message_id":"a"}"#,
                r#"{"message":{"type":"notification","message_id":"a"},"channel":"user:1"}"#,
            ),
            (
                r#" { "message" : {"message_id": null, "x": 1.10}, "seq": 4, "channel" : "\u00e9\"" } "#,
                "é\"",
                r#"{"message_id": null, "x": 1.10}"#,
                r#"{"message":{"message_id": null, "x": 1.10},"channel":"\u00e9\""}"#,
            ),
        ] {
            let read = Message::parse(payload).expect("a good payload");
            assert_eq!(read.channel(), channel);
            assert_eq!(read.json(), message);
            assert_eq!(read.response(), response);
            assert_eq!(read.number(), 0);
        }
    }

    #[test]
    fn only_a_notification_is_a_notification() {
        for (message, expected) in [
            (r#"{"type":"notification","message_id":1}"#, true),
            (r#"{"type":"message","message_id":1}"#, false),
            (r#"{"message_id":1}"#, false),
            (r#"{"type":null,"message_id":1}"#, false),
        ] {
            let message = Message::new("c", message).expect("a good message");
            assert_eq!(message.is_notification(), expected);
        }
    }

    #[test]
    fn hint_is_read_as_the_trigger_sends_it() {
        let message = r#"{"channel":"c","message":{"message_id":1,"seq":7}"#;
        let hint = |is_part, payload: &str| Some(Hint::parse(is_part, payload)?.number);
        for (is_part, payload, number) in [
            (false, format!("{message},\"seq\":12}}"), Some(12)),
            (false, format!("{message}}}"), None),
            (false, format!("{message},\"seq\":-1}}"), None),
            (false, format!("{message},\"seq\":1.0}}"), None),
            (false, format!("{message},\"seq\":}}"), None),
            (
                false,
                format!("{message},\"seq\":{}}}", "9".repeat(20)),
                None,
            ),
            (false, "12".to_owned(), None),
            (true, "12".to_owned(), Some(12)),
            (true, "\u{b2}".to_owned(), None),
            (true, "9".repeat(5000), None),
            (true, String::new(), None),
            (true, "+1".to_owned(), None),
        ] {
            assert_eq!(hint(is_part, &payload), number, "{payload}");
        }
    }

    #[test]
    fn hint_of_a_message_names_its_table() {
        let message = r#"{"channel":"c","message":{"message_id":1,"table":7}"#;
        for (keys, table) in [
            (",\"table\":12,\"seq\":3}", Some(12)),
            (",\"seq\":3}", None),
            (",\"table\":12,\"x\":1,\"seq\":3}", None),
            (",\"table\":-1,\"seq\":3}", None),
            (",\"table\":4294967296,\"seq\":3}", None),
        ] {
            let hint = Hint::parse(false, &format!("{message}{keys}"));
            assert_eq!(hint, Some(Hint { number: 3, table }), "{keys}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for payload in [
            "",
            "garbage",
            "{",
            "[]",
            r#"["user:1", {"message_id": 1}]"#,
            r#"{"channel":"c"}"#,
            r#"{"message":{"message_id":1}}"#,
            r#"{"channel":1,"message":{"message_id":1}}"#,
            r#"{"channel":"c","message":"text"}"#,
            r#"{"channel":"c","message":["a"]}"#,
            r#"{"channel":"c","message":{"type":"x"}}"#,
            r#"{"channel":"c","message":{"message_id":NaN}}"#,
            r#"{"channel":"c","message":{"message_id":1}} and more"#,
        ] {
            let error = Message::parse(payload).expect_err(payload);
            assert!(error.to_string().starts_with("not a message"), "{error}");
        }
    }
}
