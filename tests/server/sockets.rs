//! The sockets of the bus server: its own, those it is handed, and those it
//! passes on to another server.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, EMPTY, Fake, JSON, Stop, bind, message, post, start_on};
use trytond_fastbus::message::Message;
use trytond_fastbus::registry;
use trytond_fastbus::server::{Address, Config, Listener, Server, inherited};

/// `admin:1:local`, valid from 192.0.2.1 only.
const LOCAL: &str = "Authorization: Session YWRtaW46MTpsb2NhbA==\r\n";

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("bus-{name}-{}", std::process::id()))
}

fn serve(listeners: Vec<Listener>) -> Server {
    let sessions = Arc::new(Fake::default());
    let process = registry::current();
    Server::start(
        Config::default(),
        listeners,
        Vec::new(),
        sessions,
        process,
        1,
    )
    .expect("a server")
}

fn publish(database: &str, channel: &str) {
    let process = registry::current();
    let bus = process.open(database, Config::default().history);
    let json = format!("{{\"message_id\":\"{channel}\"}}");
    let message = Message::new(channel, &json).expect("a message");
    process.publish(&bus, vec![message]).expect("threads");
}

/// A request from behind a proxy, and the status of its answer.
fn ask_from(path: &PathBuf, database: &str, forwarded: &str) -> (u16, String) {
    let stream = UnixStream::connect(path).expect("a connection");
    let time = Some(Duration::from_secs(60));
    stream.set_read_timeout(time).expect("a timeout");
    let headers = format!("{LOCAL}{JSON}{forwarded}");
    let answer = Client { stream }.ask(&post(database, &headers, "{}"));
    (answer.status, answer.body)
}

#[test]
fn address_of_a_client_on_a_unix_socket_is_the_forwarded_one() {
    let path = temporary("unix");
    let listeners = Address::Unix(path.clone()).bind().expect("it is free");
    let server = serve(listeners);
    publish("unix", "user:1");
    for (forwarded, status) in [
        ("", 401),
        ("X-Forwarded-For: 192.0.2.2\r\n", 401),
        ("X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n", 401),
        ("X-Forwarded-For: 192.0.2.1\r\n", 200),
        ("X-Forwarded-For: 192.0.2.2, 192.0.2.1\r\n", 200),
    ] {
        let answer = ask_from(&path, "unix", forwarded);
        assert_eq!(answer.0, status, "{forwarded}");
        assert!(status != 200 || answer.1 == message("user:1", "user:1"));
    }
    std::fs::remove_file(path).expect("it is there");
    server.drain();
}

/// This test once more, in a process of its own that is handed these
/// descriptors as systemd does it.
struct Handed(Child);

