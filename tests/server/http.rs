//! The bus server over real sockets: the requests of clients, and the answers.

use std::net::Shutdown;
use std::time::Duration;

use crate::support::{EMPTY, GOOD, JSON, message, start};
use trytond_fastbus::registry;
use trytond_fastbus::server::Config;

#[test]
fn poll_gets_the_message_and_the_connection_is_kept() {
    let site = start(Config::default());
    let mut client = site.connect();
    let mut last = "null".to_owned();
    for id in ["a", "b", "c"] {
        client.send(&site.poll("", "\"client:x\",\"chat:1\"", &last));
        site.waiting(1);
        site.publish("chat:1", id);
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, message(id, "chat:1"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        last = format!("\"{id}\"");
    }
    // A message that is ready is answered at once, without a wait.
    site.publish("client:x", "d");
    let answer = client.ask(&site.poll("", "\"client:x\"", &last));
    assert_eq!(answer.body, message("d", "client:x"));
    site.comes_to("trytond_bus_replayed_total", 1.0);
    site.comes_to("trytond_bus_delivered_total", 4.0);
}

#[test]
fn notification_of_the_user_is_answered_on_the_clients_channel() {
    let site = start(Config::default());
    let json = r#"{"message_id":"n","type":"notification"}"#;
    site.publish_json("user:1", json);
    site.publish_json("user:2", r#"{"message_id":"o"}"#);
    let asked = "\"client:x\",\"user:2\",\"notification:2\"";
    let answer = site.connect().ask(&site.poll("", asked, "null"));
    let expected = format!("{{\"message\":{json},\"channel\":\"client:x\"}}");
    assert_eq!(answer.body, expected);
}

#[test]
fn each_fault_has_its_status() {
    let site = start(Config::default());
    let path = format!("/{}/bus", site.database);
    let poll = |headers: &str| site.post(headers, r#"{"channels":["client:x"]}"#);
    let bad = "Authorization: Session YWRtaW46MTpiYWQ=\r\n";
    let long = "x".repeat(70_000);
    let many = format!("{{\"channels\":[{}\"a\"]}}", "\"a\",".repeat(300));
    for (request, status, header) in [
        (
            poll(JSON),
            401,
            Some(("www-authenticate", "Basic realm=\"Tryton\"")),
        ),
        (poll(&format!("{JSON}{bad}")), 401, None),
        (
            poll(&format!("{JSON}{GOOD}Origin: https://evil\r\n")),
            403,
            None,
        ),
        (poll(&format!("{JSON}{GOOD}Origin: null\r\n")), 403, None),
        (poll(GOOD), 415, None),
        (
            poll(&format!("{GOOD}Content-Type: text/plain\r\n")),
            415,
            None,
        ),
        (site.post(&format!("{GOOD}{JSON}"), "{"), 400, None),
        (site.post(&format!("{GOOD}{JSON}"), "[]"), 400, None),
        (site.post(&format!("{GOOD}{JSON}"), &many), 400, None),
        (site.post(&format!("{GOOD}{JSON}"), &long), 413, None),
        (
            format!("POST {path} HTTP/1.1\r\nHost: bus\r\n{GOOD}{JSON}\r\n"),
            411,
            None,
        ),
        (
            format!(
                "POST {path} HTTP/1.1\r\n{GOOD}{JSON}Content-Length: 2\r\n\r\n{{}}"
            ),
            400,
            None,
        ),
        (
            site.post(&format!("Host: other\r\n{GOOD}{JSON}"), "{}"),
            400,
            None,
        ),
        (
            format!("GET {path} HTTP/1.1\r\nHost: bus\r\n\r\n"),
            405,
            Some(("allow", "OPTIONS, POST")),
        ),
        (
            format!("PUT {path} HTTP/1.1\r\nHost: bus\r\nContent-Length: 0\r\n\r\n"),
            405,
            None,
        ),
        ("GET / HTTP/1.1\r\nHost: bus\r\n\r\n".into(), 404, None),
        (
            format!(
                "POST /unknown/bus HTTP/1.1\r\nHost: bus\r\n{GOOD}{JSON}Content-Length: 2\r\n\r\n{{}}"
            ),
            404,
            None,
        ),
        (
            format!(
                "POST {path} HTTP/1.1\r\nHost: bus\r\nX: {}\r\n\r\n",
                "x".repeat(40_000)
            ),
            431,
            None,
        ),
        ("garbage\r\n\r\n".into(), 400, None),
    ] {
        let answer = site.connect().ask(&request);
        let start = &request[..request.len().min(80)];
        assert_eq!(answer.status, status, "{start}: {answer:?}");
        if let Some((name, value)) = header {
            assert_eq!(answer.header(name), Some(value), "{start}");
        }
    }
    let mut client = site.connect();
    client.send(&format!("HEAD {path} HTTP/1.1\r\nHost: bus\r\n\r\n"));
    assert!(client.head().starts_with("HTTP/1.1 405"));
    // The connection continues after errors.
    for _ in 0..3 {
        assert_eq!(client.ask(&poll(JSON)).status, 401);
    }
}

#[test]
fn only_a_bus_that_is_off_says_that_it_is_not_implemented() {
    let site = start(Config {
        allow_subscribe: false,
        ..Config::default()
    });
    let answer = site
        .connect()
        .ask(&site.poll("Origin: http://bus:1\r\n", "", "null"));
    assert_eq!(answer.status, 501);
    let origin = answer.header("access-control-allow-origin");
    assert_eq!(origin, Some("http://bus:1"));
}

#[test]
fn browsers_get_the_headers_that_they_need() {
    let site = start(Config {
        cors: vec!["https://sao.example.com".into()],
        ..Config::default()
    });
    site.publish("user:1", "a");
    let origin = "Origin: https://sao.example.com\r\n";
    let cookie = "Cookie: a=b; tryton_session=\"j\\303\\251r:1:t\"\r\n";
    let preflight = format!(
        "OPTIONS /{}/bus HTTP/1.1\r\nHost: bus:1\r\n{origin}Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: content-type, authorization\r\n\r\n",
        site.database
    );
    let mut client = site.connect();
    let answer = client.ask(&preflight);
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    let headers = answer.header("access-control-allow-headers");
    assert_eq!(headers, Some("content-type, authorization"));
    assert!(answer.header("access-control-max-age").is_some());
    for (request, status) in [
        (preflight.clone(), 204),
        (site.post(&format!("{JSON}{origin}{cookie}"), "{}"), 200),
        (site.post(&format!("{JSON}{origin}"), "{}"), 401),
        (site.post(&format!("{cookie}{origin}"), "{}"), 415),
    ] {
        let answer = client.ask(&request);
        assert_eq!(answer.status, status);
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://sao.example.com"));
        let credentials = answer.header("access-control-allow-credentials");
        assert_eq!(credentials, Some("true"));
        assert_eq!(answer.header("vary"), Some("origin"));
        assert_eq!(answer.header("www-authenticate"), None);
    }
    let refused = client.ask(&preflight.replace("sao.", "evil."));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    let same = "X-Requested-With: XMLHttpRequest\r\n";
    let answer = client.ask(&site.post(&format!("{JSON}{same}"), "{}"));
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, None)
    );
}

#[test]
fn path_may_have_two_slashes_and_be_encoded() {
    let site = start(Config::default());
    site.publish("user:1", "a");
    let encoded = site.database.replace("db", "%64%62");
    for path in [
        format!("/{}//bus", site.database),
        format!("/{encoded}/bus"),
    ] {
        let request = site.poll("", "", "null");
        let request = request.replace(&format!("/{}/bus", site.database), &path);
        assert_eq!(site.connect().ask(&request).body, message("a", "user:1"));
    }
}

#[test]
fn both_versions_of_http_are_kept_or_closed_as_asked() {
    let site = start(Config::default());
    site.publish("user:1", "a");
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
    ] {
        let request = site.poll(connection, "", "null");
        let request = request.replace("HTTP/1.1", &format!("HTTP/{version}"));
        let mut client = site.connect();
        for _ in 0..if kept { 3 } else { 1 } {
            let answer = client.ask(&request);
            assert!(answer.head.starts_with(&format!("HTTP/{version} 200")));
            assert_eq!(answer.body, message("a", "user:1"));
        }
        assert!(kept || client.is_closed());
    }
}

