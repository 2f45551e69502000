//! Arbitrary input to the bus server. It never panics, its answers are
//! complete, and the next client is served.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{EMPTY, GOOD, JSON, Site, start};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use trytond_fastbus::server::Config;

const CLOSE: &str = "Connection: close\r\n";

/// How often the server has panicked.
static PANICS: AtomicUsize = AtomicUsize::new(0);

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some("bus-server") {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        hook(panic);
    }));
    start(Config {
        long_polling_timeout: Duration::from_millis(1),
        cors: vec!["https://sao".into()],
        num_proxies: 1,
        ..Config::default()
    })
});

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The status of the answer to one request, which asks to close.
fn status(sent: &[u8]) -> Result<u16, TestCaseError> {
    let statuses = statuses(sent, false)?;
    prop_assert_eq!(statuses.len(), 1);
    Ok(statuses[0])
}

/// The statuses of the answers to the whole input. Each answer is complete, and
/// the server continues. A client that ends before its answer may get none.
fn statuses(sent: &[u8], ends: bool) -> Result<Vec<u16>, TestCaseError> {
    let mut client = SITE.connect();
    // The server may close before it has all.
    let _ = client.stream.write_all(sent);
    if ends {
        let _ = client.stream.shutdown(Shutdown::Write);
    }
    let mut answers = Vec::new();
    let _ = client.stream.read_to_end(&mut answers);
    let good = SITE.connect().ask(&SITE.poll("", "\"client:x\"", "null"));
    prop_assert_eq!((good.status, &*good.body), (200, EMPTY));
    prop_assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    let mut rest = std::str::from_utf8(&answers).expect("answers are text");
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        let (head, body) = rest.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        prop_assert!(first.starts_with("HTTP/1."), "{}", first);
        let mut length = 0;
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            prop_assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            );
            if name == "content-length" {
                length = value.parse().expect("a length");
            }
        }
        prop_assert!(body.len() >= length, "{}", rest);
        statuses.push(first[9..12].parse().expect("a status"));
        rest = &body[length..];
    }
    let allowed = [
        100, 200, 204, 400, 401, 403, 404, 405, 411, 413, 415, 429, 431,
    ];
    prop_assert!(
        statuses.iter().all(|status| allowed.contains(status)),
        "{:?}",
        statuses
    );
    Ok(statuses)
}

/// Good requests, two of them at once in a few cases.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let poll = SITE.poll("", "\"client:x\",\"a\"", "\"b\"");
    let (head, body) = poll.split_once("Content-Length").expect("a length");
    let (_, body) = body.split_once("\r\n\r\n").expect("a body");
    let page =
        "Origin: https://sao\r\nCookie: a=b; tryton_session=\"\\303\\251:1:t\"\r\n";
    let database = &SITE.database;
    select(vec![
        poll.clone(),
        format!("{poll}{poll}"),
        SITE.post(&format!("{JSON}{page}X-Forwarded-For: ::1\r\n"), body),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        SITE.poll("Expect: 100-continue\r\nConnection: close\r\n", "", "null"),
        format!(
            "OPTIONS /{database}/bus HTTP/1.1\r\nHost: x\r\n{page}Access-Control-Request-Headers: a\r\n\r\n{poll}"
        ),
        format!("GET //{database}/%62us HTTP/1.0\r\nConnection: keep-alive\r\n\r\n{poll}"),
    ])
    .prop_map(String::into_bytes)
}

