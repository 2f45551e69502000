//! The bounds of the bus server, and its end.

use std::io::Write;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::{Client, EMPTY, GOOD, JSON, limited, message, start};
use trytond_fastbus::server::{Config, Limits};

#[test]
fn polls_of_a_session_are_limited() {
    let site = start(limited(Limits {
        session_polls: 2,
        ..Limits::default()
    }));
    let mut clients = [site.connect(), site.connect()];
    for client in &mut clients {
        client.send(&site.poll("", "\"a\"", "null"));
    }
    site.waiting(2);
    let mut third = site.connect();
    assert_eq!(third.ask(&site.poll("", "\"a\"", "null")).status, 429);
    drop(clients);
    site.waiting(0);
    site.publish("a", "1");
    assert_eq!(third.ask(&site.poll("", "\"a\"", "null")).status, 200);
}

#[test]
fn poll_too_many_is_held_and_answered_empty() {
    let site = start(limited(Limits {
        max_polls: 1,
        hold_time: Duration::from_millis(200),
        ..Limits::default()
    }));
    let mut first = site.connect();
    first.send(&site.poll("", "\"a\"", "null"));
    site.waiting(1);
    let begun = Instant::now();
    let mut second = site.connect();
    let answer = second.ask(&site.poll("", "\"a\"", "null"));
    assert_eq!((answer.status, &*answer.body), (200, EMPTY));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    // It may come to another server, which has room for it.
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(second.is_closed());
}

#[test]
fn held_polls_take_no_room_and_reach_each_client() {
    const ROOM: usize = 4;
    const CLIENTS: usize = 8;
    const HELD: f64 = 4.0;
    let site = start(limited(Limits {
        max_polls: ROOM,
        hold_time: Duration::from_millis(100),
        ..Limits::default()
    }));
    let mut last = vec![String::from("null"); CLIENTS];
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| site.connect()).collect();
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            let channels = format!("\"client:{number}\",\"all\"");
            client.send(&site.poll("", &channels, &last[number]));
        }
        // The same number can be held again, however many were held before.
        site.waiting(ROOM);
        site.comes_to("trytond_bus_polls_held", HELD);
        site.publish("all", &format!("m{round}"));
        for (number, client) in clients.iter_mut().enumerate() {
            let mut answer = client.answer();
            while answer.body == EMPTY {
                if answer.header("connection") == Some("close") {
                    *client = site.connect();
                }
                let channels = format!("\"client:{number}\",\"all\"");
                answer = client.ask(&site.poll("", &channels, &last[number]));
            }
            assert_eq!(answer.body, message(&format!("m{round}"), "all"));
            last[number] = format!("\"m{round}\"");
            if answer.header("connection") == Some("close") {
                *client = site.connect();
            }
        }
    }
    site.comes_to("trytond_bus_polls_held", 0.0);
}

#[test]
fn held_poll_is_answered_with_a_message_that_is_there() {
    let site = start(limited(Limits {
        max_polls: 1,
        hold_time: Duration::from_secs(3600),
        ..Limits::default()
    }));
    let mut first = site.connect();
    first.send(&site.poll("", "\"a\"", "null"));
    site.waiting(1);
    site.publish("b", "m");
    let mut second = site.connect();
    let answer = second.ask(&site.poll("", "\"b\"", "null"));
    assert_eq!(answer.body, message("m", "b"));
}

#[test]
fn user_with_invented_names_of_clients_has_no_more_polls() {
    let site = start(limited(Limits {
        session_polls: 2,
        ..Limits::default()
    }));
    let poll = |login: usize| {
        let cookie = format!("Cookie: tryton_session=u{login}:1:t\r\n{JSON}");
        let body = format!("{{\"channels\":[\"client:{login}\"]}}");
        site.post(&cookie, &body)
    };
    let mut clients: Vec<_> = (0..2).map(|_| site.connect()).collect();
    for (login, client) in clients.iter_mut().enumerate() {
        client.send(&poll(login));
    }
    site.waiting(2);
    assert_eq!(site.connect().ask(&poll(3)).status, 429);
}

#[test]
fn poll_is_held_while_its_session_cannot_be_checked() {
    let site = start(limited(Limits {
        hold_time: Duration::from_millis(200),
        ..Limits::default()
    }));
    // admin:1:failed
    let failed = "Authorization: Session YWRtaW46MTpmYWlsZWQ=\r\n";
    let answer = site
        .connect()
        .ask(&site.post(&format!("{failed}{JSON}"), "{}"));
    assert_eq!((answer.status, &*answer.body), (200, EMPTY));
}