#[test]
fn pipelined_polls_are_answered_in_their_order() {
    let site = start(Config::default());
    let mut client = site.connect();
    let polls: String = (0..20)
        .map(|number| site.poll("", &format!("\"c{number}\""), "null"))
        .collect();
    let (first, rest) = polls.split_at(polls.len() / 2 + 7);
    client.send(first);
    for number in 0..20 {
        site.waiting(1);
        if number == 3 {
            client.send(rest);
        }
        let channel = format!("c{number}");
        site.publish(&channel, &channel);
        assert_eq!(client.answer().body, message(&channel, &channel));
    }
}

#[test]
fn client_that_expects_to_continue_is_told_to() {
    let site = start(Config::default());
    site.publish("user:1", "a");
    let mut client = site.connect();
    for _ in 0..2 {
        let request = site.poll("Expect: 100-continue\r\n", "", "null");
        let (head, body) = request.split_once("\r\n\r\n").expect("a body");
        client.send(&format!("{head}\r\n\r\n"));
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(client.ask(body).body, message("a", "user:1"));
    }
    // An oversized body is refused before it is sent.
    let long = site.post(
        &format!("{GOOD}{JSON}Expect: 100-continue\r\n"),
        &"x".repeat(70_000),
    );
    let (head, _) = long.split_once("\r\n\r\n").expect("a body");
    assert_eq!(client.ask(&format!("{head}\r\n\r\n")).status, 413);
}

