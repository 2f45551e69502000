//! Payloads that are larger than a NOTIFY allows, sent in parts and put
//! together again.
use std::fmt::Write;

use uuid::Uuid;

use crate::error::{Error, Result};

/// The most bytes that PostgreSQL accepts as the payload of a NOTIFY.
pub const PAYLOAD_MAX: usize = 7999;

/// The largest `<id> <index> <count> ` before the text of a part.
const HEADER_MAX: usize = 36 + 3 + 2 * 10;

/// Cuts `payload` into parts that fit a NOTIFY: `<uuid> <index> <count>
/// <text>`. All parts of a payload have the same id and count.
///
/// PostgreSQL sends equal payloads of one transaction only once. No two parts
/// are equal.
#[must_use]
pub fn split(payload: &str) -> Vec<String> {
    let id = Uuid::new_v4();
    let room = PAYLOAD_MAX - HEADER_MAX;
    let mut texts = Vec::with_capacity(payload.len() / room + 1);
    let mut rest = payload;
    while !rest.is_empty() {
        let mut end = room.min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (text, after) = rest.split_at(end);
        texts.push(text);
        rest = after;
    }
    let count = texts.len();
    let part = |(index, text): (usize, &str)| {
        let mut part = String::with_capacity(HEADER_MAX + text.len());
        write!(part, "{id} {index} {count} {text}").expect("a String takes all");
        part
    };
    texts.into_iter().enumerate().map(part).collect()
}

/// Puts parts together.
///
/// The parts of a payload are sent by one statement. They arrive one after the
/// other, but not always in one batch.
///
/// ```
/// use trytond_fastbus::parts::{Assembly, split};
///
/// let payload = "x".repeat(20_000);
/// let (mut assembly, mut whole) = (Assembly::default(), None);
/// for part in split(&payload) {
///     whole = assembly.push(&part, 1 << 20)?;
/// }
/// assert_eq!(whole, Some(payload));
/// # Ok::<(), trytond_fastbus::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Assembly {
    id: String,
    received: usize,
    payload: String,
}

impl Assembly {
    /// Takes the next part; returns the payload after its last one, of at most
    /// `limit` bytes.
    ///
    /// # Errors
    ///
    /// When this is not a part, or does not follow the part before. The payload
    /// is dropped then, and the next first part begins a new one.
    pub fn push(&mut self, part: &str, limit: usize) -> Result<Option<String>> {
        let pushed = self.try_push(part, limit);
        if pushed.is_err() {
            self.clear();
        }
        pushed
    }

    /// Drops an incomplete payload; returns whether there was one.
    pub fn clear(&mut self) -> bool {
        std::mem::take(self).received > 0
    }

    fn try_push(&mut self, part: &str, limit: usize) -> Result<Option<String>> {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::Part(
                "it is in the journal, and [bus] journal is off in this process",
            ));
        }
        let mut fields = part.splitn(4, ' ');
        let mut field = || fields.next().ok_or(Error::Part("it has no header"));
        let (id, index, count, text) = (field()?, field()?, field()?, field()?);
        let number = |text: &str| {
            text.parse::<usize>()
                .map_err(|_| Error::Part("its index or count is not a number"))
        };
        let (index, count) = (number(index)?, number(count)?);
        if index == 0 {
            // The end of an earlier payload can't arrive any more.
            self.clear();
            id.clone_into(&mut self.id);
        }
        if id != self.id || index != self.received || index >= count {
            return Err(Error::Part("it does not follow the part before"));
        }
        if self.payload.len() + text.len() > limit {
            return Err(Error::Part(
                "the whole payload is larger than [bus] message_size",
            ));
        }
        self.payload.push_str(text);
        self.received += 1;
        Ok((self.received == count).then(|| std::mem::take(self).payload))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(parts: &[String]) -> Option<String> {
        let mut assembly = Assembly::default();
        let (last, before) = parts.split_last()?;
        for part in before {
            assert_eq!(assembly.push(part, usize::MAX).expect("a part"), None);
        }
        assembly.push(last, usize::MAX).expect("the last part")
    }

    #[test]
    fn parts_fit_a_notify_and_make_the_whole() {
        for size in [1, 7999, 8000, 100_000, 1_000_000] {
            let payload = "x".repeat(size);
            let parts = split(&payload);
            assert!(parts.iter().all(|part| part.len() <= PAYLOAD_MAX));
            assert_eq!(join(&parts), Some(payload));
        }
    }

    #[test]
    fn a_part_out_of_order_is_refused_and_the_next_whole_is_read() {
        let parts = split(&"x".repeat(30_000));
        let others = split(&"y".repeat(30_000));
        for wrong in [
            &parts[1],
            &parts[3],
            &others[2],
            &"garbage".into(),
            &"a b c d".into(),
            &"id 2 2 text".into(),
            &String::new(),
        ] {
            let mut assembly = Assembly::default();
            assembly
                .push(&parts[0], usize::MAX)
                .expect("the first part");
            if *wrong != parts[1] {
                assembly.push(wrong, usize::MAX).expect_err(wrong);
            }
            assembly.push(&parts[2], usize::MAX).ok();
            let mut whole = None;
            for part in &others {
                whole = assembly.push(part, usize::MAX).expect("a good part");
            }
            assert_eq!(whole, Some("y".repeat(30_000)));
        }
    }

    #[test]
    fn a_whole_above_the_limit_is_refused() {
        let mut assembly = Assembly::default();
        let parts = split(&"x".repeat(30_000));
        assembly.push(&parts[0], 10_000).expect("the first part");
        assembly.push(&parts[1], 10_000).expect_err("too large");
        assert!(!assembly.clear());
    }

    proptest! {
        #[test]
        fn any_text_survives(payload in "\\PC{1,20000}") {
            let parts = split(&payload);
            prop_assert!(parts.iter().all(|part| part.len() <= PAYLOAD_MAX));
            prop_assert_eq!(join(&parts), Some(payload));
        }

        #[test]
        fn garbage_never_panics(parts in prop::collection::vec("\\PC{0,60}", 0..9)) {
            let mut assembly = Assembly::default();
            for part in parts {
                let _ = assembly.push(&part, 100);
            }
        }
    }
}
