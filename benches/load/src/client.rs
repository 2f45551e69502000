//! Thousands of clients in one thread.
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::server::{Kind, Server};

/// How many connections are begun before their polls are sent.
const BATCH: usize = 500;

/// The channel that all wait on beside their own.
const ALL: &str = "all";

/// The clients, each with a poll.
pub(crate) struct Clients {
    address: SocketAddr,
    poll: Poll,
    events: Events,
    all: Vec<Client>,
    buffer: Vec<u8>,
    is_nchan: bool,
    /// When each message was received, since they were taken.
    times: Vec<Instant>,
    /// The number of the last message that was published.
    published: u64,
    /// How many deliveries are still expected.
    missing: usize,
    pub(crate) duplicated: usize,
    pub(crate) failed: usize,
    /// How many messages arrived before one that was published earlier.
    pub(crate) reordered: usize,
    /// The clients that have their answer and poll again later; none while they
    /// poll at once.
    held: Option<Vec<usize>>,
}

struct Client {
    stream: TcpStream,
    /// The server has said that it closes the connection.
    is_closed: bool,
    /// The request that is sent when the connection is open.
    request: String,
    /// The received part of an incomplete answer.
    partial: Vec<u8>,
    last: u64,
    /// The last message, in headers for nchan.
    after: String,
    /// The message that it must get next.
    expected: Vec<u64>,
}

impl Clients {
    pub(crate) fn connect(server: &Server, polls: usize) -> io::Result<Self> {
        let mut clients = Self {
            address: server.address,
            is_nchan: matches!(server.kind, Kind::Nchan(..)),
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            all: Vec::with_capacity(polls),
            buffer: vec![0; 1 << 16],
            times: Vec::new(),
            published: 0,
            missing: 0,
            duplicated: 0,
            failed: 0,
            reordered: 0,
            held: None,
        };
        while clients.all.len() < polls {
            for _ in 0..BATCH.min(polls - clients.all.len()) {
                let token = clients.all.len();
                let stream = std::net::TcpStream::connect(server.address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                let registry = clients.poll.registry();
                registry.register(&mut stream, Token(token), Interest::READABLE)?;
                clients.all.push(Client {
                    stream,
                    is_closed: false,
                    request: String::new(),
                    partial: Vec::new(),
                    last: 0,
                    after: String::new(),
                    expected: Vec::new(),
                });
                clients.ask(token)?;
            }
            clients.rest(Duration::from_millis(5))?;
        }
        Ok(clients)
    }

    /// Publishes to all clients.
    pub(crate) fn publish(&mut self, server: &mut Server) -> io::Result<()> {
        self.published += 1;
        self.missing += self.all.len();
        for client in &mut self.all {
            client.expected.push(self.published);
        }
        server.publish(ALL, self.published)
    }

    /// Publishes to one client.
    pub(crate) fn publish_to(
        &mut self,
        server: &mut Server,
        client: usize,
    ) -> io::Result<()> {
        self.published += 1;
        self.missing += 1;
        self.all[client].expected.push(self.published);
        server.publish(&name(client), self.published)
    }

    /// Whether each client has its expected messages.
    pub(crate) fn is_done(&self) -> bool {
        self.missing == 0
    }

    pub(crate) fn lost(&self) -> usize {
        self.missing
    }

    pub(crate) fn take_times(&mut self) -> Vec<Instant> {
        std::mem::take(&mut self.times)
    }

    /// Runs for this time.
    pub(crate) fn rest(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.turn(left)?;
        }
        Ok(())
    }

    /// Runs until `done`, for at most five minutes.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(300);
        while !done(self) && Instant::now() < until {
            self.turn(Duration::from_millis(100))?;
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for event in &events {
            let token = event.token().0;
            if event.is_writable() {
                self.send(token)?;
            }
            if event.is_readable() {
                self.read(token)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn read(&mut self, token: usize) -> io::Result<()> {
        loop {
            let client = &mut self.all[token];
            if client.is_closed {
                return Ok(());
            }
            let length = match client.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(());
                }
                Ok(length) if length > 0 => length,
                _ => {
                    self.failed += 1;
                    return Ok(());
                }
            };
            client.partial.extend_from_slice(&self.buffer[..length]);
            let Some((end, body)) = complete(&client.partial) else {
                continue;
            };
            let number = number(&client.partial[body..end]);
            if self.is_nchan {
                client.after = after(&client.partial[..body]);
            }
            let is_good = client.partial.starts_with(b"HTTP/1.1 200");
            client.is_closed = closes(&client.partial[..body]);
            client.partial.clear();
            if !is_good {
                self.failed += 1;
            }
            if let Some(number) = number {
                self.times.push(Instant::now());
                client.last = number;
                match client
                    .expected
                    .iter()
                    .position(|expected| *expected == number)
                {
                    None => self.duplicated += 1,
                    Some(place) => {
                        self.reordered += usize::from(place > 0);
                        self.missing -= 1;
                        client.expected.remove(place);
                    }
                }
            }
            match &mut self.held {
                Some(held) => held.push(token),
                None => self.ask(token)?,
            }
        }
    }

    /// Lets clients poll again only by [`Clients::go_on`].
    pub(crate) fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        for token in self.held.take().into_iter().flatten() {
            self.ask(token)?;
        }
        Ok(())
    }

