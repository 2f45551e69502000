//! The chats of a poll, as far as its user may follow them.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{EMPTY, GOOD, JSON, Site, message, post, start};
use trytond_fastbus::server::{Config, Limits};

const CHATS: &str = r#""client:x","chat:a,1","chat:a,2""#;

fn checked(session_cache: u64) -> Config {
    Config {
        check_access: true,
        session_cache: Duration::from_secs(session_cache),
        limits: Limits {
            hold_time: Duration::from_millis(300),
            ..Limits::default()
        },
        ..Config::default()
    }
}

fn let_read(site: &Site, chats: Option<Vec<&'static str>>) {
    *site.sessions.readable.lock().expect("no panic") = chats;
}

fn questions(site: &Site) -> Vec<(u32, Vec<Box<str>>)> {
    let questions = site.sessions.questions.lock().expect("no panic");
    let words = questions.iter().map(|asked| {
        assert_eq!(*asked.database, *site.database);
        let mut chats = asked.chats.clone();
        chats.sort_unstable();
        (asked.user, chats)
    });
    words.collect()
}

/// The answer to a poll for the chats, after a message in each of them and
/// then one to the client.
fn answer(site: &Site, headers: &str, id: &str) -> String {
    site.publish("chat:a,1", &format!("1-{id}"));
    site.publish("chat:a,2", &format!("2-{id}"));
    site.publish("client:x", id);
    let body = format!("{{\"channels\":[{CHATS}]}}");
    site.connect().ask(&site.post(headers, &body)).body
}

#[test]
fn chat_is_followed_by_users_with_access_and_the_answer_cached() {
    let site = start(checked(30));
    let_read(&site, Some(vec!["chat:a,2"]));
    let poll = |last: &str| site.connect().ask(&site.poll("", CHATS, last)).body;
    for (channel, id) in [("chat:a,1", "a"), ("chat:a,2", "b"), ("client:x", "c")] {
        site.publish(channel, id);
    }
    // It is found neither in the history nor after an acknowledged message.
    assert_eq!(poll("null"), message("b", "chat:a,2"));
    let_read(&site, Some(vec!["chat:a,1"]));
    assert_eq!(poll("\"b\""), message("c", "client:x"));
    site.publish("chat:a,1", "d");
    site.publish("chat:a,2", "e");
    assert_eq!(poll("\"c\""), message("e", "chat:a,2"));
    let asked = vec!["chat:a,1".into(), "chat:a,2".into()];
    assert_eq!(questions(&site), [(1, asked)]);
}

#[test]
fn message_that_comes_while_a_poll_waits_is_not_shown_to_others() {
    let site = start(checked(30));
    let_read(&site, Some(vec!["chat:a,2"]));
    let mut client = site.connect();
    client.send(&site.poll("", CHATS, "null"));
    site.waiting(1);
    site.publish("chat:a,1", "a");
    site.publish("chat:a,2", "b");
    assert_eq!(client.answer().body, message("b", "chat:a,2"));
}

#[test]
fn answer_counts_for_its_user_only() {
    let site = start(checked(30));
    let_read(&site, Some(vec!["chat:a,1"]));
    let first = format!("{GOOD}{JSON}");
    assert_eq!(answer(&site, &first, "a"), message("1-a", "chat:a,1"));
    let_read(&site, Some(vec![]));
    // other:2:good
    let other = format!("Authorization: Session b3RoZXI6Mjpnb29k\r\n{JSON}");
    assert_eq!(answer(&site, &other, "b"), message("a", "client:x"));
}

#[test]
fn answer_that_is_not_remembered_is_asked_for_again() {
    let site = start(checked(0));
    let_read(&site, Some(vec!["chat:a,1"]));
    let headers = format!("{GOOD}{JSON}");
    assert_eq!(answer(&site, &headers, "a"), message("1-a", "chat:a,1"));
    let_read(&site, Some(vec![]));
    let poll = site.poll("", CHATS, "\"1-a\"");
    assert_eq!(site.connect().ask(&poll).body, message("a", "client:x"));
    assert_eq!(questions(&site).len(), 2);
}

#[test]
fn poll_is_held_while_access_cannot_be_checked() {
    let site = start(checked(30));
    site.publish("client:x", "a");
    let begun = Instant::now();
    let poll = site.poll("", CHATS, "null");
    assert_eq!(site.connect().ask(&poll).body, EMPTY);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // It was not cached.
    let_read(&site, Some(vec![]));
    assert_eq!(site.connect().ask(&poll).body, message("a", "client:x"));
    site.waiting(0);
}

#[test]
fn poll_that_is_held_goes_on_once_access_can_be_checked() {
    let mut config = checked(30);
    config.limits.hold_time = Duration::from_secs(20);
    let site = start(config);
    site.publish("chat:a,1", "a");
    let mut client = site.connect();
    client.send(&site.poll("", CHATS, "null"));
    while questions(&site).is_empty() {
        thread::yield_now();
    }
    let_read(&site, Some(vec!["chat:a,1"]));
    assert_eq!(client.answer().body, message("a", "chat:a,1"));
}

#[test]
fn client_that_goes_away_while_it_is_held_is_forgotten() {
    let mut config = checked(30);
    config.limits.hold_time = Duration::from_secs(1000);
    let site = start(config);
    let mut client = site.connect();
    client.send(&site.poll("", CHATS, "null"));
    site.waiting(1);
    drop(client);
    site.waiting(0);
}

#[test]
fn nothing_is_asked_without_chats_or_without_the_option() {
    let site = start(checked(30));
    site.publish("client:x", "a");
    let poll = site.poll("", r#""client:x","chat:","chat:a,-1""#, "null");
    assert_eq!(site.connect().ask(&poll).body, message("a", "client:x"));
    assert!(questions(&site).is_empty());

    let site = start(Config::default());
    site.publish("chat:a,1", "a");
    let poll = site.poll("", CHATS, "null");
    assert_eq!(site.connect().ask(&poll).body, message("a", "chat:a,1"));
    assert!(questions(&site).is_empty());
}

#[test]
fn database_whose_modules_are_loaded_holds_up_no_other() {
    let site = start(Config {
        limits: Limits {
            hold_time: Duration::from_secs(60),
            ..Limits::default()
        },
        ..checked(30)
    });
    let_read(&site, Some(vec!["chat:a,1"]));
    let body = format!("{{\"channels\":[{CHATS}]}}");
    let headers = format!("{GOOD}{JSON}");
    // More polls of each than there may be questions at a time
    let mut held = Vec::new();
    for database in ["loading1", "loading2", "loading3"] {
        for _ in 0..8 {
            let mut client = site.connect();
            client.send(&post(database, &headers, &body));
            held.push(client);
        }
    }
    site.waiting(held.len());
    assert_eq!(answer(&site, &headers, "a"), message("1-a", "chat:a,1"));
    let questions = site.sessions.questions.lock().expect("no panic");
    assert_eq!(questions.len(), 4);
}
