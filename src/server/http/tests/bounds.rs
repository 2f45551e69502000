//! Clients that leave, that send ahead, or that are slow.
use super::*;

#[tokio::test]
async fn client_that_goes_while_it_waits_frees_its_poll_at_once() {
    // Also one that has sent more meanwhile, at once or bit by bit.
    for (times, more) in [(0, ""), (1, "POST"), (1, "whole"), (40, "G"), (3, "whole")] {
        let mut wire = wire(Config::default(), 1 << 16);
        let poll = wire.poll("", "\"a\"");
        wire.send(&poll).await;
        wire.waiting(1).await;
        for _ in 0..times {
            wire.send(if more == "whole" { &poll } else { more }).await;
            settle().await;
        }
        assert_eq!(wire.polls(), 1);
        drop(wire.client);
        let app = wire.app;
        soon(wire.serving).await.expect("no panic");
        assert_eq!(app.polls_waiting(), 0);
    }
}

#[tokio::test]
async fn bytes_that_arrive_during_a_wait_are_kept_and_bounded() {
    let mut wire = wire(Config::default(), 256);
    wire.send(&wire.poll("", "\"a\"")).await;
    wire.waiting(1).await;
    let polls: Vec<_> = (0..200)
        .map(|number| wire.poll("", &format!("\"c{number}\"")))
        .collect();
    let all = polls.concat();
    let mut sent = 0;
    // As much as is taken. The server can't wait for a client that takes no
    // more.
    while sent < 10_000 {
        let write = wire.client.write(&all.as_bytes()[sent..]);
        match timeout(Duration::from_millis(50), write).await {
            Ok(taken) => sent += taken.expect("it is open"),
            Err(_) => break,
        }
    }
    assert!((256..10_000).contains(&sent), "{sent} bytes");
    wire.publish_name("a");
    assert_eq!(wire.answer().await, good(message("a")));
    let (mut reader, mut writer) = tokio::io::split(wire.client);
    let rest = all.as_bytes()[sent..].to_vec();
    let sending = tokio::spawn(async move {
        writer.write_all(&rest).await.expect("it is open");
        writer
    });
    for number in 0..polls.len() {
        let channel = format!("c{number}");
        let json = format!("{{\"message_id\":\"{channel}\"}}");
        let process = registry::current();
        let bus = process.open(&wire.database, wire.app.config.history);
        let published = Message::new(&channel, &json).expect("a message");
        process.publish(&bus, vec![published]).expect("threads");
        let expected = message(&channel);
        let mut text = String::new();
        while !text.ends_with(&expected) {
            let byte = soon(reader.read_u8()).await.expect("an answer");
            text.push(byte.into());
            assert!(text.len() < 1000, "{text}");
        }
    }
    soon(sending).await.expect("all is sent");
}

#[tokio::test]
async fn requests_that_hyper_did_not_take_at_once_are_not_lost() {
    // Its buffer grows with a long body, is full of requests at the end of
    // that, and begins anew for the next one.
    let mut wire = wire(Config::default(), 1 << 17);
    wire.publish_name("a");
    let long = format!("{}{{\"channels\":[\"a\"]}}", " ".repeat(60_000));
    let all = wire.post("", &long) + &wire.poll("", "\"a\"").repeat(150);
    wire.send(&all).await;
    for number in 0..151 {
        assert_eq!(wire.answer().await, good(message("a")), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_its_answer_is_given_up() {
    let mut wire = wire(Config::default(), 512);
    let text = "x".repeat(10_000);
    wire.publish(
        "client:a",
        &format!("{{\"message_id\":1,\"text\":\"{text}\"}}"),
    );
    wire.send(&wire.poll("", "\"client:a\"")).await;
    let begun = Instant::now();
    (&mut wire.serving).await.expect("no panic");
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(wire.polls(), 0);
    // The message was not delivered, so the next poll of the client gets it.
    let (client, stream) = duplex(1 << 16);
    tokio::spawn(serve(stream, Peer::Local, open(&wire.app)));
    wire.client = client;
    wire.send(&wire.poll("", "\"client:a\"")).await;
    assert!(wire.answer().await.1.contains(&text));
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn each_step_of_a_request_has_its_time() {
    let limits = Limits {
        header_timeout: Duration::from_secs(1),
        body_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(5),
        ..Limits::default()
    };
    let config = Config {
        long_polling_timeout: Duration::from_secs(7),
        ..limited(limits)
    };
    let open = || wire(config.clone(), 1 << 16);
    // Nothing, a part of a head, and a part of a body.
    for (part, seconds, status) in [(0, 1, ""), (1, 1, ""), (2, 3, "HTTP/1.1 400 ")] {
        let mut wire = open();
        let request = wire.poll("", "\"a\"");
        let begun = Instant::now();
        wire.send(&request[..part * (request.len() - 1) / 2]).await;
        let rest = wire.rest().await;
        assert!(rest.starts_with(status), "{rest}");
        assert!(rest.is_empty() == status.is_empty(), "{rest}");
        assert_eq!(begun.elapsed().as_secs(), seconds, "{rest}");
    }
    // A byte now and then gives no more time.
    let mut wire = open();
    let request = wire.poll("", "\"a\"");
    let begun = Instant::now();
    for byte in request.bytes() {
        if wire.client.write_u8(byte).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(90)).await;
    }
    assert_eq!(wire.rest().await, "");
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    // The poll is answered at its time, and the connection kept for another.
    let mut wire = open();
    let begun = Instant::now();
    wire.send(&wire.poll("", "\"a\"")).await;
    assert_eq!(wire.answer().await, good(EMPTY_RESPONSE));
    assert_eq!(begun.elapsed().as_secs(), 7);
    assert_eq!(wire.rest().await, "");
    assert_eq!(begun.elapsed().as_secs(), 12);
}
