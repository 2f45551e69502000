//! The properties that hold for any input of a client; see `src/fuzz.rs`.
#![allow(clippy::missing_panics_doc, reason = "they panic on a violation")]
use std::collections::BTreeSet;
use std::str::from_utf8;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::app::App;
use super::config::{Config, Limits};
use super::http::http1::serve;
use super::http::open::Open;
use super::request::address::Peer;
use super::request::credential::credential as read_credential;
use super::request::poll_request::PollRequest;
use super::trytond::{Answered, Asked, Check, Session, Trytond};
use crate::message::Message;
use crate::registry::Process;

const DATABASE: &str = "db";
/// The answers of the server itself.
const STATUSES: [u16; 13] = [
    100, 200, 204, 400, 401, 403, 404, 405, 411, 413, 415, 429, 431,
];

/// Takes the token `good` for valid, and notes that it was asked for it.
#[derive(Default)]
struct Good(AtomicBool);

impl Trytond for Good {
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>> {
        let exist = names.iter().map(|name| &**name == DATABASE);
        let exist = Some(exist.collect());
        Box::pin(async { exist })
    }

    fn sessions(
        &self,
        database: &str,
        sessions: Vec<Arc<Session>>,
    ) -> Answered<Vec<Check>> {
        assert_eq!(database, DATABASE);
        let checks = sessions.iter().map(|session| match &*session.token {
            "good" => {
                self.0.store(true, Ordering::SeqCst);
                Check::Valid
            }
            "failed" => Check::Failed,
            _ => Check::Invalid,
        });
        let checks = checks.collect();
        Box::pin(async { checks })
    }

    fn readable(&self, asked: Asked) -> Answered<Option<Vec<Box<str>>>> {
        Box::pin(async { Some(asked.chats) })
    }

    fn opened(&self, database: &str) {
        assert_eq!(database, DATABASE);
    }
}

/// The input of a client, after a byte that says how it is sent. Everything is
/// answered as documented, by complete answers. Only valid sessions get a
/// message. No poll and no connection remains.
pub fn request(data: &[u8]) {
    let Some((how, sent)) = data.split_first() else {
        return;
    };
    // The clock advances at once when nothing else runs.
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let sessions = Arc::new(Good::default());
    let config = Config {
        cors: vec!["https://sao".into()],
        num_proxies: usize::from(how & 1),
        ..Config::default()
    };
    let process = Arc::new(Process::new());
    let bus = process.open(DATABASE, config.history);
    let secret = Message::new("client:x", r#"{"message_id":"secret"}"#);
    process
        .publish(&bus, vec![secret.expect("a message")])
        .expect("no poll waits");
    let app = Arc::new(App::new(config, sessions.clone(), process));
    let answers = runtime.block_on(talk(&app, sent, how >> 1));
    let was_asked = sessions.0.load(Ordering::SeqCst);
    let answers = from_utf8(&answers).expect("answers are text");
    assert!(was_asked || !answers.contains("secret"));
    check_answers(answers);
    assert_eq!(app.metrics.connections.get(), 0);
    assert_eq!(app.polls_waiting(), 0);
    drop(runtime);
    assert_eq!(Arc::strong_count(&app), 1, "a task still has it");
}

/// Sends everything on one connection; returns the server's answers until its
/// end.
async fn talk(app: &Arc<App>, sent: &[u8], how: u8) -> Vec<u8> {
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned();
    let open = Open::new(app, place.expect("it is the first"));
    let (client, stream) = duplex(1 << 16);
    let served = tokio::spawn(serve(stream, Peer::Local, open));
    let (mut from, mut to) = split(client);
    let length = match how >> 1 {
        0 => sent.len().max(1),
        size => usize::from(size),
    };
    let write = async {
        for piece in sent.chunks(length) {
            // The server may have closed.
            if to.write_all(piece).await.is_err() {
                break;
            }
            yield_now().await;
        }
        if how & 1 == 1 {
            let _ = to.shutdown().await;
        }
    };
    let mut answers = Vec::new();
    let ((), read) = tokio::join!(write, from.read_to_end(&mut answers));
    read.expect("a stream in memory");
    served.await.expect("it does not panic");
    answers
}

/// Each answer is one that is documented, and whole.
fn check_answers(mut rest: &str) {
    while !rest.is_empty() {
        let (head, after) = rest.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("HTTP/1.1 ") || first.starts_with("HTTP/1.0 "));
        let status: u16 = first[9..12].parse().expect("a status");
        assert!(STATUSES.contains(&status), "{first}");
        let mut length = 0;
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            if name == "content-length" {
                length = value.parse().expect("a length");
            }
        }
        let (body, next) = after.split_at(length);
        if status == 200 {
            let body: Value = serde_json::from_str(body).expect("JSON");
            assert!(body.get("message").is_some() && body.get("channel").is_some());
        }
        rest = next;
    }
}

