//! The bus server over TLS.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::tls::{Files, TlsClient, trust, with_tls};
use crate::support::{EMPTY, JSON, Site, message, start};
use tokio_rustls::rustls::{HandshakeKind, version};
use trytond_fastbus::server::{Config, Limits};

/// Waits until this number of handshakes have failed.
fn failures(site: &Site, number: f64) {
    site.comes_to("trytond_bus_tls_failures_total", number);
}

#[test]
fn poll_is_answered_over_each_version() {
    let (files, certificate) = Files::new();
    let tls = Some(Arc::new(files.read().expect("a certificate")));
    let site = start(Config {
        tls,
        ..Config::default()
    });
    for version in [&version::TLS12, &version::TLS13] {
        for (asked, agreed) in [
            (&[][..], None),
            (&["http/1.1"], Some(&b"http/1.1"[..])),
            (&["spdy/3", "http/1.1"], Some(b"http/1.1")),
        ] {
            let config = trust(certificate.clone(), &[version], asked);
            let mut client = TlsClient::connect(&site, &config);
            assert_eq!(client.stream.conn.alpn_protocol(), agreed);
            let channel = format!("{version:?} {asked:?}").replace('"', "");
            client.send(&site.poll("", &format!("\"{channel}\""), "null"));
            site.waiting(1);
            site.publish(&channel, "1");
            assert_eq!(client.answer().body, message("1", &channel));
            let text = "x".repeat(1_000_000);
            site.publish_json(
                "b",
                &format!("{{\"message_id\":2,\"text\":\"{text}\"}}"),
            );
            let answer = client.ask(&site.poll("", "\"b\"", "null"));
            assert!(answer.body.contains(&text));
        }
    }
}

#[test]
fn polls_that_are_sent_at_once_are_all_answered() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    let channels: Vec<_> = (0..100).map(|number| format!("c{number}")).collect();
    let polls = channels
        .iter()
        .map(|channel| site.poll("", &format!("\"{channel}\""), "null"));
    let mut client = TlsClient::connect(&site, &trust);
    client.send(&polls.collect::<String>());
    for channel in &channels {
        site.waiting(1);
        site.publish(channel, channel);
        assert_eq!(client.answer().body, message(channel, channel));
    }
}

#[test]
fn client_that_goes_frees_its_poll_at_once() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    for sends_more in [false, true] {
        for says_so in [false, true] {
            let mut client = TlsClient::connect(&site, &trust);
            client.send(&site.poll("", "\"a\"", "null"));
            site.waiting(1);
            if sends_more {
                client.send(&site.poll("", "\"b\"", "null"));
            }
            if says_so {
                client.say_end();
            } else {
                let sock = &client.stream.sock;
                sock.shutdown(Shutdown::Write).expect("it is open");
            }
            site.waiting(0);
        }
    }
}

#[test]
fn drain_says_that_the_connection_ends() {
    let (config, trust) = with_tls(Config {
        drain: Duration::from_millis(100),
        ..Config::default()
    });
    let site = start(config);
    let mut client = TlsClient::connect(&site, &trust);
    client.send(&site.poll("", "\"a\"", "null"));
    site.waiting(1);
    site.server.drain();
    let answer = client.answer();
    assert_eq!((answer.status, &*answer.body), (200, EMPTY));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_told_of_the_end());
    drop(client);
    let ended = site.server.wait(Duration::from_secs(60));
    ended.expect("it ends").expect("without an error");
}

#[test]
fn slow_handshake_is_given_up() {
    let (config, trust) = with_tls(Config {
        limits: Limits {
            header_timeout: Duration::from_millis(300),
            ..Limits::default()
        },
        ..Config::default()
    });
    let site = start(config);
    let mut silent = site.connect();
    let begun = Instant::now();
    assert!(silent.is_closed());
    assert!(begun.elapsed() >= Duration::from_millis(300));
    failures(&site, 1.0);
    // A part of a record of a handshake, byte by byte.
    let mut slow = site.connect();
    let begun = Instant::now();
    for byte in [0x16, 3, 1, 1, 0, 1, 0, 0].iter().cycle() {
        std::thread::sleep(Duration::from_millis(20));
        if slow.stream.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(9));
    }
    failures(&site, 2.0);
    // And a client that completes the handshake but sends no request.
    assert!(TlsClient::connect(&site, &trust).is_closed());
}

#[test]
fn handshake_takes_a_place_and_makes_room() {
    let (config, trust) = with_tls(Config {
        limits: Limits {
            max_connections: 2,
            ..Limits::default()
        },
        ..Config::default()
    });
    let site = start(config);
    let silent: Vec<_> = (0..5).map(|_| site.connect()).collect();
    let begun = Instant::now();
    let answer = TlsClient::connect(&site, &trust).ask(&site.post(JSON, "{}"));
    assert_eq!(answer.status, 401);
    assert!(begun.elapsed() < Duration::from_secs(9));
    drop(silent);
}