impl Handed {
    fn start(first: OwnedFd, second: OwnedFd, count: u32) -> Self {
        let script = "exec 3<&0 4<&1 </dev/null >/dev/null\n\
            LISTEN_PID=$$\nexport LISTEN_PID\nexec \"$0\" \"$@\"";
        let test = std::env::current_exe().expect("a path");
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(test)
            .args([
                "--exact",
                "sockets::sockets_that_systemd_hands_over_are_served",
            ])
            .env("LISTEN_FDS", count.to_string())
            .stdin(Stdio::from(first))
            .stdout(Stdio::from(second))
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("a process"))
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other process. It exits with 3 when it is handed a socket that it can't
/// use.
fn serve_handed() {
    let listeners = inherited().unwrap_or_else(|error| {
        // Not by `eprintln`, whose output the test harness keeps.
        let _ = writeln!(std::io::stderr(), "{error}");
        std::process::exit(3);
    });
    assert!(matches!(&*listeners, [Listener::Tcp(_), Listener::Unix(_)]));
    assert!(inherited().expect("none").is_empty());
    publish("handed", "user:1");
    // It is killed long before.
    serve(listeners).wait(Duration::from_secs(60));
}

#[test]
fn sockets_that_systemd_hands_over_are_served() {
    if std::env::var_os("LISTEN_FDS").is_some() {
        return serve_handed();
    }
    let path = temporary("handed");
    let (tcp, unix) = (bind(), UnixListener::bind(&path).expect("it is free"));
    let address = tcp.local_addr().expect("an address");
    let _server = Handed::start(tcp.into(), unix.into(), 2);
    // They listen already, so a client that connects waits until the server
    // accepts.
    let mut client = Client::new(TcpStream::connect(address).expect("it listens"));
    let cookie = format!("Cookie: tryton_session=a:1:t\r\n{JSON}");
    let answer = client.ask(&post("handed", &cookie, "{}"));
    assert_eq!(answer.body, message("user:1", "user:1"));
    let answer = ask_from(&path, "handed", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(answer, (200, message("user:1", "user:1")));
    std::fs::remove_file(path).expect("it is there");

    let null = || OwnedFd::from(File::open("/dev/null").expect("it is there"));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (connected, _other) = UnixStream::pair().expect("a pair");
    for (fault, wrong) in [
        ("is no socket for streams", null()),
        ("is no socket for streams", udp.into()),
        ("does not listen", connected.into()),
    ] {
        let mut server = Handed::start(wrong, null(), 1);
        let ended = server.0.wait().expect("it ends");
        let mut error = String::new();
        let mut stderr = server.0.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut error).expect("text");
        assert_eq!(ended.code(), Some(3), "{error}");
        let begin = format!("descriptor 3 {fault}: use ListenStream");
        assert!(error.starts_with(&begin), "{error}");
    }
}

/// Asks again and again; whether all was answered as it should be.
fn ask_on(
    address: SocketAddr,
    request: &str,
    good: impl Fn(u16, &str) -> bool,
    keep: bool,
    stop: &AtomicBool,
    asked: &AtomicUsize,
) {
    let connect = || Client::new(TcpStream::connect(address).expect("it listens"));
    let mut client = connect();
    while !stop.load(Ordering::SeqCst) {
        let answer = client.ask(request);
        assert!(good(answer.status, &answer.body), "{answer:?}");
        asked.fetch_add(1, Ordering::SeqCst);
        if !keep || answer.header("connection") == Some("close") {
            client = connect();
            // A network takes its time between a connection and a request.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn another_server_takes_over_a_socket_without_a_failed_request() {
    let config = Config {
        long_polling_timeout: Duration::from_millis(5),
        drain: Duration::from_millis(700),
        ..Config::default()
    };
    let listener = bind();
    let again: TcpListener = listener.try_clone().expect("a descriptor");
    let first = start_on(config.clone(), listener);
    let address = first.address;
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let until = Instant::now() + Duration::from_secs(60);
    let more = |of: &AtomicUsize, than: usize| {
        let begun = of.load(Ordering::SeqCst);
        while of.load(Ordering::SeqCst) < begun + than {
            assert!(Instant::now() < until, "nothing is answered");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for number in 0..8 {
            let (stop, asked) = (&stop, &asked);
            let poll = first.poll_of(number);
            // A few are held during the drain, others connect and close all the
            // time, because there is nothing to wait for.
            let refused = first.post(JSON, "{}");
            scope.spawn(move || {
                let keep = number % 2 == 0;
                if number < 4 {
                    let good = |status, body: &str| status == 200 && body == EMPTY;
                    ask_on(address, &poll, good, keep, stop, asked);
                } else {
                    ask_on(
                        address,
                        &refused,
                        |status, _| status == 401,
                        keep,
                        stop,
                        asked,
                    );
                }
            });
        }
        more(&asked, 100);
        let second = start_on(config, again);
        first.server.drain();
        let ended = first.server.wait(Duration::from_secs(60));
        ended.expect("it ends").expect("without an error");
        more(&asked, 200);
        assert!(
            second.metric("trytond_bus_requests_total{status=\"401\"}") > Some(0.0)
        );
        assert!(
            second.metric("trytond_bus_requests_total{status=\"200\"}") > Some(0.0)
        );
    });
}

/// A listener of that port, beside others.
fn beside(port: u16) -> TcpListener {
    let address = Address::Tcp(Some("127.0.0.1".into()), port);
    match address.bind_beside().expect("a port").pop() {
        Some(Listener::Tcp(listener)) => listener,
        other => panic!("{other:?}"),
    }
}

#[test]
fn servers_beside_each_other_share_the_clients_of_a_port() {
    let config = Config {
        drain: Duration::from_millis(100),
        ..Config::default()
    };
    let first = start_on(config.clone(), beside(0));
    let port = first.address.port();
    let second = start_on(config, beside(port));
    let status = |site: &crate::support::Site| {
        site.metric("trytond_bus_requests_total{status=\"401\"}")
            .unwrap_or_default()
    };
    let refused = first.post(JSON, "{}");
    let ask = || first.connect().ask(&refused).status;
    let until = Instant::now() + Duration::from_secs(60);
    while status(&first) == 0.0 || status(&second) == 0.0 {
        assert!(Instant::now() < until, "one of them gets no client");
        assert_eq!(ask(), 401);
    }
    first.server.drain();
    let ended = first.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
    let before = status(&second);
    for _ in 0..50 {
        assert_eq!(ask(), 401);
    }
    // An answer counts once it was written.
    while status(&second) < before + 50.0 {
        assert!(Instant::now() < until, "others were answered");
    }
    // A server that is started by mistake is refused, whether it or the other
    // one listens alone.
    let plain = Address::Tcp(Some("127.0.0.1".into()), port);
    let error = plain.bind().expect_err("it is in use");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let alone = bind();
    let port = alone.local_addr().expect("an address").port();
    let beside = Address::Tcp(Some("127.0.0.1".into()), port);
    let error = beside.bind_beside().expect_err("it is in use");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
