//! A request that was read, and why one could not be.
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::address::{self, Peer};
use super::cors::Browser;
use super::credential::credential;
use super::refusal::Refusal;
use super::reply::Body;
use super::route;
use crate::server::config::Config;
use crate::server::trytond::Session;

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) parts: Parts,
    pub(crate) body: Result<Bytes, BodyError>,
    /// The share of its connection's room that the request takes, if that room
    /// is bounded, until its session is known.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// The reason why a body could not be read. Its rest is still to come, so the
/// connection can't be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The request does not tell the length of the body.
    NoLength,
    /// The body is larger than `body_size`.
    TooLarge,
    /// The body is cut short, or its chunks can't be read.
    Malformed,
    /// The body did not arrive within `body_timeout`.
    TooSlow,
    /// The connection has no room for the body.
    NoRoom,
}

impl Received {
    /// The session and the body of a poll, or the answer to a request that is
    /// none.
    pub(crate) fn poll(
        &self,
        peer: Peer,
        browser: &Browser,
        config: &Config,
    ) -> Result<(Arc<Session>, Bytes), Body> {
        let Self { parts, body, .. } = self;
        let database = route::database(parts, browser, config)?;
        let body = body.as_ref().map_err(|error| Refusal::from(*error))?;
        if !is_json(&parts.headers) {
            return Err(Body::Error(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            )));
        }
        let credential = credential(&parts.headers).ok_or(Refusal::UNAUTHORIZED)?;
        let client = address::client(peer, &parts.headers, config.num_proxies);
        let session = Session {
            database: database.into(),
            user: credential.user,
            token: credential.token,
            address: client.address,
            is_local: client.is_local,
        };
        Ok((Arc::new(session), body.clone()))
    }

    /// Whether the request has arrived completely, so that the next one can be
    /// told apart from it.
    pub(crate) fn is_over(&self) -> bool {
        // Without a length there is no body.
        matches!(self.body, Ok(_) | Err(BodyError::NoLength))
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::NoLength => {
                Self::new(StatusCode::LENGTH_REQUIRED, "the body has no length")
            }
            BodyError::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than [bus] body_size",
            ),
            BodyError::Malformed => {
                Self::new(StatusCode::BAD_REQUEST, "the body is malformed")
            }
            // With 408 a browser would send it again at once.
            BodyError::TooSlow => Self::new(
                StatusCode::BAD_REQUEST,
                "the body did not arrive within [bus] body_timeout",
            ),
            BodyError::NoRoom => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests without a known session on this connection",
            ),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}
