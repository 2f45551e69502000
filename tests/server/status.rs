//! Every status of the bus server: where it belongs, and that pages may read
//! it.

use std::collections::BTreeSet;
use std::io::Read;

use crate::support::{GOOD, JSON, Site, message, start};
use trytond_fastbus::server::{Config, Limits};

const PAGE: &str = "https://sao.example.com";

/// The whole output of the server until it closes: the lines of the head, and
/// the body.
fn ask(site: &Site, request: &str) -> (Vec<String>, String) {
    let mut client = site.connect();
    client.send(request);
    let mut answer = String::new();
    client.stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().map(str::to_owned).collect(), body.to_owned())
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let mut values = head.iter().filter_map(|line| {
        let (found, value) = line.split_once(": ")?;
        (found == name).then_some(value)
    });
    let value = values.next();
    assert_eq!(values.next(), None, "{name} is there twice");
    value
}

fn site(allow_subscribe: bool) -> Site {
    let limits = Limits {
        session_polls: 1,
        ..Limits::default()
    };
    start(Config {
        allow_subscribe,
        cors: vec![PAGE.into()],
        limits,
        ..Config::default()
    })
}

#[test]
fn each_status_is_answered_where_it_belongs_and_pages_may_read_it() {
    let (on, off) = (site(true), site(false));
    on.publish("user:1", "a");
    let mut waiting = on.connect();
    waiting.send(&on.poll_of(9));
    on.waiting(1);
    let bad = "Authorization: Session YWRtaW46MTpiYWQ=\r\n";
    let path = format!("/{}/bus", on.database);
    let request = |method: &str, path: &str, headers: &str, body: &str| {
        let length = if method == "POST" || !body.is_empty() {
            format!("Content-Length: {}\r\n", body.len())
        } else {
            String::new()
        };
        (
            format!("{method} {path} HTTP/1.1\r\nHost: bus:1\r\n{headers}{length}"),
            body.to_owned(),
        )
    };
    let post = |headers: &str, body: &str| request("POST", &path, headers, body);
    let poll = |body: &str| post(&format!("{GOOD}{JSON}"), body);
    let other = |path: &str| request("POST", path, &format!("{GOOD}{JSON}"), "{}");
    let without_length = (
        format!("POST {path} HTTP/1.1\r\nHost: bus:1\r\n{GOOD}{JSON}"),
        String::new(),
    );
    let no_host = {
        let (head, body) = poll("{}");
        (head.replace("Host: bus:1\r\n", ""), body)
    };
    let ninth = on.poll_of(9);
    let (head, body) = ninth.split_once("\r\n\r\n").expect("a body");
    let ninth = (format!("{head}\r\n"), body.to_owned());
    let preflight = "Access-Control-Request-Method: POST\r\n";
    let many = format!("{{\"channels\":[{}\"a\"]}}", "\"a\",".repeat(300));
    let long = format!("{{\"channels\":[\"{}\"]}}", "a".repeat(300));
    let mut seen = BTreeSet::new();
    for (site, (head, body), status) in [
        (&on, poll("{}"), 200),
        (&on, request("OPTIONS", &path, preflight, ""), 204),
        (&on, request("OPTIONS", &path, "", ""), 204),
        (&off, request("OPTIONS", &path, preflight, ""), 204),
        (&on, poll("{"), 400),
        (&on, poll("[]"), 400),
        (&on, poll("{\"channels\":[1]}"), 400),
        (&on, poll(&many), 400),
        (&on, poll(&long), 400),
        (&on, poll("{\"a\":\"\u{0}\"}"), 400),
        (&on, no_host, 400),
        (&on, post(JSON, "{}"), 401),
        (&on, post(&format!("{JSON}{bad}"), "{}"), 401),
        (&on, post(&format!("{JSON}{bad}"), "{"), 401),
        (&on, other("/"), 404),
        (&on, other("/unknown/bus"), 404),
        (&on, other(&format!("{path}/")), 404),
        (&on, other(&format!("{path}s")), 404),
        (&off, other("/"), 404),
        (&on, request("GET", &path, "", ""), 405),
        (&on, request("PUT", &path, "", "{}"), 405),
        (&off, request("GET", &path, "", ""), 405),
        (&on, without_length, 411),
        (&on, poll(&" ".repeat(70_000)), 413),
        (&on, post(GOOD, "{}"), 415),
        (
            &on,
            post(&format!("{GOOD}Content-Type: text/plain\r\n"), "{}"),
            415,
        ),
        (&on, ninth, 429),
        (&off, poll("{}"), 501),
    ] {
        seen.insert(status);
        let has_host = head.contains("Host");
        for (from, origin) in [
            (String::new(), None),
            (format!("Origin: {PAGE}\r\n"), Some(PAGE)),
            ("Origin: http://bus:1\r\n".to_owned(), Some("http://bus:1")),
            ("X-Requested-With: XMLHttpRequest\r\n".to_owned(), None),
        ] {
            // Without a host no origin is its own.
            if has_host || origin != Some("http://bus:1") {
                let request = format!("{head}{from}Connection: close\r\n\r\n{body}");
                let (head, body) = ask(site, &request);
                let context = format!("{head:?} to {request:.300}");
                check(&head, &body, status, origin, &context);
                let challenge = (status == 401 && from.is_empty())
                    .then_some("Basic realm=\"Tryton\"");
                assert_eq!(header(&head, "www-authenticate"), challenge, "{context}");
            }
        }
    }
    check_without_origin(&on, &path, &mut seen);
    let all = [
        200, 204, 400, 401, 403, 404, 405, 411, 413, 415, 429, 431, 501,
    ];
    assert_eq!(seen, BTreeSet::from(all));
    // Each was counted, and nothing else; the poll still waits.
    for status in all.into_iter().filter(|status| *status != 501) {
        let name = format!("trytond_bus_requests_total{{status=\"{status}\"}}");
        assert!(on.metric(&name) > Some(0.0), "{status}");
    }
    assert!(!on.admin("/metrics").body.contains("status=\"5"));
    assert_eq!(on.metric("trytond_bus_polls_waiting"), Some(1.0));
}

