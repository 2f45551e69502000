//! A request that was read, and why one could not be.
use bytes::Bytes;
use hyper::StatusCode;
use hyper::http::request::Parts;
use tokio::sync::OwnedSemaphorePermit;

use super::reply::Refusal;

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) parts: Parts,
    pub(crate) body: Result<Bytes, BodyError>,
    /// The share of its connection's room that the request takes, if that room
    /// is bounded, until its session is known.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Why there is no body. The rest of it is still to come, so that the
/// connection can't be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It says nothing of its length.
    NoLength,
    /// It is longer than allowed.
    TooLarge,
    /// It is cut short, or its chunks can't be read.
    Malformed,
    /// It did not come in time.
    TooSlow,
    /// Its connection has no room for it.
    NoRoom,
}

impl Received {
    /// Whether the request has arrived completely, so that the next one can be
    /// told from it.
    pub(crate) fn is_over(&self) -> bool {
        // Without a length there is no body.
        matches!(self.body, Ok(_) | Err(BodyError::NoLength))
    }
}

impl BodyError {
    /// The answer to a request whose body could not be read.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::NoLength => {
                Refusal::new(StatusCode::LENGTH_REQUIRED, "the body has no length")
            }
            Self::TooLarge => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
            }
            Self::Malformed => {
                Refusal::new(StatusCode::BAD_REQUEST, "the body can't be read")
            }
            // With 408 a browser would send it again at once.
            Self::TooSlow => {
                Refusal::new(StatusCode::BAD_REQUEST, "the body did not come in time")
            }
            Self::NoRoom => Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too much was sent over this connection at a time",
            ),
        }
    }
}
