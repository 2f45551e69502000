//! Connections over streams in memory. Each byte arrives, and is taken, when
//! the test says so.
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::io::{DuplexStream, ReadBuf, duplex};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::http1::serve;
use crate::message::Message;
use crate::poll::EMPTY_RESPONSE;
use crate::registry;
use crate::server::app::App;
use crate::server::config::{Config, Limits};
use crate::server::http::open::Open;
use crate::server::request::address::Peer;
use crate::server::trytond::{Answered, Asked, Check, Session, Trytond};
use crate::sync::{Mutex, lock};

/// `admin:1:good`
const GOOD: &str = "Authorization: Session YWRtaW46MTpnb29k\r\n\
    Content-Type: application/json\r\n";

struct All;

impl Trytond for All {
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>> {
        Box::pin(async move { Some(vec![true; names.len()]) })
    }

    fn sessions(&self, _: &str, sessions: Vec<Arc<Session>>) -> Answered<Vec<Check>> {
        Box::pin(async move { vec![Check::Valid; sessions.len()] })
    }

    fn readable(&self, asked: Asked) -> Answered<Option<Vec<Box<str>>>> {
        Box::pin(async { Some(asked.chats) })
    }

    fn opened(&self, _: &str) {}
}

/// A connection, and the server that has no other.
struct Wire {
    client: DuplexStream,
    app: Arc<App>,
    database: String,
    serving: JoinHandle<()>,
    /// Opened for the server's output, a byte at a time.
    gate: Gate,
}

/// Whether the server may write, and the waker of the task that waits for that;
/// none without a gate.
type Gate = Arc<Mutex<Option<(bool, Option<Waker>)>>>;

/// A stream that takes nothing while its gate is closed, and then a byte at
/// a time.
struct Gated {
    stream: DuplexStream,
    gate: Gate,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = match &mut *lock(&self.gate) {
            None => data.len(),
            Some((true, _)) => data.len().min(1),
            Some((false, waker)) => {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        let written =
            ready!(Pin::new(&mut self.stream).poll_write(context, &data[..length]));
        Poll::Ready(written)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn app(config: Config) -> Arc<App> {
    Arc::new(App::new(config, Arc::new(All), registry::current()))
}

/// A connection of `app`, for whose place no other connection waits.
fn open(app: &Arc<App>) -> Open {
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned();
    Open::new(app, place.expect("it is the first"))
}

/// A connection whose stream holds this number of bytes for each side.
fn wire(config: Config, bytes: usize) -> Wire {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let app = app(config);
    let (client, stream) = duplex(bytes);
    let gate = Gate::default();
    let gated = Gated {
        stream,
        gate: gate.clone(),
    };
    let relay = app.clone();
    tokio::spawn(async move { relay.databases.relay().await });
    let serving = tokio::spawn(serve(gated, Peer::Local, open(&app)));
    Wire {
        client,
        app,
        database: format!("wire{number}"),
        serving,
        gate,
    }
}

/// Waits for a result that has to come soon.
async fn soon<F: Future>(future: F) -> F::Output {
    let done = timeout(Duration::from_secs(20), future).await;
    done.expect("it comes in time")
}

/// Lets the server do everything that it can do with its input.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

impl Wire {
    fn poll(&self, headers: &str, channels: &str) -> String {
        self.post(headers, &format!("{{\"channels\":[{channels}]}}"))
    }

    fn post(&self, headers: &str, body: &str) -> String {
        self.request(
            &format!("{headers}Content-Length: {}\r\n", body.len()),
            body,
        )
    }

    fn request(&self, headers: &str, body: &str) -> String {
        let database = &self.database;
        format!("POST /{database}/bus HTTP/1.1\r\nHost: x\r\n{GOOD}{headers}\r\n{body}")
    }

    fn publish(&self, channel: &str, json: &str) {
        let process = registry::current();
        let bus = process.open(&self.database, self.app.config.history);
        let message = Message::new(channel, json).expect("a message");
        process.publish(&bus, vec![message]).expect("threads");
    }

    /// Publishes a message whose id is its channel.
    fn publish_name(&self, channel: &str) {
        self.publish(channel, &format!("{{\"message_id\":\"{channel}\"}}"));
    }

    async fn send(&mut self, text: &str) {
        let sent = self.client.write_all(text.as_bytes());
        soon(sent).await.expect("it is sent");
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(self.client.read_u8()).await.expect("a head"));
        }
        String::from_utf8(head).expect("text")
    }

    /// The status of the next answer, and its body.
    async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        let read = self.client.read_exact(&mut body);
        soon(read).await.expect("a body");
        let status = head[9..12].to_owned();
        (status, String::from_utf8(body).expect("text"))
    }