/// Whether an answer is complete and has the headers that pages of `origin`
/// need.
fn check(
    head: &[String],
    body: &str,
    status: u16,
    origin: Option<&str>,
    context: &str,
) {
    let get = |name| header(head, name);
    assert!(
        head[0].starts_with(&format!("HTTP/1.1 {status} ")),
        "{context}"
    );
    assert_eq!(get("access-control-allow-origin"), origin, "{context}");
    let credentials = origin.map(|_| "true");
    assert_eq!(get("access-control-allow-credentials"), credentials);
    assert_eq!(get("vary"), Some("origin"), "{context}");
    assert_eq!(get("connection"), Some("close"), "{context}");
    assert_eq!(get("cache-control"), Some("no-store"), "{context}");
    assert!(get("date").is_some_and(|date| date.ends_with(" GMT")));
    let allow = (status == 405).then_some("OPTIONS, POST");
    assert_eq!(get("allow"), allow, "{context}");
    let methods = (status == 204).then_some("POST");
    assert_eq!(get("access-control-allow-methods"), methods);
    let length = (status != 204).then(|| body.len().to_string());
    assert_eq!(get("content-length"), length.as_deref(), "{context}");
    match status {
        200 => assert_eq!(body, message("a", "user:1")),
        204 => assert_eq!(body, ""),
        _ => assert!(!body.is_empty(), "{context}"),
    }
}

/// A page that may not poll must not read its answer. Input that is no request
/// comes from no page.
fn check_without_origin(site: &Site, path: &str, seen: &mut BTreeSet<u16>) {
    let poll = |headers: &str| {
        site.post(&format!("{GOOD}{JSON}Connection: close\r\n{headers}"), "{}")
    };
    let head = |method: &str, headers: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: bus:1\r\nConnection: close\r\n{headers}\r\n"
        )
    };
    let long = format!("Origin: {PAGE}\r\nX: {}\r\n", "x".repeat(40_000));
    for (request, status) in [
        (poll("Origin: https://evil\r\n"), 403),
        (poll("Origin: null\r\n"), 403),
        (head("OPTIONS", "Origin: https://evil\r\n"), 403),
        (head("GET", &long), 431),
        ("garbage\r\n\r\n".to_owned(), 400),
    ] {
        seen.insert(status);
        let (head, body) = ask(site, &request);
        assert!(
            head[0].starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:?}"
        );
        assert_eq!(header(&head, "access-control-allow-origin"), None);
        assert_eq!(header(&head, "www-authenticate"), None);
        let length = body.len().to_string();
        assert_eq!(header(&head, "content-length"), Some(&*length));
    }
}