#[test]
fn client_without_tls_gets_no_answer() {
    let (config, trust) = with_tls(Config::default());
    let site = start(config);
    let mut client = site.connect();
    client.send(&site.post(JSON, "{}"));
    let mut rest = Vec::new();
    // An alert, which begins with its kind, and perhaps a reset.
    let _ = client.stream.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest[0] == 0x15, "{rest:?}");
    failures(&site, 1.0);
    let answer = TlsClient::connect(&site, &trust).ask(&site.post(JSON, "{}"));
    assert_eq!(answer.status, 401);
}

#[test]
fn certificate_is_read_anew_for_connections_to_come() {
    let (files, old) = Files::new();
    let tls = Arc::new(files.read().expect("a certificate"));
    let site = start(Config {
        tls: Some(tls.clone()),
        ..Config::default()
    });
    let trust = |certificate| trust(certificate, &[&version::TLS13], &[]);
    let old = trust(old);
    let mut waiting = TlsClient::connect(&site, &old);
    waiting.send(&site.poll("", "\"a\"", "null"));
    site.waiting(1);

    let new = trust(files.renew());
    let key = std::fs::read(&files.key).expect("a key");
    std::fs::write(&files.key, "nonsense").expect("it is written");
    let error = tls.reload().expect_err("there is no key");
    assert!(error.contains("key.pem"), "{error}");
    // The old one stays.
    let mut client = TlsClient::connect(&site, &old);
    assert_eq!(client.ask(&site.post(JSON, "{}")).status, 401);

    std::fs::write(&files.key, key).expect("it is written");
    tls.reload().expect("both are good");
    let mut client = TlsClient::connect(&site, &new);
    assert_eq!(client.ask(&site.post(JSON, "{}")).status, 401);
    site.publish("a", "1");
    assert_eq!(waiting.answer().body, message("1", "a"));
}

#[test]
fn client_that_comes_back_needs_no_whole_handshake() {
    for version in [&version::TLS12, &version::TLS13] {
        let (files, certificate) = Files::new();
        let tls = Arc::new(files.read().expect("a certificate"));
        let site = start(Config {
            tls: Some(tls.clone()),
            ..Config::default()
        });
        let trust = trust(certificate, &[version], &[]);
        for kind in [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed,
        ] {
            let mut client = TlsClient::connect(&site, &trust);
            assert_eq!(client.ask(&site.post(JSON, "{}")).status, 401);
            assert_eq!(client.stream.conn.handshake_kind(), Some(kind));
            // Not even after that.
            tls.reload().expect("both are good");
        }
    }
}

#[test]
fn files_that_can_not_be_used_are_named() {
    let (good, _) = Files::new();
    let (other, _) = Files::new();
    let contents = |files: &Files| {
        let read = |path| std::fs::read_to_string(path).expect("it is there");
        (read(&files.certificate), read(&files.key))
    };
    let (certificate, key) = contents(&good);
    let (_, other_key) = contents(&other);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n\
        -----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n\
        MIIB\n-----END RSA PRIVATE KEY-----\n";
    let broken = certificate.replacen("\nMII", "\nM*I", 1);
    for (certificate, key, words) in [
        (&*certificate, "", &["key.pem'", "has no line"][..]),
        ("", &*key, &["certificate.pem'", "has no line"]),
        (&*key, &*key, &["certificate.pem'", "has no line"]),
        (&*broken, &*key, &["certificate.pem'"]),
        (
            &*certificate,
            &*other_key,
            &["key.pem' does not belong to", "certificate.pem'"],
        ),
        (&*certificate, encrypted, &["key.pem' is encrypted"]),
        (&*certificate, legacy, &["key.pem' is encrypted"]),
    ] {
        std::fs::write(&good.certificate, certificate).expect("it is written");
        std::fs::write(&good.key, key).expect("it is written");
        let error = good.read().expect_err("it is bad");
        for word in words {
            assert!(error.contains(word), "{word} in {error}");
        }
    }
    std::fs::remove_file(&good.certificate).expect("it is there");
    let error = good.read().expect_err("it is missing");
    assert!(error.contains("certificate.pem' cannot be read"), "{error}");
    // Both may be in one file.
    let both = certificate + &key;
    std::fs::write(&good.certificate, both).expect("it is written");
    trytond_fastbus::server::Tls::read(&good.certificate, &good.certificate)
        .expect("both are there");
}
