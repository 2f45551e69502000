//! The id of a message.
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::json;

/// The id of a message, any JSON value.
///
/// Two ids are equal if Python's `==` holds for the decoded values.
///
/// ```
/// use trytond_fastbus::message::Id;
///
/// assert_eq!(Id::from_json("1"), Id::from_json("1.0"));
/// assert_eq!(Id::from_json(r#""a""#), Id::from_text("a"));
/// assert_ne!(Id::from_json("1"), Id::from_text("1"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(Repr);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Repr {
    /// A UUID as `publish` sets it, without an allocation of its own.
    Uuid([u8; 16]),
    /// Any other id, in JSON that is the same for equal values.
    Other(Box<str>),
    /// Two hashes of such JSON that is long.
    Long([u64; 2]),
}

/// The longest JSON that is kept, in bytes. The JSON that is the same for equal
/// values may be fifty times as long as that of the message, because `1e308`
/// equals an integer of 309 digits.
const LENGTH_MAX: usize = 128;

impl Id {
    /// The identifier that is the string `text`.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let is_canonical = |uuid: &Uuid| {
            uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
        };
        if let Some(uuid) = Uuid::try_parse(text).ok().filter(is_canonical) {
            return Self(Repr::Uuid(uuid.into_bytes()));
        }
        let mut json = String::new();
        json::push_string(&mut json, text);
        Self::other(&json)
    }

    /// The identifier that the JSON value `json` is.
    ///
    /// Text that is not JSON (such as `NaN`, which Python writes) stands for
    /// itself.
    #[must_use]
    pub fn from_json(json: &str) -> Self {
        let mut canonical = String::new();
        match serde_json::from_str(json) {
            Ok(Value::String(text)) => Self::from_text(&text),
            Ok(_) if push_canonical(&mut canonical, json).is_ok() => {
                Self::other(&canonical)
            }
            _ => Self::other(json),
        }
    }

    fn other(json: &str) -> Self {
        // Their keys are random, so that no sender can find two ids with the
        // same hashes.
        static HASHERS: LazyLock<[RandomState; 2]> =
            LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        Self(if json.len() <= LENGTH_MAX {
            Repr::Other(json.into())
        } else {
            Repr::Long(HASHERS.each_ref().map(|hasher| hasher.hash_one(json)))
        })
    }

    /// How many bytes it has allocated.
    pub(crate) fn allocated(&self) -> usize {
        match &self.0 {
            Repr::Other(json) => json.len(),
            Repr::Uuid(_) | Repr::Long(_) => 0,
        }
    }
}

/// Writes the JSON `value` such that values that are equal in Python are
/// written alike. For example 1, 1.0 and True are equal there, and dictionaries
/// are equal in any order. Integers are never read as numbers, since they may
/// have any size.
fn push_canonical(out: &mut String, value: &str) -> serde_json::Result<()> {
    let value = value.trim_ascii();
    match value.as_bytes().first() {
        Some(b't') => out.push('1'),
        Some(b'f') => out.push('0'),
        Some(b'"') => {
            let text: Cow<'_, str> = serde_json::from_str(value)?;
            json::push_string(out, &text);
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(value)?;
            out.push('[');
            for item in items {
                push_canonical(out, item.get())?;
                out.push(',');
            }
            out.push(']');
        }
        Some(b'{') => {
            let members: BTreeMap<Cow<'_, str>, &RawValue> =
                serde_json::from_str(value)?;
            out.push('{');
            for (key, member) in members {
                json::push_string(out, &key);
                out.push(':');
                push_canonical(out, member.get())?;
                out.push(',');
            }
            out.push('}');
        }
        Some(b'-' | b'0'..=b'9') if value.contains(['.', 'e', 'E']) => {
            let float: f64 = serde_json::from_str(value)?;
            if float.fract() == 0.0 {
                // `-0.0` equals 0, and no exponent is ever written here.
                write!(out, "{:.0}", float + 0.0).expect("a String takes all");
            } else {
                write!(out, "{float}").expect("a String takes all");
            }
        }
        _ => out.push_str(if value == "-0" { "0" } else { value }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ids_take_little_memory() {
        let list = |item: &str| format!("[{}0]", format!("{item},").repeat(1000));
        let long = Id::from_json(&list("1e308"));
        assert_eq!(long.allocated(), 0);
        assert_eq!(long, Id::from_json(&list("10e307")));
        assert_ne!(long, Id::from_json(&list("2e308")));
        let text = "x".repeat(LENGTH_MAX);
        let id = Id::from_text(&text);
        assert_eq!(id, Id::from_json(&format!("\"{text}\"")));
        assert_ne!(id, Id::from_text(&text.replace("xxx", "xyx")));
        let short = Id::from_text(&text[2..]);
        assert_eq!(short.allocated(), LENGTH_MAX);
    }

    #[test]
    fn ids_are_equal_as_in_python() {
        let uuid = "\"7c9e6679-7425-40de-944b-e07fc1f90ae7\"";
        for (left, right, equal) in [
            (uuid, uuid, true),
            (uuid, "\"7C9E6679-7425-40DE-944B-E07FC1F90AE7\"", false),
            (uuid, "\"7c9e6679742540de944be07fc1f90ae7\"", false),
            ("1", "1.0", true),
            ("1", "true", true),
            ("0", "-0.0", true),
            ("0", "false", true),
            ("1", "\"1\"", false),
            ("1", "2", false),
            ("1.5", "1.5", true),
            ("null", "null", true),
            ("100000000000000000000", "1e20", true),
            ("100000000000000000000", "100000000000000000001", false),
            ("[36893488147419103232]", "[36893488147419103233]", false),
            ("-18446744073709551617", "-18446744073709551618", false),
            ("-0", "0", true),
            ("1.5e1", "15", true),
            ("[ true ,{ \"a\" : 2.0 }]", "[1,{\"a\":2}]", true),
            ("[1, 2]", "[1,2.0]", true),
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, true),
            (r#""\u0041""#, r#""A""#, true),
        ] {
            assert_eq!(
                Id::from_json(left) == Id::from_json(right),
                equal,
                "{left} == {right}"
            );
        }
    }
}
