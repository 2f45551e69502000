//! Where one request ends and the next begins.
use super::*;

#[tokio::test]
async fn bytes_beyond_the_length_begin_the_next_request() {
    let mut wire = wire(Config::default(), 1 << 16);
    for channel in ["a", "b"] {
        wire.publish_name(channel);
    }
    let first = wire.poll("", "\"a\"");
    // The bytes after the second poll begin a third request.
    let second = wire.poll("", "\"b\"");
    wire.send(&format!("{first}{second}XX")).await;
    assert_eq!(wire.answer().await, good(message("a")));
    assert_eq!(wire.answer().await, good(message("b")));
    wire.send(" / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(wire.answer().await.0, "404");
    wire.send(&format!("{first}\0\r\n\r\n")).await;
    assert_eq!(wire.answer().await, good(message("a")));
    assert_eq!(wire.answer().await.0, "400");
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn request_is_not_smuggled_in_the_body_of_another() {
    for (headers, body, status) in [
        // Input that two servers could read differently is read in one way, and
        // then nothing more.
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
            "200",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
            "200",
        ),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "{}", "400"),
        ("Content-Length: 2, 3\r\n", "{}", "400"),
        ("Content-Length: +2\r\n", "{}", "400"),
        ("Content-Length: 0x2\r\n", "{}", "400"),
        ("Content-Length: -1\r\n", "{}", "400"),
        ("Content-Length:\r\n", "{}", "400"),
        ("Content-Length : 2\r\n", "{}", "400"),
        ("Content-Length: 18446744073709551617\r\n", "{}", "400"),
        ("X: y\r\n Content-Length: 2\r\n", "{}", "400"),
        ("Content-Length: 2\rX: y\r\n", "{}", "400"),
        ("Transfer-Encoding: gzip\r\n", "{}", "400"),
        ("Transfer-Encoding: chunked, gzip\r\n", "{}", "400"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "0\r\n\r\n",
            "400",
        ),
        ("Transfer-Encoding: chunked\r\n", "{}", "400"),
        ("Transfer-Encoding: chunked\r\n", "2\n{}\n0\n\n", "400"),
        ("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n", "400"),
        (
            "Transfer-Encoding: chunked\r\n",
            "fffffffffffffffff\r\n{}",
            "400",
        ),
        ("Transfer-Encoding: chunked\r\n", "2\r\n{}X", "400"),
    ] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.publish_name("user:1");
        let hidden = wire.poll("", "");
        let request = wire.request(headers, body);
        wire.send(&format!("{request}{hidden}")).await;
        assert_eq!(wire.answer().await.0, status, "{headers} {body}");
        assert_eq!(wire.rest().await, "", "{headers} {body}");
    }
}

#[tokio::test]
async fn length_that_is_told_twice_alike_is_one() {
    let mut wire = wire(Config::default(), 1 << 16);
    wire.publish_name("user:1");
    let request = wire.request("Content-Length: 2\r\nContent-Length: 2\r\n", "{}");
    for _ in 0..2 {
        wire.send(&request).await;
        assert_eq!(wire.answer().await, good(message("user:1")));
    }
}

#[tokio::test]
async fn refusals_by_hyper_are_counted() {
    let long = format!("X: {}\r\n", "x".repeat(20_000));
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{long}"), Some(431)),
        (
            "GET / HTTP/1.1\r\n".to_owned() + &"X: y\r\n".repeat(200),
            Some(431),
        ),
        ("\0\r\n\r\n".to_owned(), Some(400)),
        ("GET / HTTP/3.7\r\n\r\n".to_owned(), Some(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), None),
    ] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.send(&request).await;
        wire.send("\r\n").await;
        match status {
            Some(status) => {
                assert_eq!(wire.answer().await.0, status.to_string());
                assert_eq!(wire.rest().await, "");
                assert!(wire.answered(status), "{status}");
            }
            None => assert_eq!(wire.rest().await, ""),
        }
        assert_eq!(wire.answered(400), status == Some(400));
        drop(wire.client);
        soon(wire.serving).await.expect("no panic");
    }
}

#[tokio::test]
async fn head_and_get_are_refused_and_leave_nothing_behind() {
    let mut wire = wire(Config::default(), 1 << 16);
    wire.publish_name("a");
    let path = format!("/{}/bus", wire.database);
    for headers in ["\r\n", "Content-Length: 5\r\n\r\nPOST "] {
        wire.send(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{headers}"))
            .await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
        assert!(!head.contains("content-length: 0"), "{head}");
        for method in ["GET", "PUT", "DELETE", "PATCH", "TRACE", "FOO"] {
            wire.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}"))
                .await;
            assert_eq!(wire.answer().await.0, "405", "{method}");
        }
        wire.send(&wire.poll("", "\"a\"")).await;
        assert_eq!(wire.answer().await, good(message("a")));
    }
}

#[tokio::test]
async fn upgrade_and_connect_are_requests_like_others() {
    let mut wire = wire(Config::default(), 1 << 16);
    wire.publish_name("a");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for _ in 0..2 {
        wire.send(&wire.poll(upgrade, "\"a\"")).await;
        assert_eq!(wire.answer().await, good(message("a")));
    }
    wire.send("CONNECT x:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    assert_eq!(wire.answer().await.0, "404");
    wire.send(&wire.poll("", "\"a\"")).await;
    assert_eq!(wire.answer().await, good(message("a")));
}

#[tokio::test]
async fn old_clients_are_kept_only_if_they_ask() {
    for (connection, polls) in [("", 1), ("Connection: keep-alive\r\n", 3)] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.publish_name("a");
        let request = wire.poll(connection, "\"a\"");
        // Also without a host, which they may leave out.
        let request = request.replace("HTTP/1.1\r\nHost: x", "HTTP/1.0");
        for _ in 0..polls {
            wire.send(&request).await;
            let head = wire.head().await;
            assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
            assert_eq!(head.contains("connection: keep-alive"), polls > 1);
            let mut body = vec![0; message("a").len()];
            soon(wire.client.read_exact(&mut body)).await.expect("all");
            assert_eq!(body, message("a").into_bytes());
        }
        if polls == 1 {
            assert_eq!(wire.rest().await, "");
        }
    }
}
