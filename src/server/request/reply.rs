//! An answer, as it is written to the connection.
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{CONNECTION, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Version};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};

use super::cors::{Browser, preflight};
use super::refusal::{CHALLENGE, Refusal};
use crate::message::{Message, push_channel, response};
use crate::poll::EMPTY_RESPONSE;

/// From how many bytes on a message is not copied for each client.
const LARGE: usize = 16 * 1024;

/// The body of an answer: the part that clients share, and the part of this
/// client.
pub(crate) type Content = Chain<Bytes, Bytes>;

/// The kinds of answers to one request.
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
    /// That there is none.
    Empty,
    /// The headers that a page may send, among those that were asked for.
    Preflight(Option<Box<str>>),
    /// Why there is no answer.
    Error(Refusal),
}

/// How the connection continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reuse {
    /// Whether the client talks HTTP/1.0, which closes unless it is asked to
    /// keep.
    old: bool,
    pub(crate) close: bool,
    /// Whether the client wants no body.
    head: bool,
}

impl From<Refusal> for Body {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal)
    }
}

impl Reuse {
    /// How the connection continues after a request.
    pub(crate) fn of(request: &Parts) -> Self {
        let (mut close, mut keep) = (false, false);
        for value in request.headers.get_all(CONNECTION) {
            for token in value.as_bytes().split(|byte| *byte == b',') {
                let token = token.trim_ascii();
                close |= token.eq_ignore_ascii_case(b"close");
                keep |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        let old = request.version < Version::HTTP_11;
        // A request with a length as well must be the last one (RFC 9112,
        // 6.1), and hyper does not say whether there was one. No client of
        // Tryton sends chunks.
        close |= request.headers.contains_key(TRANSFER_ENCODING);
        Self {
            old,
            close: close || (old && !keep),
            head: request.method == Method::HEAD,
        }
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
    fn shared(&self) -> Option<Content> {
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

    fn text(&self) -> Cow<'_, str> {
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
    fn each_header(&self, length: usize, mut header: impl FnMut(&'static str, &str)) {
        match &self.body {
            Body::Message(..) | Body::Empty => {
                header("content-type", "application/json");
            }
            Body::Preflight(asked) => preflight(asked.as_deref(), &mut header),
            Body::Error(refusal) => {
                header("content-type", "text/plain; charset=utf-8");
                // Browsers ask for a password where a challenge comes to a
                // page, and the page never gets the answer.
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

    /// The bytes of the answer over HTTP/1.
    pub(crate) fn wire(&self, reuse: Reuse) -> Chain<Bytes, Content> {
        let shared = self.shared();
        let text = if shared.is_none() {
            self.text()
        } else {
            "".into()
        };
        let length = shared.as_ref().map_or(text.len(), Buf::remaining);
        let mut out = String::with_capacity(384 + text.len());
        let status = self.status();
        out.push_str(if reuse.old { "HTTP/1.0 " } else { "HTTP/1.1 " });
        out.push_str(status.as_str());
        out.push(' ');
        out.push_str(status.canonical_reason().unwrap_or_default());
        out.push_str("\r\n");
        self.each_header(length, |name, value| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        });
        if reuse.close {
            out.push_str("connection: close\r\n");
        } else if reuse.old {
            out.push_str("connection: keep-alive\r\n");
        }
        push_date(&mut out);
        out.push_str("\r\n");
        let mut rest = Bytes::new().chain(Bytes::new());
        if !reuse.head {
            out.push_str(&text);
            rest = shared.unwrap_or(rest);
        }
        Bytes::from(out).chain(rest)
    }
}

/// The response with a message. Its length is known from the message.
struct Response(Arc<Message>);

impl AsRef<[u8]> for Response {
    fn as_ref(&self) -> &[u8] {
        self.0.response().as_bytes()
    }
}

/// Appends the header of the time, made once a second.
fn push_date(out: &mut String) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    DATE.with_borrow_mut(|(made, date)| {
        if *made != second || date.is_empty() {
            *made = second;
            *date = format!("date: {}\r\n", httpdate::fmt_http_date(now));
        }
        out.push_str(date);
    });
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::super::cors::Origin;
    use super::*;

    fn browser(origin: Origin) -> Browser {
        Browser {
            is_page: origin != Origin::None,
            origin,
        }
    }

    fn reuse(method: &str, version: Version, connection: &[&str]) -> Reuse {
        let mut request = Request::builder().method(method).version(version);
        for value in connection {
            request = request.header(CONNECTION, *value);
        }
        Reuse::of(&request.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn connection_is_kept_as_the_client_wants() {
        for (version, connection, close) in [
            (Version::HTTP_11, &[][..], false),
            (Version::HTTP_11, &["close"], true),
            (Version::HTTP_11, &["x, Close"], true),
            (Version::HTTP_11, &["x", "CLOSE"], true),
            (Version::HTTP_11, &["keep-alive"], false),
            (Version::HTTP_11, &["keep-alive, close"], true),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &["Keep-Alive"], false),
            (Version::HTTP_10, &["keep-alive", "close"], true),
        ] {
            let reuse = reuse("POST", version, connection);
            assert_eq!(reuse.close, close, "{version:?} {connection:?}");
        }
    }

    fn bytes(mut from: impl Buf) -> Vec<u8> {
        from.copy_to_bytes(from.remaining()).into()
    }

    #[test]
    fn large_message_is_shared_by_its_answers() {
        let json = format!(r#"{{"message_id":1,"text":"{}"}}"#, "x".repeat(LARGE));
        let message = Arc::new(Message::new("user:1", &json).expect("good"));
        let keep = reuse("POST", Version::HTTP_11, &[]);
        for channel in [None, Some("client:\u{e9}".into())] {
            let body = Body::Message(message.clone(), channel);
            let browser = browser(Origin::None);
            let reply = Reply { browser, body };
            let text = reply.text().into_owned();
            let begins = message.response().as_bytes().as_ptr();
            assert_eq!(reply.content().chunk().as_ptr(), begins);
            assert_eq!(bytes(reply.content()), text.as_bytes());
            let wire = reply.wire(keep);
            assert_eq!(wire.last_ref().chunk().as_ptr(), begins);
            let wire = String::from_utf8(bytes(wire)).expect("text");
            let (head, body) = wire.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("content-length: {}\r\n", text.len())));
            assert_eq!(body, text);
        }
    }

    #[test]
    fn answer_is_complete() {
        let refusal = Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text: "no",
            header: Some(("allow", "POST")),
        };
        let message = Message::new("user:1", r#"{"message_id":1}"#).expect("good");
        let message = Arc::new(message);
        let keep = reuse("POST", Version::HTTP_11, &[]);
        for (body, reuse, first, headers, content) in [
            (
                Body::Message(message.clone(), None),
                keep,
                "HTTP/1.1 200 OK",
                &["content-length: 47", "content-type: application/json"][..],
                r#"{"message":{"message_id":1},"channel":"user:1"}"#,
            ),
            (
                Body::Message(message, Some("client:x".into())),
                reuse("POST", Version::HTTP_10, &["keep-alive"]),
                "HTTP/1.0 200 OK",
                &["content-length: 49", "connection: keep-alive"],
                r#"{"message":{"message_id":1},"channel":"client:x"}"#,
            ),
            (
                Body::Empty,
                reuse("POST", Version::HTTP_11, &["close"]),
                "HTTP/1.1 200 OK",
                &["content-length: 31", "connection: close"],
                EMPTY_RESPONSE,
            ),
            (
                Body::Error(refusal),
                reuse("HEAD", Version::HTTP_11, &[]),
                "HTTP/1.1 405 Method Not Allowed",
                &["content-length: 2", "allow: POST"],
                "",
            ),
            (
                Body::Preflight(Some("content-type".into())),
                keep,
                "HTTP/1.1 204 No Content",
                &[
                    "access-control-allow-methods: POST",
                    "access-control-allow-headers: content-type",
                ],
                "",
            ),
        ] {
            let browser = browser(Origin::Allowed("https://a".into()));
            let reply = Reply { browser, body };
            let wire = String::from_utf8(bytes(reply.wire(reuse))).expect("text");
            let (head, body) = wire.split_once("\r\n\r\n").expect("a head");
            let mut lines = head.lines();
            assert_eq!(lines.next(), Some(first));
            let lines: Vec<_> = lines.collect();
            for header in headers.iter().chain(&[
                "access-control-allow-origin: https://a",
                "access-control-allow-credentials: true",
                "vary: origin",
            ]) {
                assert!(lines.contains(header), "{header} in {lines:?}");
            }
            assert_eq!(body, content);
            // HTTP/2 has all headers except those of the connection.
            let own = reply.headers(reply.content().remaining());
            let own = own.iter().map(|(name, value)| {
                format!("{name}: {}", value.to_str().expect("text"))
            });
            let mut own: Vec<_> = own.collect();
            let is_own = |line: &&str| {
                !line.starts_with("connection") && !line.starts_with("date")
            };
            let mut lines: Vec<_> = lines.into_iter().filter(is_own).collect();
            own.sort_unstable();
            lines.sort_unstable();
            assert_eq!(own, lines);
        }
    }
}