#[test]
fn idle_connection_makes_room_for_another() {
    let site = start(limited(Limits {
        max_connections: 4,
        ..Limits::default()
    }));
    let mut polling = site.connect();
    polling.send(&site.poll("", "\"client:x\"", "null"));
    site.waiting(1);
    let idle: Vec<_> = (0..20).map(|_| site.connect()).collect();
    let answer = site.connect().ask(&site.post(JSON, "{}"));
    assert_eq!(answer.status, 401);
    site.publish("client:x", "1");
    assert_eq!(polling.answer().body, message("1", "client:x"));
    drop(idle);
}

#[test]
fn client_with_the_last_place_may_send_its_request() {
    let in_time = (0..20).any(|_| is_last_one_served());
    assert!(in_time, "the machine is too busy");
}

/// Whether it was quick enough for the assertion, within half a second.
fn is_last_one_served() -> bool {
    let site = start(limited(Limits {
        max_connections: 2,
        ..Limits::default()
    }));
    let mut polling = site.connect();
    polling.send(&site.poll_of(0));
    site.waiting(1);
    let begun = Instant::now();
    let mut last = site.connect();
    // From here on the server looks for a place for the next one.
    while site.metric("trytond_bus_connections") == Some(1.0) {
        if begun.elapsed() > Duration::from_secs(1) {
            return false;
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let sent = last.stream.write_all(site.post(JSON, "{}").as_bytes());
    let in_time = begun.elapsed() < Duration::from_millis(300);
    if in_time {
        sent.expect("it is open");
        assert_eq!(last.answer().status, 401);
    }
    in_time
}

#[test]
fn slow_clients_are_given_up() {
    let site = start(limited(Limits {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        ..Limits::default()
    }));
    let poll = site.post(&format!("{GOOD}{JSON}"), "{}");
    // Nothing, a part of a head, and a request whose body does not come.
    for begin in ["", "POST ", &poll[..poll.len() - 30]] {
        let mut client = site.connect();
        client.send(begin);
        let begun = Instant::now();
        assert!(client.is_closed() || begin.len() > 5, "after {begin:?}");
        assert!(begun.elapsed() < Duration::from_secs(9));
    }
    let mut client = site.connect();
    client.send(&poll[..poll.len() - 1]);
    assert_eq!(client.answer().status, 400);
    assert!(client.is_closed());
}

#[test]
fn session_is_asked_for_once_and_bound_to_the_address() {
    let site = start(Config {
        num_proxies: 1,
        ..Config::default()
    });
    site.publish("user:1", "a");
    // admin:1:local
    let local = "Authorization: Session YWRtaW46MTpsb2NhbA==\r\n";
    let ask = |from: &str| {
        let headers = format!("{local}{JSON}X-Forwarded-For: {from}\r\n");
        site.connect().ask(&site.post(&headers, "{}")).status
    };
    for (from, status, asked) in [
        ("192.0.2.1", 200, 1),
        ("6.6.6.6, 192.0.2.1", 200, 1),
        ("192.0.2.2", 401, 2),
        // It is refused again without a question.
        ("192.0.2.2", 401, 2),
    ] {
        assert_eq!(ask(from), status, "from {from}");
        assert_eq!(site.sessions.asked.load(SeqCst), asked);
    }
    assert_eq!(
        site.metric("trytond_bus_session_cache_hits_total"),
        Some(1.0)
    );
}

#[test]
fn drain_without_a_client_is_over_at_once() {
    let site = start(Config {
        drain: Duration::from_secs(3600),
        ..Config::default()
    });
    // Neither does one hold it that was there before.
    let mut client = site.connect();
    site.publish("a", "1");
    client.ask(&site.poll("", "\"a\"", "null"));
    drop(client);
    site.comes_to("trytond_bus_connections", 0.0);
    site.server.drain();
    let ended = site.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
}

#[test]
fn drain_answers_a_thousand_polls_one_after_the_other() {
    // A machine that is busy with something else may be late.
    let in_time = (0..5).any(|_| are_answers_spread());
    assert!(in_time, "the turns are at the end");
}

/// Whether the first polls are answered long before the end of the drain.
fn are_answers_spread() -> bool {
    let site = start(Config {
        drain: Duration::from_secs(2),
        ..Config::default()
    });
    let mut clients: Vec<Client> = (0..1000)
        .map(|number| {
            let mut client = site.connect();
            client.send(&site.poll_of(number));
            client
        })
        .collect();
    site.waiting(1000);
    let begun = Instant::now();
    site.server.drain();
    let mut late = site.connect();
    while site.admin("/health/ready").status != 503 {}
    late.send(&site.poll("", "\"client:late\"", "null"));
    let mut in_time = true;
    // Their turns are spread over the time: never much earlier, and the first
    // ones not at the end.
    for (left, earliest, latest) in [
        (950, 0, 1000),
        (750, 400, 2000),
        (500, 900, 2000),
        (250, 1400, 2000),
    ] {
        #[expect(clippy::cast_lossless, reason = "they are few")]
        while site.metric("trytond_bus_polls_waiting") > Some(left as f64) {}
        let after = begun.elapsed().as_millis();
        assert!(after >= earliest, "{left} after {after} ms");
        in_time &= after <= latest;
    }
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.status, &*answer.body), (200, EMPTY));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed());
    }
    assert!(begun.elapsed() > Duration::from_millis(1500));
    let answer = late.answer();
    assert_eq!((answer.status, &*answer.body), (200, EMPTY));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let ended = site.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
    assert!(std::net::TcpStream::connect(site.address).is_err());
    in_time
}

