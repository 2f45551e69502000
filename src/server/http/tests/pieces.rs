//! Requests and answers that come in pieces.
use super::*;

#[tokio::test]
async fn continue_that_is_not_written_yet_is_not_lost() {
    for is_there_before in [false, true] {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.close_gate();
        let request = wire.poll("Expect: 100-continue\r\n", "\"a\"");
        let (head, body) = request.split_once("\r\n\r\n").expect("a body");
        wire.send(&format!("{head}\r\n\r\n")).await;
        settle().await;
        wire.send(body).await;
        settle().await;
        // The poll can't wait yet, because hyper still has output to write.
        assert_eq!(wire.polls(), 0);
        if is_there_before {
            wire.publish_name("a");
        }
        wire.open_gate();
        assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        if !is_there_before {
            wire.waiting(1).await;
            wire.publish_name("a");
        }
        assert_eq!(wire.answer().await, good(message("a")));
        wire.publish_name("b");
        wire.send(&wire.poll("", "\"b\"")).await;
        assert_eq!(wire.answer().await, good(message("b")));
    }
}

#[tokio::test]
async fn answer_is_whole_however_little_is_taken_at_a_time() {
    let mut wire = wire(Config::default(), 7);
    wire.close_gate();
    let text = "x".repeat(10_000);
    wire.publish("a", &format!("{{\"message_id\":1,\"text\":\"{text}\"}}"));
    wire.send(&wire.poll("", "\"a\"")).await;
    settle().await;
    wire.open_gate();
    let (status, body) = wire.answer().await;
    assert_eq!(status, "200");
    let expected = format!(
        "{{\"message\":{{\"message_id\":1,\"text\":\"{text}\"}},\"channel\":\"a\"}}"
    );
    assert!(body == expected, "{} bytes", body.len());
}

#[tokio::test]
async fn requests_may_be_split_at_every_byte() {
    let mut wire = wire(Config::default(), 1 << 16);
    for channel in ["a", "b"] {
        wire.publish_name(channel);
    }
    // The second is found with the first, or arrives while that is answered.
    let all = [
        wire.poll("", "\"a\""),
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        wire.poll("", "\"b\""),
    ]
    .concat();
    for at in 1..all.len() {
        wire.send(&all[..at]).await;
        settle().await;
        wire.send(&all[at..]).await;
        assert_eq!(wire.answer().await, good(message("a")), "at {at}");
        assert_eq!(wire.answer().await.0, "404", "at {at}");
        assert_eq!(wire.answer().await, good(message("b")), "at {at}");
    }
    for byte in all.chars() {
        wire.send(byte.encode_utf8(&mut [0; 4])).await;
        settle().await;
    }
    assert_eq!(wire.answer().await, good(message("a")));
    assert_eq!(wire.answer().await.0, "404");
    assert_eq!(wire.answer().await, good(message("b")));
}

#[tokio::test]
async fn chunks_may_be_split_at_every_byte() {
    let headers = "Transfer-Encoding: chunked\r\n";
    let body = "c\r\n{\"channels\":\r\n5;x=y\r\n[\"b\"]\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n";
    for at in 1.. {
        let mut wire = wire(Config::default(), 1 << 16);
        wire.publish_name("b");
        let request = wire.request(headers, body);
        if at == request.len() {
            break;
        }
        wire.send(&request[..at]).await;
        settle().await;
        wire.send(&request[at..]).await;
        assert_eq!(wire.answer().await, good(message("b")), "at {at}");
    }
}
