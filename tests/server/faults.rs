//! Clients that misbehave, beside good ones that must not notice them.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    AT_ONCE, Client, GOOD, JSON, Site, Stop, limited, message, start, until,
};
use trytond_fastbus::server::{Config, Limits};

/// A good client, which polls for messages that are ready.
fn ask(site: &Site) {
    let answer = site
        .connect()
        .ask(&site.post(&format!("{GOOD}{JSON}"), "{}"));
    assert_eq!(answer.body, message("a", "user:1"));
}

#[test]
fn clients_that_send_a_byte_at_a_time_cost_the_others_nothing() {
    let site = start(limited(Limits {
        header_timeout: Duration::from_secs(3),
        body_timeout: Duration::from_secs(3),
        ..Limits::default()
    }));
    site.publish("user:1", "a");
    let request = site.post(&format!("{GOOD}{JSON}"), &" ".repeat(200));
    let mut slow: Vec<Client> = (0..200).map(|_| site.connect()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        // A head whose one header does not end, and a body.
        let (head, length) = request.split_once("Content").expect("a length");
        let part = match number % 2 {
            0 => format!("{head}X: "),
            _ => format!("{head}Content{}", &length[..length.len() - 200]),
        };
        client.send(&part);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        // As long as the server takes them.
        scope.spawn(|| {
            use std::io::Write;
            let mut open: Vec<&TcpStream> =
                slow.iter().map(|client| &client.stream).collect();
            while !stop.load(Ordering::SeqCst) {
                open.retain_mut(|stream| stream.write_all(b"y").is_ok());
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // Good clients are served while all of these are connected.
        for _ in 0..10 {
            ask(&site);
        }
        assert!(site.metric("trytond_bus_connections") >= Some(200.0));
        site.comes_to("trytond_bus_connections", 0.0);
    });
    ask(&site);
}

#[test]
fn polls_of_many_that_go_at_once_end_at_once() {
    let site = start(Config::default());
    let mut clients: Vec<_> = (0..300)
        .map(|number| {
            let mut client = site.connect();
            client.send(&site.poll_of(number));
            client
        })
        .collect();
    site.waiting(300);
    for left in [200, 100, 0] {
        clients.truncate(left);
        site.waiting(left);
    }
    site.comes_to("trytond_bus_connections", 0.0);
    // None of them remains to get a message. Another poll does.
    let mut client = site.connect();
    client.send(&site.poll_of(7));
    site.waiting(1);
    site.publish("client:7", "a");
    assert_eq!(client.answer().body, message("a", "client:7"));
    site.comes_to("trytond_bus_delivered_total", 1.0);
}

/// A client whose poll has waited, and that is sent a message of this size
/// since then.
fn client_with(site: &Site, bytes: usize) -> (Client, Instant) {
    let mut client = site.connect();
    client.send(&site.poll_of(1));
    site.waiting(1);
    let text = "x".repeat(bytes);
    let json = format!("{{\"message_id\":1,\"text\":\"{text}\"}}");
    let begun = Instant::now();
    site.publish_json("client:1", &json);
    (client, begun)
}

#[test]
fn client_that_does_not_read_is_cut_and_its_message_kept() {
    let site = start(limited(Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    }));
    // More than both ends of a socket hold.
    let bytes = 16 << 20;
    let (_client, begun) = client_with(&site, bytes);
    site.comes_to("trytond_bus_connections", 0.0);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // It is known not to have arrived, so that the next poll gets it at once.
    let begun = Instant::now();
    let answer = site.connect().ask(&site.poll_of(1));
    assert!(answer.body.len() > bytes, "{}", answer.body.len());
    assert!(begun.elapsed() < AT_ONCE);
}

#[test]
fn slow_client_gets_a_large_message_as_long_as_it_reads() {
    let site = start(limited(Limits {
        write_timeout: Duration::from_millis(500),
        ..Limits::default()
    }));
    let bytes = 32 << 20;
    let (mut client, begun) = client_with(&site, bytes);
    // It takes longer than write_timeout in all, and no part of it does.
    let mut read = 0;
    let mut part = vec![0; 256 << 10];
    while read < bytes {
        read += client.stream.read(&mut part).expect("the message");
        if begun.elapsed() < Duration::from_millis(1500) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(begun.elapsed() > Duration::from_millis(500));
    site.comes_to("trytond_bus_delivered_total", 1.0);
}

#[test]
fn flood_of_bad_credentials_does_not_hold_up_good_ones() {
    let site = start(Config::default());
    site.publish("user:1", "a");
    // Each has another token, so trytond is asked for all of them.
    let mut bad: Vec<_> = (0..300)
        .map(|number| {
            let mut client = site.connect();
            let cookie = format!("Cookie: tryton_session=u:1:bad{number}\r\n{JSON}");
            client.send(&site.post(&cookie, "{}"));
            client
        })
        .collect();
    until("asked", || {
        site.sessions.asked.load(Ordering::SeqCst) >= 300
    });
    for number in 0..50 {
        // Sessions that are known, and new ones.
        ask(&site);
        let cookie = format!("Cookie: tryton_session=u:1:{number}\r\n{JSON}");
        let answer = site.connect().ask(&site.post(&cookie, "{}"));
        assert_eq!(answer.body, message("a", "user:1"));
    }
    // They are no polls, and go when their clients do.
    assert_eq!(site.metric("trytond_bus_polls_waiting"), Some(0.0));
    bad.clear();
    site.comes_to("trytond_bus_connections", 0.0);
}

#[test]
fn credentials_that_are_refused_are_asked_for_once() {
    let site = start(Config::default());
    site.publish("user:1", "a");
    let mut client = site.connect();
    for number in 0..500 {
        let cookie = format!("Cookie: tryton_session=u:{}:bad\r\n{JSON}", number % 50);
        let answer = client.ask(&site.post(&cookie, "{}"));
        assert_eq!(answer.status, 401);
    }
    assert_eq!(site.sessions.asked.load(Ordering::SeqCst), 50);
    ask(&site);
}

#[test]
fn session_that_ends_ends_its_polls() {
    let site = start(Config {
        session_cache: Duration::from_secs(1),
        ..Config::default()
    });
    let mut clients = [1, 2, 1].map(|user| {
        let mut client = site.connect();
        client.send(&site.poll_of(user));
        client
    });
    site.waiting(3);
    site.sessions.ended.lock().expect("no panic").push(1);
    for client in [0, 2] {
        let answer = clients[client].answer();
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").is_some());
    }
    // The other poll is not disturbed, and does not get a message for the
    // first.
    site.waiting(1);
    site.publish("client:2", "a");
    assert_eq!(clients[1].answer().body, message("a", "client:2"));
}
