//! The session that a request names, before it is checked.
use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE};

/// The cookie of trytond from 8.0 on.
const COOKIE_NAME: &[u8] = b"tryton_session";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A user and a token, neither of them checked. The login in front of them is
/// not looked at, as in trytond.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) user: u32,
    pub(crate) token: Box<str>,
}

/// The credential of a request, if it has a readable one.
///
/// If there is a cookie, the header does not count, even if the cookie can't be
/// read. trytond does the same.
pub(crate) fn credential(headers: &HeaderMap) -> Option<Credential> {
    match cookie(headers) {
        Some(value) => {
            let value = unquote(value);
            let value = String::from_utf8_lossy(&value);
            // A login may have colons.
            let mut parts = value.rsplitn(3, ':');
            let (token, user, _login) = (parts.next()?, parts.next()?, parts.next()?);
            Credential::new(user, token)
        }
        None => authorization(headers.get(AUTHORIZATION)?.as_bytes()),
    }
}

/// Reads `Session base64(login:user:token)`.
fn authorization(value: &[u8]) -> Option<Credential> {
    let (scheme, coded) = value
        .trim_ascii()
        .split_at_checked("Session".len())
        .filter(|(_, rest)| rest.starts_with(b" "))?;
    if !scheme.eq_ignore_ascii_case(b"Session") {
        return None;
    }
    let decoded = BASE64.decode(coded.trim_ascii()).ok()?;
    let mut parts = std::str::from_utf8(&decoded).ok()?.split(':');
    let (_login, user, token) = (parts.next()?, parts.next()?, parts.next()?);
    // trytond refuses a login with a colon here.
    match parts.next() {
        None => Credential::new(user, token),
        Some(_) => None,
    }
}

/// The value of the first cookie of the name.
fn cookie(headers: &HeaderMap) -> Option<&[u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            (name.trim_ascii() == COOKIE_NAME).then_some(value.trim_ascii())
        })
}

/// Removes the quotes that werkzeug puts around a value with characters that a
/// cookie can't have, and decodes the escapes `\ooo` and `\c`.
fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    let Some(mut rest) = quoted else {
        return value.into();
    };
    let mut out = Vec::with_capacity(rest.len());
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let escaped = match tail {
            _ if *byte != b'\\' => None,
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some(((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), 3))
            }
            [character, ..] => Some((*character, 1)),
            [] => None,
        };
        let (byte, length) = escaped.unwrap_or((*byte, 0));
        out.push(byte);
        rest = &rest[length..];
    }
    out.into()
}

impl Credential {
    fn new(user: &str, token: &str) -> Option<Self> {
        // `parse` would take a sign.
        let digits = user.bytes().all(|byte| byte.is_ascii_digit());
        let user = user.parse().ok().filter(|_| digits)?;
        (!token.is_empty()).then(|| Self {
            user,
            token: token.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use hyper::header::HeaderValue;

    use super::*;

    fn read(authorization: Option<&str>, cookies: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        }
        for value in cookies {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
            headers.append(COOKIE, value);
        }
        let Credential { user, token } = credential(&headers)?;
        Some(format!("{user}|{token}"))
    }

    #[test]
    fn authorization_names_the_session() {
        for (scheme, text, expected) in [
            ("Session", "admin:1:token", Some("1|token")),
            ("session", "jérôme:12:t", Some("12|t")),
            ("Session ", ":1:t", Some("1|t")),
            ("Session", "a:b:1:t", None),
            ("Session", "admin:one:token", None),
            ("Session", "admin:-1:token", None),
            ("Session", "admin:+1:token", None),
            ("Session", "admin:1:", None),
            ("Session", "admin:1", None),
            ("Basic", "admin:1:token", None),
            ("Bearer", "admin:1:token", None),
        ] {
            let value = format!("{scheme} {}", STANDARD.encode(text));
            assert_eq!(read(Some(&value), &[]).as_deref(), expected, "{text}");
        }
        for value in ["Session", "Session ", "Session *", "Sessionx", "", "é"] {
            assert_eq!(read(Some(value), &[]), None, "{value}");
        }
        let unpadded = STANDARD.encode("admin:1:token");
        let unpadded = format!("Session {}", unpadded.trim_end_matches('='));
        assert_eq!(read(Some(&unpadded), &[]).as_deref(), Some("1|token"));
    }

    #[test]
    fn cookie_is_unquoted_as_werkzeug_quotes_it() {
        for (cookie, expected) in [
            ("tryton_session=admin:1:t", Some("1|t")),
            ("a=b; tryton_session=admin:1:t; c", Some("1|t")),
            ("x;tryton_session = admin:1:t ", Some("1|t")),
            (
                r#"tryton_session="me:1:j\303\251r\303\264""#,
                Some("1|jérô"),
            ),
            (r#"tryton_session="a:1:a\054b""#, Some("1|a,b")),
            (r#"tryton_session="a:1:a b""#, Some("1|a b")),
            (r#"tryton_session="a:1:a\"b\\c""#, Some(r#"1|a"b\c"#)),
            (r#"tryton_session="a:1:a\477b""#, Some("1|a477b")),
            (r#"tryton_session="a:1:a\377b""#, Some("1|a\u{fffd}b")),
            ("tryton_session=jérôme:1:té", Some("1|té")),
            ("tryton_session=a:b:1:t", Some("1|t")),
            ("tryton_session=a:1:t; tryton_session=b:2:t", Some("1|t")),
            ("tryton_session=\"", None),
            ("tryton_session=\"\\\"", None),
            ("tryton_session=", None),
            ("tryton_session", None),
            ("TRYTON_SESSION=admin:1:t", None),
        ] {
            assert_eq!(read(None, &[cookie]).as_deref(), expected, "{cookie}");
        }
        let two = read(None, &["a=b", "tryton_session=admin:1:t"]);
        assert_eq!(two.as_deref(), Some("1|t"));
    }

    #[test]
    fn cookie_counts_before_the_header() {
        let header = format!("Session {}", STANDARD.encode("other:2:t"));
        let read = |cookie| read(Some(&header), &[cookie]);
        assert_eq!(read("tryton_session=a:1:t").as_deref(), Some("1|t"));
        assert_eq!(read("tryton_session=unreadable"), None);
        assert_eq!(read("other=a:1:t").as_deref(), Some("2|t"));
    }
}