/// A line of `Authorization` and lines of cookies; and a session of these
/// words, as werkzeug writes it.
pub fn credential(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for (number, line) in data.split(|byte| *byte == b'\n').enumerate() {
        let Ok(value) = HeaderValue::from_bytes(line) else {
            continue;
        };
        let name = if number == 0 { AUTHORIZATION } else { COOKIE };
        if !line.is_empty() {
            headers.append(name, value);
        }
    }
    if let Some(found) = read_credential(&headers) {
        assert!(!found.token.is_empty() && !found.token.contains(':'));
    }

    let text = String::from_utf8_lossy(data);
    let (login, token) = text.split_once('\n').unwrap_or(("", &text));
    let token = token.replace(':', "");
    if token.is_empty() {
        return;
    }
    let user = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut headers = HeaderMap::new();
    let cookie = format!(
        "a=b; tryton_session={}",
        quoted(&format!("{login}:{user}:{token}"))
    );
    headers.insert(COOKIE, cookie.parse().expect("a header"));
    let found = read_credential(&headers).expect("a credential");
    assert_eq!((found.user, &*found.token), (user, &*token));
}

/// The value as werkzeug writes it into a cookie.
fn quoted(value: &str) -> String {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b',' | b';' | ..=b' ' | b'\x7f'.. => format!("\\{byte:03o}"),
        _ => char::from(byte).to_string(),
    };
    format!("\"{}\"", value.bytes().map(escape).collect::<String>())
}

/// The body of a poll. It never asks for more than the user's own channels, nor
/// for more than the limits allow.
pub fn question(data: &[u8]) {
    let limits = Limits {
        max_channels: 5,
        channel_size: 20,
        ..Limits::default()
    };
    let value: Option<Value> = serde_json::from_slice(data).ok();
    let asked = value.as_ref().and_then(channels);
    let Ok(question) = PollRequest::read(data, 1, &limits) else {
        // It is not refused in other words.
        if let (Some(value), Some(asked)) = (&value, asked) {
            let is_within = value["channels"]
                .as_array()
                .is_none_or(|all| all.len() <= 5)
                && asked.iter().all(|channel| channel.len() <= 20);
            if is_within {
                let again = PollRequest::read(value.to_string().as_bytes(), 1, &limits);
                again.expect("only a repeated key is refused");
            }
        }
        return;
    };
    let found: Vec<&str> = question
        .poll
        .channels()
        .iter()
        .map(|name| &**name)
        .collect();
    assert!(found.len() <= 6);
    assert!(found.iter().all(|channel| channel.len() <= 20));
    let once: BTreeSet<_> = found.iter().copied().collect();
    assert_eq!(once.len(), found.len());
    assert!(found.contains(&"user:1"));
    let mut foreign = found.iter().filter(|channel| {
        channel.starts_with("user:") || channel.starts_with("notification:")
    });
    assert!(foreign.all(|channel| channel.ends_with(":1")));
    if let Some(asked) = asked {
        let kept: BTreeSet<&str> = asked
            .into_iter()
            .filter(|channel| {
                !channel.starts_with("user:")
                    && (!channel.starts_with("notification:")
                        || *channel == "notification:1")
            })
            .chain(["user:1"])
            .collect();
        assert_eq!(once, kept);
    }
}

/// The channels that a good body asks for, before any are omitted.
fn channels(value: &Value) -> Option<Vec<&str>> {
    match value.as_object()?.get("channels") {
        None => Some(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
        Some(_) => None,
    }
}