/// Strings that are inserted at a random position.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => vec(any::<u8>(), 0..4),
        3 => select(vec![
            "\r\n", "\n", "\r", "\0", " ", ":", ",", "%00", "%ff", "/", "\r\n\r\n",
            "0\r\n\r\n", "Content-Length: 5\r\n", "\r\nContent-Length: 0",
            "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: x\r\n",
            "Connection: Upgrade\r\n", "Upgrade: h2c\r\n", "HTTP/1.0", "HTTP/2.0",
            "Expect: 100-continue\r\n", "18446744073709551616", "-1", "\"", "\\", "[", "{",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => (any::<u8>(), 1000..20_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

/// Something in the place of a part.
fn mutate(mut request: Vec<u8>, changes: Vec<(Index, usize, Vec<u8>)>) -> Vec<u8> {
    for (at, length, piece) in changes {
        let from = at.index(request.len() + 1);
        let to = request.len().min(from + length);
        request.splice(from..to, piece);
    }
    request
}

/// A value of a header, made of the pieces of credentials.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        select(vec![
            ":",
            "::",
            "\"",
            "\\",
            "\\303\\251",
            "\\9",
            "\\37",
            "1",
            "0",
            "-1",
            "+1",
            "4294967296",
            "00001",
            "=",
            ";",
            "; ",
            ",",
            " ",
            "tryton_session=",
            "admin:1:t",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        vec(any::<u8>(), 0..6),
    ];
    // Input that is no part of any header is for the other tests.
    vec(part, 0..8).prop_map(|parts| {
        let mut value = parts.concat();
        value.retain(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        value
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        select(vec![
            "client:x",
            "client:",
            "user:1",
            "user:",
            "notification:2",
            ":"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((".{0,4}", inner), 0..4).prop_map(|pairs| Value::from(
                pairs.into_iter().collect::<Map<_, _>>()
            )),
        ]
    })
}

/// Channels that may be too many, or have too long names.
fn channels(most: usize, longest: usize) -> impl Strategy<Value = Value> {
    (0..most, 0..longest, "(client:|user:|)[a-b]?").prop_map(|(count, length, name)| {
        let channels = (0..count).map(|number| format!("{name}{number:length$}"));
        Value::from(channels.collect::<Vec<_>>())
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_refused_or_end_the_connection(sent in vec(any::<u8>(), 0..300)) {
        for status in statuses(&sent, true)? {
            prop_assert!(status >= 400, "{}", status);
        }
    }

    #[test]
    fn requests_with_mistakes_are_answered_or_end_the_connection(
        request in requests(),
        changes in vec((any::<Index>(), 0..8_usize, piece()), 0..6),
    ) {
        statuses(&mutate(request, changes), true)?;
    }

    #[test]
    fn any_credential_is_good_or_refused(
        name in select(vec![
            "Cookie: ", "Cookie: tryton_session=", "Authorization: ", "Authorization: Session ",
        ]),
        value in value(),
        coded in any::<bool>(),
    ) {
        let value = if coded { STANDARD.encode(value).into_bytes() } else { value };
        let header = [name.as_bytes(), &value, b"\r\n"].concat();
        let request = SITE.post(&format!("{JSON}{CLOSE}"), "{}").into_bytes();
        let at = request.windows(7).position(|part| part == b"Content").expect("a header");
        let request = [&request[..at], &header, &request[at..]].concat();
        let status = status(&request)?;
        prop_assert!(matches!(status, 200 | 401), "{}", status);
    }

    #[test]
    fn any_other_header_does_no_harm(
        name in select(vec![
            "Origin", "Host", "X-Forwarded-For", "Access-Control-Request-Headers",
            "Connection", "Content-Type", "Expect", "X-Requested-With", "Upgrade",
        ]),
        value in value(),
        is_preflight in any::<bool>(),
    ) {
        let method = if is_preflight { "OPTIONS" } else { "POST" };
        let begin = format!("{method} /{}/bus HTTP/1.1\r\n{name}: ", SITE.database);
        let end = format!("\r\nHost: x\r\n{GOOD}{JSON}{CLOSE}Content-Length: 2\r\n\r\n{{}}");
        status(&[begin.as_bytes(), &value, end.as_bytes()].concat())?;
    }

    #[test]
    fn any_json_is_a_question_or_refused(
        channels in prop_oneof![
            any_json(),
            channels(300, 10),
            channels(10, 300),
        ],
        last in any_json(),
        other in any_json(),
        whole in any::<bool>(),
        changes in vec((any::<Index>(), 0..3_usize, "[\\[\\]{}\",:0-9eE\\\\u.+-]{0,3}"), 0..3),
    ) {
        let body = if whole {
            other
        } else {
            json!({"channels": channels, "last_message": last, "other": other})
        };
        let changes = changes.into_iter().map(|(at, length, text)| (at, length, text.into()));
        let body = mutate(body.to_string().into_bytes(), changes.collect());
        // Also input that is no text any more.
        let head = SITE.post(&format!("{GOOD}{JSON}{CLOSE}"), &"x".repeat(body.len()));
        let (head, _) = head.split_once("\r\n\r\n").expect("a head");
        let request = [head.as_bytes(), b"\r\n\r\n", &body].concat();
        let status = status(&request)?;
        prop_assert!(matches!(status, 200 | 400), "{}", status);
    }
}
