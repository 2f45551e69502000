//! Properties that hold for any input from outside, as functions of arbitrary
//! bytes. `make fuzz` searches for bytes for which one of them panics, and the
//! tests run them on the files of `fuzz/seeds`.
#![allow(clippy::missing_panics_doc, reason = "a panic is the finding")]
use std::str::from_utf8;

use serde_json::Value;

use crate::message::{Id, Message};
use crate::parts::{Assembly, PAYLOAD_MAX, split};

pub use crate::server::fuzz::{credential, question, request};

/// A payload of NOTIFY is passed on as it was read.
pub fn payload(data: &[u8]) {
    let Ok(text) = from_utf8(data) else {
        return;
    };
    // None where a number is too large or the nesting too deep. Such messages
    // are passed on as well.
    let value: Option<Value> = serde_json::from_str(text).ok();
    let Ok(message) = Message::parse(text) else {
        let Some(value) = value.filter(is_message) else {
            return;
        };
        // A repeated key is the only reason to refuse it.
        Message::parse(&value.to_string()).expect("a good payload");
        return;
    };
    assert!(text.contains(message.json()));
    let response: Result<Value, _> = serde_json::from_str(message.response());
    if let Some(value) = value {
        assert!(is_message(&value));
        let response = response.expect("it is nested no deeper");
        for key in ["channel", "message"] {
            assert_eq!(response[key], value[key]);
        }
        assert_eq!(message.channel(), value["channel"]);
        assert_eq!(message.number(), 0);
        let is_notification = value["message"]["type"] == "notification";
        assert!(is_notification || !message.is_notification());
        let id = value["message"]["message_id"].to_string();
        assert_eq!(*message.id(), Id::from_json(&id));
    }
}

fn is_message(value: &Value) -> bool {
    let has_id = value["message"].get("message_id").is_some();
    value["channel"].is_string() && has_id
}

/// Parts, one per line. Only the last ones are assembled, and a valid payload
/// is read after any other input.
pub fn parts(data: &[u8]) {
    const LIMIT: usize = 200;
    let text = String::from_utf8_lossy(data);
    let mut assembly = Assembly::default();
    let lines: Vec<_> = text.lines().collect();
    for end in 1..=lines.len() {
        let Ok(Some(whole)) = assembly.push(lines[end - 1], LIMIT) else {
            continue;
        };
        assert!(whole.len() <= LIMIT);
        let fields = |line: &str| {
            let mut fields = line.splitn(4, ' ').map(str::to_owned);
            let mut field = || fields.next().expect("it was taken");
            (
                field(),
                field().parse().expect("a number"),
                field(),
                field(),
            )
        };
        let (id, last, count, _): (_, usize, _, _) = fields(lines[end - 1]);
        assert_eq!(count.parse(), Ok(last + 1));
        let mut joined = String::new();
        for (place, line) in lines[end - 1 - last..end].iter().enumerate() {
            let (same, index, _, text) = fields(line);
            assert_eq!((&same, index), (&id, place));
            joined.push_str(&text);
        }
        assert_eq!(whole, joined);
    }
    // Twice, so that there are parts.
    let payload = format!("{text}{}", "é".repeat(PAYLOAD_MAX));
    let parts = split(&payload);
    let (last, before) = parts.split_last().expect("it is not empty");
    for part in before {
        assert!(part.len() <= PAYLOAD_MAX);
        assert_eq!(assembly.push(part, payload.len()).expect("a part"), None);
    }
    let whole = assembly.push(last, payload.len()).expect("the last part");
    assert_eq!(whole, Some(payload));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Calls `target` with each of its seeds.
    fn replay(name: &str, target: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let mut count = 0;
        for seed in fs::read_dir(seeds.join(name)).expect("a directory") {
            let path = seed.expect("a file").path();
            let seed = fs::read(&path).expect("bytes");
            let passed = std::panic::catch_unwind(|| target(&seed));
            assert!(passed.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }

    #[test]
    fn seeds_of_the_fuzzer_pass() {
        replay("credential", super::credential);
        replay("parts", super::parts);
        replay("payload", super::payload);
        replay("question", super::question);
        replay("request", super::request);
    }
}