    /// The server's output until it closes.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        let read = self.client.read_to_string(&mut rest);
        soon(read).await.expect("it is closed");
        rest
    }

    fn polls(&self) -> usize {
        self.app.polls_waiting()
    }

    async fn waiting(&self, polls: usize) {
        soon(async {
            while self.polls() != polls {
                yield_now().await;
            }
        })
        .await;
    }

    fn close_gate(&self) {
        *lock(&self.gate) = Some((false, None));
    }

    fn open_gate(&self) {
        let (_, waker) = lock(&self.gate)
            .replace((true, None))
            .expect("it was closed");
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn answered(&self, status: u16) -> bool {
        let text = self.app.metrics_text();
        let line = format!("trytond_bus_requests_total{{status=\"{status}\"}} 1");
        text.lines().any(|found| found == line)
    }
}

fn message(channel: &str) -> String {
    format!(
        "{{\"message\":{{\"message_id\":\"{channel}\"}},\"channel\":\"{channel}\"}}"
    )
}

fn good(body: impl Into<String>) -> (String, String) {
    ("200".to_owned(), body.into())
}

fn limited(limits: Limits) -> Config {
    Config {
        limits,
        ..Config::default()
    }
}

#[tokio::test]
async fn continue_that_is_not_written_yet_is_not_lost() {
    for is_there_before in [false, true] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.close_gate();
        let request = wire.poll("Expect: 100-continue\r\n", "\"a\"");
        let (head, body) = request.split_once("\r\n\r\n").expect("a body");
        wire.send(&format!("{head}\r\n\r\n")).await;
        settle().await;
        wire.send(body).await;
        settle().await;
        // It can't wait yet, because hyper still has output to write.
        assert_eq!(wire.polls(), 0);
        if is_there_before {
            wire.publish_name("a");
        }
        wire.open_gate();
        assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        if !is_there_before {
            wire.waiting(1).await;
            wire.publish_name("a");
        }
        assert_eq!(wire.answer().await, good(message("a")));
        wire.publish_name("b");
        wire.send(&wire.poll("", "\"b\"")).await;
        assert_eq!(wire.answer().await, good(message("b")));
    }
}

#[tokio::test]
async fn answer_is_whole_however_little_is_taken_at_a_time() {
    let mut wire = wire(Config::default(), 7);
    wire.close_gate();
    let text = "x".repeat(10_000);
    wire.publish("a", &format!("{{\"message_id\":1,\"text\":\"{text}\"}}"));
    wire.send(&wire.poll("", "\"a\"")).await;
    settle().await;
    wire.open_gate();
    let (status, body) = wire.answer().await;
    assert_eq!(status, "200");
    let expected = format!(
        "{{\"message\":{{\"message_id\":1,\"text\":\"{text}\"}},\"channel\":\"a\"}}"
    );
    assert!(body == expected, "{} bytes", body.len());
}

#[tokio::test]
async fn requests_may_be_split_at_every_byte() {
    let mut wire = wire(Config::default(), 1 << 16);
    for channel in ["a", "b"] {
        wire.publish_name(channel);
    }
    // The second is found with the first, or arrives while that is answered.
    let all = [
        wire.poll("", "\"a\""),
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        wire.poll("", "\"b\""),
    ]
    .concat();
    for at in 1..all.len() {
        wire.send(&all[..at]).await;
        settle().await;
        wire.send(&all[at..]).await;
        assert_eq!(wire.answer().await, good(message("a")), "at {at}");
        assert_eq!(wire.answer().await.0, "404", "at {at}");
        assert_eq!(wire.answer().await, good(message("b")), "at {at}");
    }
    for byte in all.chars() {
        wire.send(byte.encode_utf8(&mut [0; 4])).await;
        settle().await;
    }
    assert_eq!(wire.answer().await, good(message("a")));
    assert_eq!(wire.answer().await.0, "404");
    assert_eq!(wire.answer().await, good(message("b")));
}

