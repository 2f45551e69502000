//! Which web pages may poll, and the headers for their browsers.
//!
//! Without these headers the web client takes any answer, errors included, for
//! a failure of the network.
use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};

use super::address::forwarded;
use crate::server::config::Config;

/// The facts in a request about the browser that has sent it, if one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Browser {
    pub(crate) origin: Origin,
    /// Whether a page of a browser has sent the request.
    pub(crate) is_page: bool,
}

/// Where the page that sends a request was loaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The request does not come from a browser.
    None,
    /// The page may poll. The browser is told this origin.
    Allowed(Box<str>),
    /// It may not.
    Refused,
}

impl Browser {
    /// Reads the headers of a request.
    pub(crate) fn of(headers: &HeaderMap, config: &Config) -> Self {
        let is_page =
            headers.contains_key(ORIGIN) || headers.contains_key("x-requested-with");
        Self {
            origin: origin(headers, &config.cors, config.num_proxies),
            is_page,
        }
    }
}

/// Whether the origin of a request is its own host, or one of the `allowed`
/// origins. Behind `proxies` proxies the host is the one that the outermost
/// proxy was asked for, as in werkzeug's `ProxyFix`.
fn origin(headers: &HeaderMap, allowed: &[Box<str>], proxies: usize) -> Origin {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Origin::None;
    };
    let host = host(headers, proxies);
    match origin.to_str() {
        Ok(origin)
            if origins.next().is_none()
                && (is_of_host(origin, host.as_deref())
                    || allowed.iter().any(|other| **other == *origin)) =>
        {
            Origin::Allowed(origin.into())
        }
        _ => Origin::Refused,
    }
}

/// The host that the client has asked, with its port.
fn host(headers: &HeaderMap, proxies: usize) -> Option<String> {
    let header = |name| match proxies {
        0 => None,
        _ => forwarded(headers, name, proxies),
    };
    let host = header("x-forwarded-host").or_else(|| {
        let host = headers.get(HOST)?;
        host.to_str().ok().map(ToOwned::to_owned)
    })?;
    match header("x-forwarded-port") {
        None => Some(host),
        Some(port) => Some(format!("{}:{port}", without_port(&host))),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The end of an address of IPv6 is no port.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Web clients send their origin to the same host as well.
fn is_of_host(origin: &str, host: Option<&str>) -> bool {
    let (origin, default) = match origin.split_once("://") {
        Some(("https", origin)) => (origin, ":443"),
        Some(("http", origin)) => (origin, ":80"),
        _ => return false,
    };
    let bare = |host| str::strip_suffix(host, default).unwrap_or(host);
    host.is_some_and(|host| bare(origin).eq_ignore_ascii_case(bare(host)))
}

impl Origin {
    /// Gives the headers of an answer, the preflight's excepted.
    pub(crate) fn each_header(&self, header: &mut impl FnMut(&'static str, &str)) {
        if let Self::Allowed(origin) = self {
            header("access-control-allow-origin", origin);
            header("access-control-allow-credentials", "true");
        }
        // A cache in between must not give the answer to another page.
        header("vary", "origin");
    }
}

/// Gives the headers with which a browser lets a page poll, for a day.
pub(crate) fn preflight(
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
            assert_eq!(
                origin(&headers, &allowed, 0),
                expected,
                "{origins:?} {host:?}"
            );
        }
    }

    #[test]
    fn host_is_that_which_the_proxies_were_asked_for() {
        for (proxies, forwarded, origin_, expected) in [
            (
                1,
                &[("host", "erp.example.com")][..],
                "http://erp.example.com",
                true,
            ),
            (
                1,
                &[("host", "erp.example.com")],
                "http://127.0.0.1:8001",
                false,
            ),
            (
                1,
                &[("host", "evil, erp.example.com")],
                "http://evil",
                false,
            ),
            (
                2,
                &[("host", "erp.example.com, front")],
                "https://erp.example.com",
                true,
            ),
            (
                0,
                &[("host", "erp.example.com")],
                "http://erp.example.com",
                false,
            ),
            (1, &[], "http://127.0.0.1:8001", true),
            (1, &[("port", "443")], "https://127.0.0.1", true),
            (
                1,
                &[("host", "[::1]"), ("port", "8080")],
                "http://[::1]:8080",
                true,
            ),
            (
                1,
                &[("host", "erp.example.com:8080"), ("port", "80")],
                "http://erp.example.com",
                true,
            ),
            (
                1,
                &[("host", "erp.example.com:443")],
                "http://erp.example.com",
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8001"));
            headers.insert(ORIGIN, HeaderValue::from_static(origin_));
            for (name, value) in forwarded {
                let name = match *name {
                    "host" => "x-forwarded-host",
                    _ => "x-forwarded-port",
                };
                headers.append(name, HeaderValue::from_static(value));
            }
            let is_allowed = origin(&headers, &[], proxies) != Origin::Refused;
            assert_eq!(is_allowed, expected, "{proxies} {forwarded:?} {origin_}");
        }
    }
}
