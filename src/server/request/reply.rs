//! An answer, over any version of HTTP.
use std::borrow::Cow;
use std::sync::Arc;

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::cors::{Browser, preflight};
use super::refusal::{CHALLENGE, Refusal};
use crate::message::{Message, push_channel, response};
use crate::poll::EMPTY_RESPONSE;

/// The size in bytes from which a message is not copied for each client.
const LARGE: usize = 16 * 1024;

/// The body of an answer: the part that clients share, and the part of this
/// client.
pub(crate) type Content = Chain<Bytes, Bytes>;

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) browser: Browser,
    pub(crate) body: Body,
}

/// The kinds of answers.
#[derive(Debug)]
pub(crate) enum Body {
    /// A message, on another channel than its own if there is one.
    Message(Arc<Message>, Option<Box<str>>),
    /// No message.
    Empty,
    /// A preflight's answer: the headers that a page may send, among those that
    /// it asked for.
    Preflight(Option<Box<str>>),
    /// A refusal.
    Error(Refusal),
}

impl From<Refusal> for Body {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal)
    }
}

impl Reply {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match &self.body {
            Body::Message(..) | Body::Empty => StatusCode::OK,
            Body::Preflight(_) => StatusCode::NO_CONTENT,
            Body::Error(refusal) => refusal.status,
        }
    }

    /// The body of the answer.
    pub(crate) fn content(&self) -> Content {
        let text = || Bytes::from(self.text().into_owned()).chain(Bytes::new());
        self.shared().unwrap_or_else(text)
    }

    /// The body, if it is so large that clients should share it.
    pub(crate) fn shared(&self) -> Option<Content> {
        let Body::Message(message, channel) = &self.body else {
            return None;
        };
        if message.response().len() < LARGE {
            return None;
        }
        let mut shared = Bytes::from_owner(Response(message.clone()));
        let mut own = String::new();
        if let Some(channel) = channel {
            shared.truncate(message.shared_length());
            push_channel(&mut own, channel);
        }
        Some(shared.chain(own.into()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match &self.body {
            Body::Message(message, None) => message.response().into(),
            Body::Message(message, Some(channel)) => {
                response(message.json(), channel).into()
            }
            Body::Empty => EMPTY_RESPONSE.into(),
            Body::Preflight(_) => "".into(),
            Body::Error(refusal) => refusal.text.into(),
        }
    }

    /// Each header, except the headers of the connection and of the time.
    pub(crate) fn each_header(
        &self,
        length: usize,
        mut header: impl FnMut(&'static str, &str),
    ) {
        match &self.body {
            Body::Message(..) | Body::Empty => {
                header("content-type", "application/json");
            }
            Body::Preflight(asked) => preflight(asked.as_deref(), &mut header),
            Body::Error(refusal) => {
                header("content-type", "text/plain; charset=utf-8");
                // A browser answers a challenge by asking for a password, and
                // the page never gets the answer.
                let further = refusal
                    .header
                    .filter(|(name, _)| *name != CHALLENGE || !self.browser.is_page);
                if let Some((name, value)) = further {
                    header(name, value);
                }
            }
        }
        header("cache-control", "no-store");
        self.browser.origin.each_header(&mut header);
        // A 204 has neither a body nor a length.
        if self.status() != StatusCode::NO_CONTENT {
            header("content-length", &length.to_string());
        }
    }

    /// The headers of the answer over HTTP/2, where there are no others but
    /// that of the time.
    pub(crate) fn headers(&self, length: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.each_header(length, |name, value| {
            // Only a value that came in a header is no constant.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(HeaderName::from_static(name), value);
            }
        });
        headers
    }
}

/// The response with a message. Its length is known from the message.
struct Response(Arc<Message>);

impl AsRef<[u8]> for Response {
    fn as_ref(&self) -> &[u8] {
        self.0.response().as_bytes()
    }
}