#[tokio::test]
async fn chunks_may_be_split_at_every_byte() {
    let headers = "Transfer-Encoding: chunked\r\n";
    let body = "c\r\n{\"channels\":\r\n5;x=y\r\n[\"b\"]\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n";
    for at in 1.. {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.publish_name("b");
        let request = wire.request(headers, body);
        if at == request.len() {
            break;
        }
        wire.send(&request[..at]).await;
        settle().await;
        wire.send(&request[at..]).await;
        assert_eq!(wire.answer().await, good(message("b")), "at {at}");
    }
}

#[tokio::test]
async fn bytes_beyond_the_length_begin_the_next_request() {
    let mut wire = wire(Config::default(), 1 << 16);
    for channel in ["a", "b"] {
        wire.publish_name(channel);
    }
    let first = wire.poll("", "\"a\"");
    // Whole, it is garbage; behind the next poll it is that.
    let second = wire.poll("", "\"b\"");
    wire.send(&format!("{first}{second}XX")).await;
    assert_eq!(wire.answer().await, good(message("a")));
    assert_eq!(wire.answer().await, good(message("b")));
    wire.send(" / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(wire.answer().await.0, "404");
    wire.send(&format!("{first}\0\r\n\r\n")).await;
    assert_eq!(wire.answer().await, good(message("a")));
    assert_eq!(wire.answer().await.0, "400");
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn request_is_not_smuggled_in_the_body_of_another() {
    for (headers, body, status) in [
        // Input that two servers could read differently is read in one way, and
        // then nothing more.
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
            "200",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
            "200",
        ),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "{}", "400"),
        ("Content-Length: 2, 3\r\n", "{}", "400"),
        ("Content-Length: +2\r\n", "{}", "400"),
        ("Content-Length: 0x2\r\n", "{}", "400"),
        ("Content-Length: -1\r\n", "{}", "400"),
        ("Content-Length:\r\n", "{}", "400"),
        ("Content-Length : 2\r\n", "{}", "400"),
        ("Content-Length: 18446744073709551617\r\n", "{}", "400"),
        ("X: y\r\n Content-Length: 2\r\n", "{}", "400"),
        ("Content-Length: 2\rX: y\r\n", "{}", "400"),
        ("Transfer-Encoding: gzip\r\n", "{}", "400"),
        ("Transfer-Encoding: chunked, gzip\r\n", "{}", "400"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "0\r\n\r\n",
            "400",
        ),
        ("Transfer-Encoding: chunked\r\n", "{}", "400"),
        ("Transfer-Encoding: chunked\r\n", "2\n{}\n0\n\n", "400"),
        ("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n", "400"),
        (
            "Transfer-Encoding: chunked\r\n",
            "fffffffffffffffff\r\n{}",
            "400",
        ),
        ("Transfer-Encoding: chunked\r\n", "2\r\n{}X", "400"),
    ] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.publish_name("user:1");
        let hidden = wire.poll("", "");
        let request = wire.request(headers, body);
        wire.send(&format!("{request}{hidden}")).await;
        assert_eq!(wire.answer().await.0, status, "{headers} {body}");
        assert_eq!(wire.rest().await, "", "{headers} {body}");
    }
}

#[tokio::test]
async fn length_that_is_told_twice_alike_is_one() {
    let mut wire = wire(Config::default(), 1 << 16);
    wire.publish_name("user:1");
    let request = wire.request("Content-Length: 2\r\nContent-Length: 2\r\n", "{}");
    for _ in 0..2 {
        wire.send(&request).await;
        assert_eq!(wire.answer().await, good(message("user:1")));
    }
}

