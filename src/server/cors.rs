//! Which web pages may poll, and what their browsers must be told.
//!
//! Without these headers the web client takes any answer, errors included,
//! for a failure of the network.
use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};

/// Where the page that sends a request was loaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The request does not come from a browser.
    None,
    /// The page may poll. The browser is told this origin.
    Allowed(Box<str>),
    /// It may not.
    Refused,
}

/// Whether the origin of a request is its host itself, or one of those that
/// are `allowed`.
pub(super) fn origin(headers: &HeaderMap, allowed: &[Box<str>]) -> Origin {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Origin::None;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match origin.to_str() {
        Ok(origin)
            if origins.next().is_none()
                && (is_of_host(origin, host)
                    || allowed.iter().any(|other| **other == *origin)) =>
        {
            Origin::Allowed(origin.into())
        }
        _ => Origin::Refused,
    }
}

/// Web clients send their origin to the same host as well.
fn is_of_host(origin: &str, host: Option<&str>) -> bool {
    let origin_host = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    match (origin_host, host) {
        (Some(origin), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

impl Origin {
    /// Gives the headers of an answer, the preflight's excepted.
    pub(super) fn each_header(&self, header: &mut impl FnMut(&'static str, &str)) {
        if let Self::Allowed(origin) = self {
            header("access-control-allow-origin", origin);
            header("access-control-allow-credentials", "true");
        }
        // A cache in between must not give the answer to another page.
        header("vary", "origin");
    }
}

/// Gives the headers with which a browser lets a page poll, for a day.
pub(super) fn preflight(
    asked: Option<&str>,
    header: &mut impl FnMut(&'static str, &str),
) {
    header("access-control-allow-methods", "POST");
    if let Some(asked) = asked {
        header("access-control-allow-headers", asked);
    }
    header("access-control-max-age", "86400");
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn pages_of_the_host_and_of_allowed_origins_may_poll() {
        let allowed = ["https://sao.example.com".into(), "http://[::1]:8000".into()];
        for (origins, host, expected) in [
            (&[][..], Some("bus.example.com"), None),
            (
                &["https://bus.example.com"],
                Some("bus.example.com"),
                Some(true),
            ),
            (
                &["http://BUS.example.com:8001"],
                Some("bus.example.com:8001"),
                Some(true),
            ),
            (
                &["http://bus.example.com:8001"],
                Some("bus.example.com"),
                Some(false),
            ),
            (
                &["https://sao.example.com"],
                Some("bus.example.com"),
                Some(true),
            ),
            (&["http://[::1]:8000"], None, Some(true)),
            (
                &["http://sao.example.com"],
                Some("bus.example.com"),
                Some(false),
            ),
            (
                &["https://sao.example.com/"],
                Some("bus.example.com"),
                Some(false),
            ),
            (&["null"], Some("bus.example.com"), Some(false)),
            (&["null"], Some("null"), Some(false)),
            (&[""], None, Some(false)),
            (
                &["https://sao.example.com", "https://sao.example.com"],
                None,
                Some(false),
            ),
        ] {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            if let Some(host) = host {
                headers.insert(HOST, HeaderValue::from_static(host));
            }
            let expected = match expected {
                None => Origin::None,
                Some(true) => Origin::Allowed(origins[0].into()),
                Some(false) => Origin::Refused,
            };
            assert_eq!(origin(&headers, &allowed), expected, "{origins:?} {host:?}");
        }
    }
}