#[test]
fn client_that_connected_before_the_end_is_answered() {
    // The server gives them half a second. On a busy machine this can take
    // longer, and then the test proves nothing.
    let in_time = (0..20).any(|_| are_late_requests_answered());
    assert!(in_time, "the machine is too busy");
}

#[test]
fn waiting_connection_is_accepted_at_the_end() {
    let site = start(Config {
        drain: Duration::ZERO,
        ..Config::default()
    });
    let mut clients: Vec<_> = (0..500).map(|_| site.connect()).collect();
    site.server.drain();
    let request = site.post(JSON, "{}");
    for client in &mut clients {
        client.send(&request);
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 401);
    }
    let ended = site.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
}

#[test]
fn clients_are_waited_for_at_the_end_as_long_as_some_of_them_end() {
    let in_time = (0..5).any(|_| are_slow_clients_answered());
    assert!(in_time, "the machine is too busy");
}

/// Whether it was quick enough for the assertion, because the server waits for
/// two seconds without an end.
fn are_slow_clients_answered() -> bool {
    let site = start(Config {
        drain: Duration::ZERO,
        ..Config::default()
    });
    let mut clients: Vec<_> = (0..4).map(|_| site.connect()).collect();
    site.comes_to("trytond_bus_connections", 4.0);
    let mut last = Instant::now();
    site.server.drain();
    while std::net::TcpStream::connect(site.address).is_ok() {}
    let request = site.post(JSON, "{}");
    for client in &mut clients {
        std::thread::sleep(Duration::from_secs(1).saturating_sub(last.elapsed()));
        let sent = client.stream.write_all(request.as_bytes());
        if last.elapsed() > Duration::from_millis(1500) {
            return false;
        }
        last = Instant::now();
        sent.expect("it is open");
        let answer = client.answer();
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // No client remains to wait for.
    let ended = site.server.wait(Duration::from_secs(1));
    ended.expect("it ends").expect("without an error");
    true
}

#[test]
fn silent_client_does_not_keep_the_server() {
    let site = start(Config {
        drain: Duration::ZERO,
        ..Config::default()
    });
    let mut silent = site.connect();
    site.comes_to("trytond_bus_connections", 1.0);
    site.server.drain();
    let ended = site.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
    assert!(silent.is_closed());
}

/// Whether it was quick enough to tell.
fn are_late_requests_answered() -> bool {
    let site = start(Config {
        drain: Duration::ZERO,
        ..Config::default()
    });
    let mut clients: Vec<_> = (0..2).map(|_| site.connect()).collect();
    // One that has had an answer before, and one that has sent nothing yet.
    assert_eq!(clients[0].ask(&site.post(JSON, "{}")).status, 401);
    site.comes_to("trytond_bus_connections", 2.0);
    let begun = Instant::now();
    site.server.drain();
    while std::net::TcpStream::connect(site.address).is_ok() {}
    let requests = site.post(JSON, "{}");
    let sent = clients
        .iter_mut()
        .all(|client| client.stream.write_all(requests.as_bytes()).is_ok());
    let in_time = begun.elapsed() < Duration::from_millis(300);
    if in_time {
        assert!(sent);
        for client in &mut clients {
            let answer = client.answer();
            assert_eq!(answer.status, 401);
            assert_eq!(answer.header("connection"), Some("close"));
        }
    }
    let ended = site.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
    in_time
}