#[tokio::test]
async fn refusals_by_hyper_are_counted() {
    let long = format!("X: {}\r\n", "x".repeat(20_000));
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{long}"), Some(431)),
        (
            "GET / HTTP/1.1\r\n".to_owned() + &"X: y\r\n".repeat(200),
            Some(431),
        ),
        ("\0\r\n\r\n".to_owned(), Some(400)),
        ("GET / HTTP/3.7\r\n\r\n".to_owned(), Some(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), None),
    ] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.send(&request).await;
        wire.send("\r\n").await;
        match status {
            Some(status) => {
                assert_eq!(wire.answer().await.0, status.to_string());
                assert_eq!(wire.rest().await, "");
                assert!(wire.answered(status), "{status}");
            }
            None => assert_eq!(wire.rest().await, ""),
        }
        assert_eq!(wire.answered(400), status == Some(400));
        drop(wire.client);
        soon(wire.serving).await.expect("no panic");
    }
}

#[tokio::test]
async fn head_and_get_are_refused_and_leave_nothing_behind() {
    let mut wire = wire(Config::default(), 1 << 16);
    wire.publish_name("a");
    let path = format!("/{}/bus", wire.database);
    for headers in ["\r\n", "Content-Length: 5\r\n\r\nPOST "] {
        wire.send(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{headers}"))
            .await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
        assert!(!head.contains("content-length: 0"), "{head}");
        for method in ["GET", "PUT", "DELETE", "PATCH", "TRACE", "FOO"] {
            wire.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}"))
                .await;
            assert_eq!(wire.answer().await.0, "405", "{method}");
        }
        wire.send(&wire.poll("", "\"a\"")).await;
        assert_eq!(wire.answer().await, good(message("a")));
    }
}

#[tokio::test]
async fn upgrade_and_connect_are_requests_like_others() {
    let mut wire = wire(Config::default(), 1 << 16);
    wire.publish_name("a");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for _ in 0..2 {
        wire.send(&wire.poll(upgrade, "\"a\"")).await;
        assert_eq!(wire.answer().await, good(message("a")));
    }
    wire.send("CONNECT x:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    assert_eq!(wire.answer().await.0, "404");
    wire.send(&wire.poll("", "\"a\"")).await;
    assert_eq!(wire.answer().await, good(message("a")));
}

#[tokio::test]
async fn old_clients_are_kept_only_if_they_ask() {
    for (connection, polls) in [("", 1), ("Connection: keep-alive\r\n", 3)] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.publish_name("a");
        let request = wire.poll(connection, "\"a\"");
        // Also without a host, which they may leave out.
        let request = request.replace("HTTP/1.1\r\nHost: x", "HTTP/1.0");
        for _ in 0..polls {
            wire.send(&request).await;
            let head = wire.head().await;
            assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
            assert_eq!(head.contains("connection: keep-alive"), polls > 1);
            let mut body = vec![0; message("a").len()];
            soon(wire.client.read_exact(&mut body)).await.expect("all");
            assert_eq!(body, message("a").into_bytes());
        }
        if polls == 1 {
            assert_eq!(wire.rest().await, "");
        }
    }
}

#[tokio::test]
async fn client_that_goes_while_it_waits_frees_its_poll_at_once() {
    // Also one that has sent more meanwhile, at once or bit by bit.
    for (times, more) in [(0, ""), (1, "POST"), (1, "whole"), (40, "G"), (3, "whole")] {
        let mut wire = wire(Config::default(), 1 << 16);
        let poll = wire.poll("", "\"a\"");
        wire.send(&poll).await;
        wire.waiting(1).await;
        for _ in 0..times {
            wire.send(if more == "whole" { &poll } else { more }).await;
            settle().await;
        }
        assert_eq!(wire.polls(), 1);
        drop(wire.client);
        let app = wire.app;
        soon(wire.serving).await.expect("no panic");
        assert_eq!(app.polls_waiting(), 0);
    }
}

