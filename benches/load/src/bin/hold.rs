//! Clients that poll a bus server like real clients, through its restarts:
//! `hold SERVER SOURCE FIRST CLIENTS RATE`. They connect from the address
//! SOURCE, RATE of them in a second. FIRST is the number of the first one's
//! user.
//!
//! The line `stat` on standard input prints their counts as JSON, and `begin`
//! resets the counts.
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};
use trytond_fastbus::server::raise_descriptor_limit;

/// The channel that all clients wait on, besides their own.
const ALL: &str = "chat:scale,1";

/// The longest that a client stays away after a failure, in seconds.
const DELAY_MAX: u64 = 600;

/// The pause between two checks for clients that reconnect.
const TICK: Duration = Duration::from_millis(5);

/// The clients that connect before connected ones are served, because a
/// connected client has to send its request in time.
const CONNECTS: usize = 64;

/// A request that was sent so long after its connection was made is late.
const LATE: Duration = Duration::from_secs(1);

/// The token of standard input.
const COMMANDS: Token = Token(usize::MAX);

/// A client and its state.
struct Client {
    stream: Option<TcpStream>,
    /// The time of the last change of state.
    since: Instant,
    /// Whether its request was late.
    is_late: bool,
    /// Whether its poll was sent.
    waits: bool,
    partial: Vec<u8>,
    /// The last message that it got.
    last: u64,
    /// The delay after the next failure, in seconds.
    delay: u64,
}

/// The events since the counts began.
#[derive(Default)]
struct Counts {
    messages: u64,
    empty: u64,
    twice: u64,
    lost: u64,
    /// Connections that could not be made.
    refused: u64,
    /// Connections that ended without an answer.
    cut: u64,
    /// Cut connections whose request was late.
    cut_late: u64,
    /// Cut connections that were reset.
    cut_reset: u64,
    /// First requests that were late: the clients have too little of the
    /// machine.
    late: u64,
    /// Answers that are no success.
    failed: u64,
    connects: u64,
    /// When each message came, in seconds of the epoch.
    times: Vec<f64>,
}

struct Load {
    server: SocketAddr,
    source: IpAddr,
    first: usize,
    poll: Poll,
    clients: Vec<Client>,
    /// The clients that reconnect, by their time.
    away: BinaryHeap<Reverse<(Instant, usize)>>,
    counts: Counts,
    buffer: Vec<u8>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, server, source, first, clients, rate] = &*arguments else {
        return Err("hold SERVER SOURCE FIRST CLIENTS RATE".into());
    };
    raise_descriptor_limit()?;
    let (clients, rate): (u32, u32) = (clients.parse()?, rate.parse()?);
    let poll = Poll::new()?;
    let commands = commands(Arc::new(Waker::new(poll.registry(), COMMANDS)?));
    let begun = Instant::now();
    let mut load = Load {
        server: server.parse()?,
        source: source.parse()?,
        first: first.parse()?,
        poll,
        clients: Vec::new(),
        away: BinaryHeap::new(),
        counts: Counts::default(),
        buffer: vec![0; 1 << 16],
    };
    for number in 0..clients {
        load.clients.push(Client {
            stream: None,
            since: begun,
            is_late: false,
            waits: false,
            partial: Vec::new(),
            last: 0,
            delay: 1,
        });
        let when = begun + Duration::from_secs(1) * number / rate;
        load.away.push(Reverse((when, number as usize)));
    }
    load.run(&commands)
}

/// The lines of standard input.
fn commands(waker: Arc<Waker>) -> Receiver<String> {
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            // If the receiver has ended, the line has no effect.
            let _ = sender.send(line);
            let _ = waker.wake();
        }
        // The process that started this one has ended.
        std::process::exit(0);
    });
    commands
}

impl Load {
    fn run(
        &mut self,
        commands: &Receiver<String>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut events = Events::with_capacity(1024);
        let mut tick = TICK;
        loop {
            match self.poll.poll(&mut events, Some(tick)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                if event.token() == COMMANDS {
                    while let Ok(command) = commands.try_recv() {
                        self.obey(&command);
                    }
                } else {
                    self.serve(event.token().0);
                }
            }
            tick = TICK;
            for number in 0.. {
                let next = self.away.peek().copied();
                let Some(Reverse((_, client))) =
                    next.filter(|Reverse((when, _))| *when <= Instant::now())
                else {
                    break;
                };
                if number == CONNECTS {
                    tick = Duration::ZERO;
                    break;
                }
                self.away.pop();
                self.connect(client);
            }
        }
    }

    fn obey(&mut self, command: &str) {
        if command == "begin" {
            self.counts = Counts::default();
            return;
        }
        let counts = &mut self.counts;
        counts.times.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| counts.times.get(index).copied().unwrap_or_default();
        let (most, count) = (counts.times.len().saturating_sub(1), counts.times.len());
        let waiting = self.clients.iter().filter(|client| client.waits).count();
        // Not `println!`, which panics if the reader has closed the output.
        let _ = writeln!(
            io::stdout(),
            "{{\"waiting\": {waiting}, \"away\": {}, \"connects\": {}, \
             \"messages\": {}, \"empty\": {}, \"twice\": {}, \"lost\": {}, \
             \"refused\": {}, \"cut\": {}, \"cut_late\": {}, \"cut_reset\": {}, \
             \"late\": {}, \"failed\": {}, \"first\": {:.4}, \
             \"median\": {:.4}, \"last\": {:.4}}}",
            self.away.len(),
            counts.connects,
            counts.messages,
            counts.empty,
            counts.twice,
            counts.lost,
            counts.refused,
            counts.cut,
            counts.cut_late,
            counts.cut_reset,
            counts.late,
            counts.failed,
            at(0),
            at(count / 2),
            at(most),
        );
    }

