//! The bus server over HTTP/2.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::support::tls::{Http2, TlsClient, tls, with_tls};
use crate::support::{AT_ONCE, EMPTY, JSON, limited, message, start};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use trytond_fastbus::server::{Config, Limits};

async fn soon<F: Future>(future: F) -> F::Output {
    let done = timeout(Duration::from_secs(60), future).await;
    done.expect("it comes in time")
}

/// Does nothing while it does not block.
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// A client that takes only this number of bytes of an answer before it extends
/// the window.
fn narrow() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(10);
    builder
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_of_one_connection_wait_side_by_side() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    let client = Http2::connect(site.address, &trust).await;
    let polls: Vec<_> = (0..50)
        .map(|number| {
            let request = site.request_of(&format!("\"c{number}\""));
            tokio::spawn(client.beside(request))
        })
        .collect();
    site.waiting(50);
    assert_eq!(site.metric("trytond_bus_connections"), Some(1.0));
    for (number, poll) in polls.into_iter().enumerate().rev() {
        assert!(!poll.is_finished());
        let channel = format!("c{number}");
        site.publish(&channel, "1");
        assert_eq!(soon(poll).await.expect("no panic"), message("1", &channel));
    }
    site.waiting(0);
    assert_eq!(
        site.metric("trytond_bus_requests_total{status=\"200\"}"),
        Some(50.0)
    );
    assert_eq!(
        site.metric("trytond_bus_delivery_seconds_count"),
        Some(50.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_http_1() {
    let (config, trust) = with_tls(Config {
        cors: vec!["https://sao.example.com".into()],
        ..Config::default()
    });
    let site = start(config);
    site.publish("a", "1");
    let mut client = Http2::connect(site.address, &trust).await;
    let good = "cookie: tryton_session=admin:1:good\r\n";
    let json = "content-type: application/json\r\n";
    let poll = "{\"channels\":[\"a\"]}";
    for (method, path, headers, body, status) in [
        ("POST", "bus", &[good, json][..], poll, 200),
        (
            "POST",
            "bus",
            &[good, json, "origin: https://bus:1\r\n"],
            poll,
            200,
        ),
        (
            "POST",
            "bus",
            &[good, json, "origin: https://sao.example.com\r\n"],
            poll,
            200,
        ),
        (
            "POST",
            "bus",
            &[good, json, "origin: https://other\r\n"],
            poll,
            403,
        ),
        ("POST", "bus", &[json], poll, 401),
        (
            "POST",
            "bus",
            &[json, "origin: https://bus:1\r\n"],
            poll,
            401,
        ),
        ("POST", "bus", &[good], poll, 415),
        ("POST", "bus", &[good, json], "[]", 400),
        ("POST", "other", &[good, json], poll, 404),
        ("GET", "bus", &[good], "", 405),
        ("HEAD", "bus", &[good], "", 405),
        (
            "OPTIONS",
            "bus",
            &[
                "origin: https://sao.example.com\r\n",
                "access-control-request-headers: content-type\r\n",
            ],
            "",
            204,
        ),
    ] {
        let path = format!("/{}/{path}", site.database);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://bus:1{path}"));
        for header in headers {
            let (name, value) = header.trim_end().split_once(": ").expect("a header");
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let answer = client.ask(request.expect("a request")).await;
        let own: BTreeSet<_> = answer
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .filter(|line| !line.starts_with("date: "))
            .collect();
        assert!(answer.headers().contains_key("date"));

        let mut old = TlsClient::connect(&site, &trust);
        old.send(&format!(
            "{method} {path} HTTP/1.1\r\nhost: bus:1\r\n{}content-length: {}\r\n\r\n{body}",
            headers.concat(),
            body.len()
        ));
        let (head, content) = if method == "HEAD" {
            (old.head(), String::new())
        } else {
            let answer = old.answer();
            (answer.head, answer.body)
        };
        let lines = head.trim_end().lines().skip(1);
        let lines = lines.filter(|line| !line.starts_with("date: "));
        let name = format!("{method} {path} {headers:?}");
        assert_eq!(answer.status(), status, "{name}");
        assert_eq!(head[9..12], status.to_string(), "{name}");
        assert_eq!(own, lines.map(str::to_owned).collect(), "{name}");
        assert_eq!(*answer.body(), content, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poll_that_is_taken_back_leaves_its_place() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    let mut client = Http2::connect(site.address, &trust).await;
    let poll = client.sender.send_request(site.request_of("\"client:x\""));
    let poll = tokio::spawn(poll);
    site.waiting(1);
    poll.abort();
    site.waiting(0);
    site.publish("client:x", "1");
    let begun = Instant::now();
    let answer = client.ask(site.request_of("\"client:x\"")).await;
    assert_eq!(*answer.body(), message("1", "client:x"));
    assert!(begun.elapsed() < AT_ONCE);
    assert_eq!(site.metric("trytond_bus_connections"), Some(1.0));
}

#[test]
fn message_that_was_not_taken_goes_to_the_next_poll() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    // By a stream that is reset, and by a connection that is closed.
    for (id, closes) in [("1", false), ("2", true)] {
        let client = format!("client:{id}");
        let channels = format!("\"{client}\"");
        site.publish(&client, id);
        let mut runs = runtime();
        let mut first = runs.block_on(Http2::with(&narrow(), site.address, &trust));
        let poll = first.sender.send_request(site.request_of(&channels));
        let answer = runs.block_on(soon(poll)).expect("an answer");
        assert_eq!(answer.status(), 200);
        // Its headers have arrived, but not all of its body.
        let begun = Instant::now();
        if closes {
            runs = runtime();
        }
        drop(answer);
        let answer = runs.block_on(async {
            let mut second = Http2::connect(site.address, &trust).await;
            second.ask(site.request_of(&channels)).await
        });
        assert_eq!(*answer.body(), message(id, &client));
        assert!(begun.elapsed() < AT_ONCE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_take_its_answer_is_given_up() {
    let (config, trust) = with_tls(limited(Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    }));
    let site = start(config);
    site.publish("client:x", "1");
    let mut client = Http2::with(&narrow(), site.address, &trust).await;
    let begun = Instant::now();
    let poll = client.sender.send_request(site.request_of("\"client:x\""));
    let answer = soon(poll).await.expect("an answer");
    // The client continues to send requests.
    let other = tokio::spawn(client.sender.send_request(site.request_of("\"other\"")));
    soon(client.connection).await.expect("no panic");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(soon(other).await.expect("no panic").is_err());
    drop(answer);
    let mut client = Http2::connect(site.address, &trust).await;
    let answer = client.ask(site.request_of("\"client:x\"")).await;
    assert_eq!(*answer.body(), message("1", "client:x"));
    assert!(begun.elapsed() < AT_ONCE);
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_answers_all_streams_one_after_the_other() {
    let (config, trust) = with_tls(Config {
        drain: Duration::from_secs(2),
        ..Config::default()
    });
    let site = start(config);
    let client = Http2::connect(site.address, &trust).await;
    let polls: Vec<_> = (0..100)
        .map(|number| {
            let request = site.request_of(&format!("\"client:{number}\""));
            let answer = client.beside(request);
            tokio::spawn(async move {
                assert_eq!(answer.await, EMPTY);
                Instant::now()
            })
        })
        .collect();
    site.waiting(100);
    let begun = Instant::now();
    site.server.drain();
    // A poll that comes later waits for the end, and is told of it only then.
    site.comes_to("trytond_bus_draining", 1.0);
    let mut late = Http2::connect(site.address, &trust).await;
    let answer = tokio::spawn(async move {
        let answer = late.ask(site.request_of("\"late\"")).await;
        (answer, late, site)
    });
    let mut after = Vec::new();
    for poll in polls {
        after.push(soon(poll).await.expect("no panic") - begun);
    }
    // Each has a turn of its own, spread over the time.
    after.sort_unstable();
    assert!(after[99] > Duration::from_millis(1500), "{after:?}");
    assert!(
        after[99] > after[0] + Duration::from_millis(500),
        "{after:?}"
    );
    assert!(soon(client.connection).await.expect("no panic"));
    let (answer, late, site) = soon(answer).await.expect("no panic");
    assert_eq!((answer.status().as_u16(), &**answer.body()), (200, EMPTY));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert!(soon(late.connection).await.expect("no panic"));
    let ended = site.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused_and_the_connection_goes_on() {
    let (config, trust) = with_tls(limited(Limits {
        body_timeout: Duration::from_millis(300),
        ..Limits::default()
    }));
    let site = start(config);
    let mut client = Http2::connect(site.address, &trust).await;
    let mut request = site.request("{}");
    let long = "x".repeat(20_000).parse().expect("a header");
    request.headers_mut().insert("x-long", long);
    assert_eq!(client.ask(request).await.status(), 431);

    let body = " ".repeat(70_000) + "{}";
    assert_eq!(client.ask(site.request(body)).await.status(), 413);

    // One that is as large as allowed, also for the windows.
    let mut body = " ".repeat(65_000) + "{\"channels\":[\"a\"]}";
    site.publish("a", "1");
    body.insert_str(0, &" ".repeat(65_536 - body.len()));
    let answer = client.ask(site.request(body)).await;
    assert_eq!(*answer.body(), message("1", "a"));

    // A body that does not come, beside one that does.
    let mut sender = endless(site.address, &trust).await;
    let (parts, _) = site.request("").into_parts();
    let body = Endless(1, Arc::default());
    let request = Request::from_parts(parts, body);
    let answer = soon(sender.send_request(request)).await.expect("an answer");
    assert_eq!(answer.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_holds_few_requests_that_are_not_all_there() {
    let (config, trust) = with_tls(limited(Limits {
        body_timeout: Duration::from_secs(60),
        ..Limits::default()
    }));
    let site = start(config);
    // Many bodies, and heads whose bodies do not come.
    for (head, parts) in [(1, 60), (15_000, 1)] {
        let mut sender = endless(site.address, &trust).await;
        let mut answers = Vec::new();
        for _ in 0..100 {
            let (mut request, _) = site.request("").into_parts();
            let long = "x".repeat(head).parse().expect("a header");
            request.headers.insert("x-long", long);
            let sent = Arc::new(AtomicUsize::new(0));
            let body = Endless(parts, sent.clone());
            let answer = sender.send_request(Request::from_parts(request, body));
            answers.push((tokio::spawn(answer), sent));
        }
        // The statuses of the requests that are not refused.
        let unanswered = || answers.iter().filter(|(answer, _)| !answer.is_finished());
        let sent = |sent: &AtomicUsize| sent.load(Ordering::SeqCst);
        let held = || -> usize {
            unanswered()
                .map(|(_, parts)| head + sent(parts) * PART)
                .sum()
        };
        let begun = Instant::now();
        while unanswered().any(|(_, count)| sent(count) < parts) || held() > 4 * 65_536
        {
            // Two bodies of the largest size are held, and the bytes that may
            // be sent before they are read.
            assert!(begun.elapsed().as_secs() < 60, "{} bytes are held", held());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut refused = 0;
        for (answer, _) in answers {
            if !answer.is_finished() {
                answer.abort();
                continue;
            }
            let answer = answer.await.expect("no panic").expect("an answer");
            assert_eq!(answer.status(), 429);
            refused += 1;
        }
        assert!((50..100).contains(&refused), "{refused}");
        // Their room is free for others afterwards, each time.
        let mut good = 0;
        while good < 5 {
            assert!(begun.elapsed().as_secs() < 100);
            let (request, _) = site.request("").into_parts();
            let body = Endless(66, Arc::default());
            let request = Request::from_parts(request, body);
            let answer = soon(sender.send_request(request)).await;
            match answer.expect("an answer").status().as_u16() {
                413 => good += 1,
                status => assert_eq!((status, good), (429, 0)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_holds_few_requests_whose_sessions_are_not_known() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    let mut client = Http2::connect(site.address, &trust).await;
    // A good session, and sessions that can't be checked.
    let body = || format!("{{\"channels\":[\"a\"]{}}}", " ".repeat(60_000));
    for _ in 0..5 {
        site.publish("a", "1");
        assert_eq!(client.ask(site.request(body())).await.status(), 200);
    }
    let unknown = |user: usize| {
        let mut request = site.request(body());
        let cookie = format!("tryton_session=u{user}:{user}:failed");
        let cookie = cookie.parse().expect("a header");
        request.headers_mut().insert("cookie", cookie);
        request
    };
    let asked = || site.sessions.asked.load(Ordering::SeqCst);
    let mut polls = Vec::new();
    for number in 0..2 {
        let before = asked();
        polls.push(tokio::spawn(client.sender.send_request(unknown(number))));
        while asked() == before {
            assert!(!polls[number].is_finished(), "it was not asked for");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(client.ask(unknown(2)).await.status(), 429);
    // They leave their room when they are taken back.
    polls.iter().for_each(tokio::task::JoinHandle::abort);
    let begun = Instant::now();
    while client.ask(site.request(body())).await.status() == 429 {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

const PART: usize = 1000;

/// A body of this number of parts and no end, and the number of parts that were
/// sent.
struct Endless(usize, Arc<AtomicUsize>);

/// A connection for requests with such bodies.
async fn endless(
    address: SocketAddr,
    trust: &Arc<ClientConfig>,
) -> SendRequest<Endless> {
    let stream = TokioIo::new(tls(address, trust).await);
    let builder = Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.1.load(Ordering::SeqCst) == self.0 {
            return Poll::Pending;
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        let part = Bytes::from_static(&[b' '; PART]);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_without_a_body_is_no_poll() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    let mut client = Http2::connect(site.address, &trust).await;
    assert_eq!(client.ask(site.request("")).await.status(), 400);
    let mut request = site.request("");
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "bus:1".parse().expect("an authority");
    assert_eq!(client.ask(request).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_request_is_closed() {
    let (config, trust) = with_tls(limited(Limits {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        ..Limits::default()
    }));
    let site = start(config);
    // Not even the preface, and nothing after it.
    let begun = Instant::now();
    let silent = tls(site.address, &trust).await;
    let client = Http2::connect(site.address, &trust).await;
    assert!(soon(client.connection).await.expect("no panic"));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    site.comes_to("trytond_bus_connections", 0.0);
    drop(silent);
    // A poll that waits for longer is not closed.
    let client = Http2::connect(site.address, &trust).await;
    let poll = tokio::spawn(client.beside(site.request_of("\"a\"")));
    site.waiting(1);
    tokio::time::sleep(Duration::from_millis(900)).await;
    site.publish("a", "1");
    assert_eq!(soon(poll).await.expect("no panic"), message("1", "a"));
    let begun = Instant::now();
    assert!(soon(client.connection).await.expect("no panic"));
    assert!(begun.elapsed() >= Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_request_makes_room() {
    let (config, trust) = with_tls(limited(Limits {
        max_connections: 3,
        ..Limits::default()
    }));
    let site = start(config);
    let polling = Http2::connect(site.address, &trust).await;
    let poll = site.request_of("\"client:x\"");
    let poll = tokio::spawn(polling.beside(poll));
    site.waiting(1);
    let mut idle = Http2::connect(site.address, &trust).await;
    assert_eq!(idle.ask(site.request("[]")).await.status(), 400);
    let begun = Instant::now();
    let mut third = TlsClient::connect(&site, &trust);
    assert_eq!(third.ask(&site.post(JSON, "{}")).status, 401);
    assert!(begun.elapsed() < Duration::from_secs(30));
    soon(idle.connection).await.expect("no panic");
    site.publish("client:x", "1");
    let expected = message("1", "client:x");
    assert_eq!(soon(poll).await.expect("no panic"), expected);
}

#[test]
fn dead_peer_is_found_while_its_poll_waits() {
    let (config, trust) = with_tls(limited(Limits {
        idle_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    }));
    let site = start(config);
    let runs = runtime();
    let mut client = runs.block_on(Http2::connect(site.address, &trust));
    let poll = client.sender.send_request(site.request_of("\"a\""));
    let poll = runs.spawn(poll);
    let is_waiting = async {
        while site.metric("trytond_bus_polls_waiting") != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // As long as the peer answers, it is not closed.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(site.metric("trytond_bus_polls_waiting"), Some(1.0));
    };
    runs.block_on(is_waiting);
    // From here on nothing reads or writes there, though it is still open.
    site.waiting(0);
    drop(poll);
}