#[tokio::test]
async fn bytes_that_arrive_during_a_wait_are_kept_and_bounded() {
    let mut wire = wire(Config::default(), 256);
    wire.send(&wire.poll("", "\"a\"")).await;
    wire.waiting(1).await;
    let polls: Vec<_> = (0..200)
        .map(|number| wire.poll("", &format!("\"c{number}\"")))
        .collect();
    let all = polls.concat();
    let mut sent = 0;
    // As much as is taken. The server can't wait for a client that takes no
    // more.
    while sent < 10_000 {
        let write = wire.client.write(&all.as_bytes()[sent..]);
        match timeout(Duration::from_millis(50), write).await {
            Ok(taken) => sent += taken.expect("it is open"),
            Err(_) => break,
        }
    }
    assert!((256..10_000).contains(&sent), "{sent} bytes");
    wire.publish_name("a");
    assert_eq!(wire.answer().await, good(message("a")));
    let (mut reader, mut writer) = tokio::io::split(wire.client);
    let rest = all.as_bytes()[sent..].to_vec();
    let sending = tokio::spawn(async move {
        writer.write_all(&rest).await.expect("it is open");
        writer
    });
    for number in 0..polls.len() {
        let channel = format!("c{number}");
        let json = format!("{{\"message_id\":\"{channel}\"}}");
        let process = registry::current();
        let bus = process.open(&wire.database, wire.app.config.history);
        let published = Message::new(&channel, &json).expect("a message");
        process.publish(&bus, vec![published]).expect("threads");
        let expected = message(&channel);
        let mut text = String::new();
        while !text.ends_with(&expected) {
            let byte = soon(reader.read_u8()).await.expect("an answer");
            text.push(byte.into());
            assert!(text.len() < 1000, "{text}");
        }
    }
    soon(sending).await.expect("all is sent");
}

#[tokio::test]
async fn requests_that_hyper_did_not_take_at_once_are_not_lost() {
    // Its buffer grows with a long body, is full of requests at the end of
    // that, and begins anew for the next one.
    let mut wire = wire(Config::default(), 1 << 17);
    wire.publish_name("a");
    let long = format!("{}{{\"channels\":[\"a\"]}}", " ".repeat(60_000));
    let all = wire.post("", &long) + &wire.poll("", "\"a\"").repeat(150);
    wire.send(&all).await;
    for number in 0..151 {
        assert_eq!(wire.answer().await, good(message("a")), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_its_answer_is_given_up() {
    let mut wire = wire(Config::default(), 512);
    let text = "x".repeat(10_000);
    wire.publish(
        "client:a",
        &format!("{{\"message_id\":1,\"text\":\"{text}\"}}"),
    );
    wire.send(&wire.poll("", "\"client:a\"")).await;
    let begun = Instant::now();
    (&mut wire.serving).await.expect("no panic");
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(wire.polls(), 0);
    // The message was not delivered, so the next poll of the client gets it.
    let (client, stream) = duplex(1 << 16);
    tokio::spawn(serve(stream, Peer::Local, open(&wire.app)));
    wire.client = client;
    wire.send(&wire.poll("", "\"client:a\"")).await;
    assert!(wire.answer().await.1.contains(&text));
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn each_step_of_a_request_has_its_time() {
    let limits = Limits {
        header_timeout: Duration::from_secs(1),
        body_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(5),
        ..Limits::default()
    };
    let config = Config {
        long_polling_timeout: Duration::from_secs(7),
        ..limited(limits)
    };
    let open = || wire(config.clone(), 1 << 16);
    // Nothing, a part of a head, and a part of a body.
    for (part, seconds, status) in [(0, 1, ""), (1, 1, ""), (2, 3, "HTTP/1.1 400 ")] {
        let mut wire = open();
        let request = wire.poll("", "\"a\"");
        let begun = Instant::now();
        wire.send(&request[..part * (request.len() - 1) / 2]).await;
        let rest = wire.rest().await;
        assert!(rest.starts_with(status), "{rest}");
        assert!(rest.is_empty() == status.is_empty(), "{rest}");
        assert_eq!(begun.elapsed().as_secs(), seconds, "{rest}");
    }
    // A byte now and then gives no more time.
    let mut wire = open();
    let request = wire.poll("", "\"a\"");
    let begun = Instant::now();
    for byte in request.bytes() {
        if wire.client.write_u8(byte).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(90)).await;
    }
    assert_eq!(wire.rest().await, "");
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    // The poll is answered at its time, and the connection kept for another.
    let mut wire = open();
    let begun = Instant::now();
    wire.send(&wire.poll("", "\"a\"")).await;
    assert_eq!(wire.answer().await, good(EMPTY_RESPONSE));
    assert_eq!(begun.elapsed().as_secs(), 7);
    assert_eq!(wire.rest().await, "");
    assert_eq!(begun.elapsed().as_secs(), 12);
}
