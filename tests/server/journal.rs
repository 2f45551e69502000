//! Polls of a database with a journal. They are not answered before the journal
//! was read.
use std::time::{Duration, Instant};

use trytond_fastbus::bus::Bus;
use trytond_fastbus::history::Bounds;
use trytond_fastbus::message::Message;
use trytond_fastbus::registry;
use trytond_fastbus::server::Config;

use crate::support::{EMPTY, Site, start};

fn site() -> (Site, Bus) {
    let history = Bounds {
        journal_timeout: Some(Duration::from_secs(3600)),
        ..Config::default().history
    };
    let site = start(Config {
        history,
        drain: Duration::from_millis(100),
        ..Config::default()
    });
    let bus = registry::current().open(&site.database, history);
    (site, bus)
}

/// Reads rows with these numbers, of a channel that each poll asks for.
fn look(bus: &Bus, numbers: &[u64]) {
    bus.begin_look();
    let message = |number: &u64| {
        let json = format!("{{\"message_id\":\"m{number}\"}}");
        let message = Message::new("c", &json).expect("a message");
        message.numbered(*number)
    };
    let process = registry::current();
    let messages = numbers.iter().map(message).collect();
    process.publish(bus, messages).expect("threads");
    process.end_look(bus).expect("threads");
}

fn id(body: &str) -> &str {
    let id = body.strip_prefix("{\"message\":{\"message_id\":\"");
    id.and_then(|rest| rest.split('"').next()).unwrap_or(body)
}

/// With and without a channel that says whose the poll is.
const ASKED: [&str; 2] = ["\"c\",\"client:x\"", "\"c\""];

#[test]
fn poll_waits_for_the_first_look() {
    for asked in ASKED {
        for (last, expected) in [("null", "m1"), ("\"m1\"", "m2"), ("\"m3\"", "m4")] {
            let (site, bus) = site();
            let mut client = site.connect();
            client.send(&site.poll("", asked, last));
            site.waiting(1);
            look(&bus, &[1, 2, 3]);
            look(&bus, &[4]);
            assert_eq!(id(&client.answer().body), expected, "{asked} after {last}");
        }
    }
}

#[test]
fn poll_with_an_unknown_message_waits_for_a_look() {
    for asked in ASKED {
        let (site, bus) = site();
        look(&bus, &[1]);
        let mut client = site.connect();
        client.send(&site.poll("", asked, "\"m2\""));
        site.waiting(1);
        // By notification, because the poll has to know the position of its
        // last message.
        look(&bus, &[2, 3]);
        assert_eq!(id(&client.answer().body), "m3", "{asked}");
        // An unknown last message gets the recent messages.
        let mut other = site.connect();
        let asked = asked.replace("client:x", "client:y");
        other.send(&site.poll("", &asked, "\"nowhere\""));
        site.waiting(1);
        look(&bus, &[]);
        assert_eq!(id(&other.answer().body), "m1", "{asked}");
    }
}

#[test]
fn poll_that_waits_for_a_look_leaves_and_ends_as_others_do() {
    let (site, _bus) = site();
    let gone = {
        let mut client = site.connect();
        client.send(&site.poll("", ASKED[0], "null"));
        site.waiting(1);
        client
    };
    drop(gone);
    site.waiting(0);
    let mut client = site.connect();
    client.send(&site.poll("", ASKED[0], "null"));
    site.waiting(1);
    let started = Instant::now();
    site.server.drain();
    assert_eq!(client.answer().body, EMPTY);
    assert!(started.elapsed() < Duration::from_secs(60));
}
