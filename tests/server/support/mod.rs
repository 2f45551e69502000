//! A server on a port of its own, and a client that talks plain HTTP to it.
pub(crate) mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trytond_fastbus::message::Message;
use trytond_fastbus::registry;
use trytond_fastbus::server::{
    Address, Answered, Asked, Check, Config, Limits, Listener, Server, Session, Trytond,
};

/// `admin:1:good`
pub(crate) const GOOD: &str = "Authorization: Session YWRtaW46MTpnb29k\r\n";
pub(crate) const JSON: &str = "Content-Type: application/json\r\n";
/// Sooner than a message is sent again that was on its way.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(4900);
pub(crate) const EMPTY: &str = r#"{"message":null,"channel":null}"#;

/// Takes each token for valid but those named otherwise, such as `bad1`.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) asked: AtomicUsize,
    /// The most sessions that it was asked for by one question.
    pub(crate) most: AtomicUsize,
    /// The users whose sessions have ended.
    pub(crate) ended: Mutex<Vec<u32>>,
    /// The chats that any user may follow; none while trytond does not answer.
    pub(crate) readable: Mutex<Option<Vec<&'static str>>>,
    /// The questions that were asked.
    pub(crate) questions: Mutex<Vec<Asked>>,
}

impl Trytond for Fake {
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>> {
        let exist = names.iter().map(|name| &**name != "unknown");
        let exist = Some(exist.collect());
        Box::pin(async { exist })
    }

    fn sessions(&self, _: &str, sessions: Vec<Arc<Session>>) -> Answered<Vec<Check>> {
        self.asked.fetch_add(sessions.len(), Ordering::SeqCst);
        self.most.fetch_max(sessions.len(), Ordering::SeqCst);
        let ended = self.ended.lock().expect("no panic");
        let checks = sessions.iter().map(|session| match &*session.token {
            "failed" => Check::Failed,
            token if token.starts_with("bad") || ended.contains(&session.user) => {
                Check::Invalid
            }
            "local" if session.address.as_deref() != Some("192.0.2.1") => {
                Check::Invalid
            }
            _ => Check::Valid,
        });
        let checks = checks.collect();
        Box::pin(async { checks })
    }

    fn readable(&self, asked: Asked) -> Answered<Option<Vec<Box<str>>>> {
        if asked.database.starts_with("loading") {
            self.questions.lock().expect("no panic").push(asked);
            return Box::pin(std::future::pending());
        }
        let readable = self.readable.lock().expect("no panic").clone();
        let answer = readable.map(|readable| {
            let chats = asked.chats.iter().cloned();
            chats.filter(|chat| readable.contains(&&**chat)).collect()
        });
        self.questions.lock().expect("no panic").push(asked);
        Box::pin(async { answer })
    }

    fn opened(&self, _: &str) {}
}

pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) database: String,
    pub(crate) sessions: Arc<Fake>,
}

pub(crate) fn bind() -> TcpListener {
    let address = Address::Tcp(Some("127.0.0.1".into()), 0);
    match address.bind().expect("a port").pop() {
        Some(Listener::Tcp(listener)) => listener,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn start(config: Config) -> Site {
    start_on(config, bind())
}

pub(crate) fn start_on(config: Config, listener: TcpListener) -> Site {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let admin = bind();
    let address = listener.local_addr().expect("an address");
    let admin_address = admin.local_addr().expect("an address");
    let sessions = Arc::new(Fake::default());
    let server = Server::start(
        config,
        vec![Listener::Tcp(listener)],
        vec![Listener::Tcp(admin)],
        sessions.clone(),
        registry::current(),
        2,
    )
    .expect("a server");
    Site {
        server,
        address,
        admin: admin_address,
        database: format!("db{number}"),
        sessions,
    }
}

impl Site {
    pub(crate) fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).expect("a connection"))
    }

    /// A poll of a client of its own, as the real ones send it.
    pub(crate) fn poll(&self, headers: &str, channels: &str, last: &str) -> String {
        let body = format!("{{\"last_message\":{last},\"channels\":[{channels}]}}");
        self.post(&format!("{GOOD}{JSON}{headers}"), &body)
    }

    pub(crate) fn post(&self, headers: &str, body: &str) -> String {
        post(&self.database, headers, body)
    }

    /// A poll of a client and a session that no other has, without a message
    /// before.
    pub(crate) fn poll_of(&self, number: usize) -> String {
        let headers = format!("Cookie: tryton_session=u{number}:{number}:t\r\n{JSON}");
        let body = format!("{{\"channels\":[\"client:{number}\"]}}");
        self.post(&headers, &body)
    }

    pub(crate) fn publish(&self, channel: &str, id: &str) {
        self.publish_json(channel, &format!("{{\"message_id\":\"{id}\"}}"));
    }

    pub(crate) fn publish_json(&self, channel: &str, json: &str) {
        let process = registry::current();
        let bus = process.open(&self.database, Config::default().history);
        let message = Message::new(channel, json).expect("a message");
        process.publish(&bus, vec![message]).expect("threads");
    }

    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.admin("/metrics").body;
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    pub(crate) fn admin(&self, path: &str) -> Answer {
        let stream = TcpStream::connect(self.admin).expect("a connection");
        let mut client = Client::new(stream);
        client.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ));
        client.answer()
    }

    /// Waits until this number of polls wait.
    pub(crate) fn waiting(&self, polls: usize) {
        #[expect(clippy::cast_precision_loss, reason = "they are few")]
        self.comes_to("trytond_bus_polls_waiting", polls as f64);
    }

    /// Waits until a metric has this value. An answer is counted once it was
    /// written, and the client may see it before that.
    pub(crate) fn comes_to(&self, name: &str, value: f64) {
        let until = Instant::now() + Duration::from_secs(60);
        let mut found = None;
        while Instant::now() < until {
            found = self.metric(name);
            if found == Some(value) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{name} is {found:?}, not {value}");
    }
}

/// A configuration with these limits.
pub(crate) fn limited(limits: Limits) -> Config {
    Config {
        limits,
        ..Config::default()
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn post(database: &str, headers: &str, body: &str) -> String {
    format!(
        "POST /{database}/bus HTTP/1.1\r\nHost: bus:1\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            (found == name).then_some(value)
        })
    }
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        Self { stream }
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("it is sent");
    }

    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("text")
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().expect("a status");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        let body = String::from_utf8(body).expect("text");
        Answer { status, head, body }
    }

    pub(crate) fn ask(&mut self, text: &str) -> Answer {
        self.send(text);
        self.answer()
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

pub(crate) fn message(id: &str, channel: &str) -> String {
    format!("{{\"message\":{{\"message_id\":\"{id}\"}},\"channel\":\"{channel}\"}}")
}

/// Tells other threads to stop, also when the test fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
