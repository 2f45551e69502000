//! The page for administrators: its headers, and that it needs nothing from
//! elsewhere.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Client, Site, start};
use trytond_fastbus::server::Config;

fn ask(site: &Site, method: &str, path: &str) -> Client {
    let stream = TcpStream::connect(site.admin).expect("a connection");
    let mut client = Client::new(stream);
    client.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ));
    client
}

#[test]
fn page_is_sent_with_a_policy_and_not_stored() {
    let site = start(Config::default());
    for path in ["/", "/?x"] {
        let answer = ask(&site, "GET", path).answer();
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with("<!DOCTYPE html>"));
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        let policy = answer.header("content-security-policy").expect("a policy");
        let directives: Vec<_> = policy.split("; ").collect();
        for directive in [
            "default-src 'none'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(directives.contains(&directive), "{policy}");
        }
        assert!(policy.contains("script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("  "), "{policy}");
    }
    // The others are text, as before.
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    for path in ["/metrics", "/health/ready", "/page.html"] {
        let answer = ask(&site, "GET", path).answer();
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("content-security-policy"), None, "{path}");
    }
}

#[test]
fn page_may_only_be_read() {
    let site = start(Config::default());
    let length = ask(&site, "GET", "/").answer().body.len().to_string();
    let mut client = ask(&site, "HEAD", "/");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = format!("content-length: {length}\r\n");
    assert!(head.contains(&length), "{head}");
    let mut body = String::new();
    client.stream.read_to_string(&mut body).expect("an end");
    assert_eq!(body, "");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(&site, method, "/").answer();
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
    }
}

#[test]
fn page_needs_nothing_from_elsewhere() {
    let site = start(Config::default());
    let page = ask(&site, "GET", "/").answer().body;
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for word in [
        "http:", "https:", "ws:", "wss:", "url(", "@import", "src=", "import(",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    // The text behind them is a comment, and not the name of a host.
    for (place, _) in page.match_indices("//") {
        assert!(page[place..].starts_with("// "), "{:.40}", &page[place..]);
    }
    assert_eq!(page.matches("<link").count(), 1);
    assert!(page.contains("<link rel=\"icon\" href=\"data:"));
    assert!(page.contains("fetch('metrics'"));
}

#[test]
fn end_of_each_poll_is_counted_with_its_reason() {
    let site = start(Config {
        long_polling_timeout: Duration::from_secs(2),
        drain: Duration::ZERO,
        ..Config::default()
    });
    let ended = |reason: &str, number| {
        let name = format!("trytond_bus_polls_ended_total{{reason=\"{reason}\"}}");
        site.comes_to(&name, number);
    };
    let poll = |channel: &str| {
        let mut client = site.connect();
        client.send(&site.poll("", &format!("\"{channel}\""), "null"));
        site.waiting(1);
        client
    };
    for reason in ["message", "timeout", "client_gone", "drain", "session"] {
        // The metric exists before its first event.
        ended(reason, 0.0);
    }
    let mut client = poll("a");
    site.publish("a", "1");
    client.answer();
    ended("message", 1.0);
    client.send(&site.poll("", "\"b\"", "null"));
    client.answer();
    ended("timeout", 1.0);
    drop(poll("c"));
    ended("client_gone", 1.0);
    site.comes_to("trytond_bus_client_gone_seconds_count", 1.0);
}