    /// Reconnects after a delay, which grows as with real clients.
    fn stay_away(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.stream = None;
        client.waits = false;
        client.partial.clear();
        let when = Instant::now() + Duration::from_secs(client.delay);
        client.delay = (client.delay * 2).min(DELAY_MAX);
        self.away.push(Reverse((when, number)));
    }

    fn connect(&mut self, number: usize) {
        self.counts.connects += 1;
        match self.open(number) {
            Ok(stream) => {
                let client = &mut self.clients[number];
                client.stream = Some(stream);
                client.since = Instant::now();
            }
            Err(_) => {
                self.counts.refused += 1;
                self.stay_away(number);
            }
        }
    }

    fn open(&self, number: usize) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(self.server),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::new(self.source, 0).into())?;
        match socket.connect(&self.server.into()) {
            // EINPROGRESS has no name among the kinds yet.
            Err(error)
                if error.kind() != ErrorKind::WouldBlock
                    && error.raw_os_error() != Some(115) =>
            {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(
            &mut stream,
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(stream)
    }

    /// Serves a client whose socket is ready.
    fn serve(&mut self, number: usize) {
        let client = &mut self.clients[number];
        // The event belongs to a socket that was closed meanwhile.
        let Some(stream) = &mut client.stream else {
            return;
        };
        if !client.waits {
            if stream.take_error().ok().flatten().is_some() {
                self.counts.refused += 1;
                return self.stay_away(number);
            }
            if stream.peer_addr().is_err() {
                return;
            }
            client.is_late = client.since.elapsed() > LATE;
            self.counts.late += u64::from(client.is_late);
            self.ask(number);
        }
        self.read(number);
    }

    fn ask(&mut self, number: usize) {
        let user = self.first + number;
        let client = &mut self.clients[number];
        let last = match client.last {
            0 => "null".into(),
            last => format!("\"00000000-0000-4000-9000-{last:012}\""),
        };
        let body = format!(
            "{{\"last_message\": {last}, \"channels\": \
             [\"client:00000000-0000-4000-8000-{user:012}\", \"{ALL}\"]}}"
        );
        let request = format!(
            "POST /scale/bus HTTP/1.1\r\nHost: localhost\r\nCookie: \
             tryton_session=u{user}:{user}:{user:064x}\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.waits = true;
        // It is small, and the socket has sent all before.
        let sent = client
            .stream
            .as_mut()
            .map(|stream| stream.write_all(request.as_bytes()));
        if !matches!(sent, Some(Ok(()))) {
            self.cut(number, true);
        }
    }

    /// Its connection has ended without an answer.
    fn cut(&mut self, number: usize, is_reset: bool) {
        self.counts.cut += 1;
        self.counts.cut_late += u64::from(self.clients[number].is_late);
        self.counts.cut_reset += u64::from(is_reset);
        self.stay_away(number);
    }

    fn read(&mut self, number: usize) {
        loop {
            let client = &mut self.clients[number];
            let Some(stream) = &mut client.stream else {
                return;
            };
            match stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(length) if length > 0 => {
                    client.partial.extend_from_slice(&self.buffer[..length]);
                }
                end => return self.cut(number, end.is_err()),
            }
            let Some((head, body)) = complete(&client.partial) else {
                continue;
            };
            if !head.starts_with("HTTP/1.1 200") {
                self.counts.failed += 1;
                return self.stay_away(number);
            }
            match message(body) {
                None => self.counts.empty += 1,
                Some(message) if message <= client.last => self.counts.twice += 1,
                Some(message) => {
                    if client.last > 0 {
                        self.counts.lost += message - client.last - 1;
                    }
                    client.last = message;
                    self.counts.messages += 1;
                    self.counts.times.push(now());
                }
            }
            let closes = head.contains("\nconnection: close");
            client.partial.clear();
            client.delay = 1;
            client.is_late = false;
            if closes {
                client.stream = None;
                client.waits = false;
                return self.connect(number);
            }
            self.ask(number);
        }
    }
}

fn now() -> f64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.unwrap_or_default().as_secs_f64()
}

/// The head, in lower case but for its first line, and the body of an answer
/// that is all there.
fn complete(answer: &[u8]) -> Option<(String, &str)> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let (line, headers) = head.split_once("\r\n")?;
    let headers = headers.to_ascii_lowercase();
    let length = headers.split("content-length: ").nth(1)?.lines().next()?;
    let length: usize = length.parse().ok()?;
    (body.len() >= length).then(|| (format!("{line}\n{headers}"), body))
}

/// The number of the message in a body.
fn message(body: &str) -> Option<u64> {
    let (_, id) = body.split_once("-4000-9000-")?;
    id.get(..12)?.parse().ok()
}
