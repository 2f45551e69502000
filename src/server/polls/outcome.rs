//! The result of a poll.
use std::sync::Arc;

use crate::message::Message;

/// The answer to a poll.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The next message.
    Message(Arc<Message>),
    /// No message. The client polls again.
    Empty,
}
