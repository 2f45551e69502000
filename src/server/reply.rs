//! An answer, as it goes over the wire.
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{CONNECTION, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

use super::cors::{Origin, push_preflight};
use crate::message::{Message, response};
use crate::poll::EMPTY_RESPONSE;

/// What is answered to one request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) origin: Origin,
    pub(super) body: Body,
}

/// The kinds of answers.
#[derive(Debug)]
pub(super) enum Body {
    /// A message, on another channel than its own if there is one.
    Message(Arc<Message>, Option<Box<str>>),
    /// That there is none.
    Empty,
    /// What a page may send, of the headers that were asked for.
    Preflight(Option<Box<str>>),
    /// Why there is no answer.
    Error(Refusal),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// What is told in the body.
    pub(super) text: &'static str,
    /// A further header, with the end of its line.
    pub(super) header: &'static str,
}

/// How the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reuse {
    /// Whether the client talks HTTP/1.0, which closes unless it is asked to
    /// keep.
    old: bool,
    pub(super) close: bool,
    /// Whether the client wants no body.
    head: bool,
}

impl Refusal {
    /// A refusal without a further header.
    pub(super) const fn new(status: StatusCode, text: &'static str) -> Self {
        Self {
            status,
            text,
            header: "",
        }
    }
}

impl Reuse {
    /// How the connection goes on after a request.
    pub(super) fn of(request: &Parts) -> Self {
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
    pub(super) fn status(&self) -> StatusCode {
        match &self.body {
            Body::Message(..) | Body::Empty => StatusCode::OK,
            Body::Preflight(_) => StatusCode::NO_CONTENT,
            Body::Error(refusal) => refusal.status,
        }
    }

    /// The bytes of the answer.
    pub(super) fn wire(&self, reuse: Reuse) -> Vec<u8> {
        let relayed;
        let body = match &self.body {
            Body::Message(message, None) => message.response(),
            Body::Message(message, Some(channel)) => {
                relayed = response(message.json(), channel);
                &relayed
            }
            Body::Empty => EMPTY_RESPONSE,
            Body::Preflight(_) => "",
            Body::Error(refusal) => refusal.text,
        };
        let mut out = String::with_capacity(384 + body.len());
        let status = self.status();
        out.push_str(if reuse.old { "HTTP/1.0 " } else { "HTTP/1.1 " });
        out.push_str(status.as_str());
        out.push(' ');
        out.push_str(status.canonical_reason().unwrap_or_default());
        out.push_str("\r\n");
        match &self.body {
            Body::Message(..) | Body::Empty => {
                out.push_str("content-type: application/json\r\n");
            }
            Body::Preflight(asked) => push_preflight(&mut out, asked.as_deref()),
            Body::Error(refusal) => {
                out.push_str("content-type: text/plain; charset=utf-8\r\n");
                out.push_str(refusal.header);
            }
        }
        out.push_str("cache-control: no-store\r\n");
        self.origin.push_headers(&mut out);
        // A 204 has neither a body nor a length.
        if status != StatusCode::NO_CONTENT {
            out.push_str("content-length: ");
            out.push_str(&body.len().to_string());
            out.push_str("\r\n");
        }
        if reuse.close {
            out.push_str("connection: close\r\n");
        } else if reuse.old {
            out.push_str("connection: keep-alive\r\n");
        }
        push_date(&mut out);
        out.push_str("\r\n");
        if !reuse.head {
            out.push_str(body);
        }
        out.into_bytes()
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

    use super::*;

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

    #[test]
    fn answer_is_complete() {
        let refusal = Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text: "no",
            header: "allow: POST\r\n",
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
            let origin = Origin::Allowed("https://a".into());
            let wire = Reply { origin, body }.wire(reuse);
            let wire = String::from_utf8(wire).expect("text");
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
        }
    }
}
