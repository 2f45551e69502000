//! An answer as HTTP/1 writes it.
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use hyper::header::{CONNECTION, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Version};

use crate::server::request::reply::{Content, Reply};

/// How the connection continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reuse {
    /// Whether the client speaks HTTP/1.0, which closes a connection unless the
    /// client asks to keep it.
    old: bool,
    pub(crate) close: bool,
    /// Whether the client wants no body.
    head: bool,
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

    /// The bytes of an answer. A body that clients share is not copied.
    pub(crate) fn wire(self, reply: &Reply) -> Chain<Bytes, Content> {
        let shared = reply.shared();
        let text = match shared {
            Some(_) => "".into(),
            None => reply.text(),
        };
        let length = shared.as_ref().map_or(text.len(), Buf::remaining);
        let mut out = String::with_capacity(384 + text.len());
        self.push_head(&mut out, reply, length);
        let mut rest = Bytes::new().chain(Bytes::new());
        if !self.head {
            out.push_str(&text);
            rest = shared.unwrap_or(rest);
        }
        Bytes::from(out).chain(rest)
    }

    fn push_head(self, out: &mut String, reply: &Reply, length: usize) {
        let status = reply.status();
        out.push_str(if self.old { "HTTP/1.0 " } else { "HTTP/1.1 " });
        out.push_str(status.as_str());
        out.push(' ');
        out.push_str(status.canonical_reason().unwrap_or_default());
        out.push_str("\r\n");
        reply.each_header(length, |name, value| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        });
        if self.close {
            out.push_str("connection: close\r\n");
        } else if self.old {
            out.push_str("connection: keep-alive\r\n");
        }
        push_date(out);
        out.push_str("\r\n");
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
    use std::sync::Arc;

    use hyper::{Request, StatusCode};

    use super::*;
    use crate::message::Message;
    use crate::poll::EMPTY_RESPONSE;
    use crate::server::request::cors::{Browser, Origin};
    use crate::server::request::refusal::Refusal;
    use crate::server::request::reply::Body;

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
        let json = format!(r#"{{"message_id":1,"text":"{}"}}"#, "x".repeat(1 << 16));
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
            let wire = keep.wire(&reply);
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
            let wire = String::from_utf8(bytes(reuse.wire(&reply))).expect("text");
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