    fn ask(&mut self, token: usize) -> io::Result<()> {
        let name = name(token);
        let client = &mut self.all[token];
        let request = if self.is_nchan {
            format!(
                "GET /poll/{name}/{ALL} HTTP/1.1\r\nHost: localhost:8001\r\n\
                 Cookie: tryton_session={}\r\n{}\r\n",
                session(token),
                client.after,
            )
        } else {
            let last = match client.last {
                0 => "null".into(),
                number => format!("\"{}\"", id(number)),
            };
            let body = format!(
                "{{\"last_message\": {last}, \"channels\": [\"{name}\", \"{ALL}\"]}}"
            );
            format!(
                "POST /db/bus HTTP/1.1\r\nHost: localhost:8001\r\n\
                 Cookie: tryton_session={}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                session(token),
                body.len(),
            )
        };
        if client.is_closed {
            client.stream = TcpStream::connect(self.address)?;
            client.stream.set_nodelay(true)?;
            client.is_closed = false;
            client.request = request;
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            return registry.register(&mut client.stream, Token(token), interest);
        }
        // It is small, and the socket has sent all before.
        client.stream.write_all(request.as_bytes())
    }

    /// Sends the request that waited for the connection.
    fn send(&mut self, token: usize) -> io::Result<()> {
        let client = &mut self.all[token];
        let request = std::mem::take(&mut client.request);
        client.stream.write_all(request.as_bytes())
    }
}

/// A client's own channel.
fn name(client: usize) -> String {
    format!("client:00000000-0000-4000-8000-{client:012}")
}

/// A client's own session, of a user of its own, as in `benches/tryton.py`.
fn session(client: usize) -> String {
    format!("user{client}:{}:{client:048x}", 1000 + client)
}

pub(crate) fn id(number: u64) -> String {
    format!("00000000-0000-4000-9000-{number:012}")
}

/// The headers to get the message after an answer of nchan.
fn after(head: &[u8]) -> String {
    let value = |name: &str| {
        let at = head
            .windows(name.len())
            .position(|s| s == name.as_bytes())?;
        let rest = &head[at + name.len()..];
        let end = rest.iter().position(|byte| *byte == b'\r')?;
        std::str::from_utf8(&rest[..end]).ok()
    };
    format!(
        "If-Modified-Since: {}\r\nIf-None-Match: {}\r\n",
        value("\nLast-Modified: ").unwrap_or_default(),
        value("\nEtag: ").unwrap_or_default(),
    )
}

/// The end of the answer and the start of its body, if the answer is complete.
fn complete(answer: &[u8]) -> Option<(usize, usize)> {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    // Some servers write it in upper case.
    let name = b"ontent-length: ";
    let at = answer
        .windows(name.len())
        .position(|text| text.eq_ignore_ascii_case(name))?;
    let digits = answer[at + name.len()..].iter();
    let length = digits
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number, byte| number * 10 + usize::from(byte - b'0'));
    (answer.len() >= head + length).then_some((head + length, head))
}

/// Whether the server closes the connection after the answer with this head.
fn closes(head: &[u8]) -> bool {
    let line = b"connection: close";
    head.windows(line.len())
        .any(|text| text.eq_ignore_ascii_case(line))
}

/// The number of the message in a body.
fn number(body: &[u8]) -> Option<u64> {
    let name = b"-4000-9000-";
    let at = body.windows(name.len()).position(|text| text == name)? + name.len();
    std::str::from_utf8(body.get(at..at + 12)?)
        .ok()?
        .parse()
        .ok()
}