#[test]
fn body_in_chunks_is_read() {
    let site = start(Config::default());
    site.publish("user:1", "a");
    let mut client = site.connect();
    client.send(&format!(
        "POST /{}/bus HTTP/1.1\r\nHost: x\r\n{GOOD}{JSON}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n",
        site.database
    ));
    let answer = client.ask("1\r\n}\r\n0\r\nX: y\r\n\r\n");
    assert_eq!(answer.body, message("a", "user:1"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn poll_of_a_client_that_has_gone_ends_at_once() {
    let site = start(Config::default());
    let mut clients: Vec<_> = (0..300).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.send(
            &site
                .poll("", "\"a\"", "null")
                .replace("YWRtaW46MTpnb29k", "YWRtaW46MTpvdGhlcg=="),
        );
    }
    site.waiting(100);
    drop(clients);
    site.waiting(0);
    let mut client = site.connect();
    client.send(&site.poll("", "\"a\"", "null"));
    site.waiting(1);
    client.stream.shutdown(Shutdown::Write).expect("it is open");
    site.waiting(0);
    assert!(client.is_closed());
}

#[test]
fn poll_ends_empty_at_its_time() {
    let site = start(Config {
        long_polling_timeout: Duration::from_millis(50),
        ..Config::default()
    });
    let mut client = site.connect();
    for _ in 0..3 {
        assert_eq!(
            client.ask(&site.poll("", "\"client:x\"", "null")).body,
            EMPTY
        );
    }
    site.waiting(0);
}

#[test]
fn administrators_see_the_state() {
    let site = start(Config::default());
    let bus = registry::current().open(&site.database, Config::default().history);
    let listening = format!("trytond_bus_listening{{database=\"{}\"}}", site.database);
    assert_eq!(site.metric(&listening), Some(0.0));
    bus.connected();
    assert_eq!(site.metric(&listening), Some(1.0));
    bus.disconnected();
    assert_eq!(site.metric(&listening), Some(0.0));
    let published = format!(
        "trytond_bus_published_total{{database=\"{}\"}}",
        site.database
    );
    for id in 0..3 {
        site.publish("a", &id.to_string());
    }
    assert_eq!(site.metric(&published), Some(3.0));
    // A counter does not decrease when its bus is made anew between two looks.
    assert!(registry::current().remove(&site.database, Duration::ZERO));
    site.publish("a", "3");
    assert_eq!(site.metric(&published), Some(4.0));
    // Nothing is shown of a database that is forgotten.
    assert!(registry::current().remove(&site.database, Duration::ZERO));
    assert_eq!(site.metric(&published), None);
    for (path, status) in [
        ("/metrics", 200),
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/other", 404),
    ] {
        assert_eq!(site.admin(path).status, status, "{path}");
    }
}
