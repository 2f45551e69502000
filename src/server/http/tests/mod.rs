//! Connections over streams in memory. Each byte arrives, and is taken, when
//! the test says so.
mod bounds;
mod gated;
mod pieces;
mod requests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

use self::gated::{Gate, Gated};
use crate::message::Message;
use crate::poll::EMPTY_RESPONSE;
use crate::registry;
use crate::server::app::App;
use crate::server::config::{Config, Limits};
use crate::server::http::http1::serve;
use crate::server::http::open::Open;
use crate::server::request::address::Peer;
use crate::server::trytond::{Answered, Asked, Check, Session, Trytond};
use crate::sync::lock;

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
