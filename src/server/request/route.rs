//! The one route of the server: `POST /<database>/bus`.
use hyper::header::{ACCESS_CONTROL_REQUEST_HEADERS, HOST};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use percent_encoding::percent_decode_str;

use super::cors::{Browser, Origin};
use super::refusal::Refusal;
use super::reply::Body;
use crate::server::config::Config;

/// The database whose bus a request polls, or the answer to a request that is
/// no poll.
pub(crate) fn database(
    parts: &Parts,
    browser: &Browser,
    config: &Config,
) -> Result<String, Body> {
    let hosts = parts.headers.get_all(HOST).iter().count();
    if hosts > 1 || (parts.version >= Version::HTTP_11 && hosts == 0) {
        return Err(Body::Error(Refusal::new(
            StatusCode::BAD_REQUEST,
            "there must be one Host header",
        )));
    }
    let database = of_path(parts.uri.path()).ok_or(Refusal::NOT_FOUND)?;
    let is_preflight = parts.method == Method::OPTIONS;
    if parts.method != Method::POST && !is_preflight {
        let refusal =
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a bus is polled by POST");
        return Err(Body::Error(refusal.with("allow", "OPTIONS, POST")));
    }
    if browser.origin == Origin::Refused {
        return Err(Body::Error(Refusal::new(
            StatusCode::FORBIDDEN,
            "this origin may not poll, see [web] cors",
        )));
    }
    if is_preflight {
        let asked = parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let asked = asked.and_then(|asked| asked.to_str().ok());
        return Err(Body::Preflight(asked.map(Into::into)));
    }
    if !config.allow_subscribe {
        return Err(Body::Error(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "[bus] allow_subscribe is off",
        )));
    }
    Ok(database)
}

/// The name of the database in the path of a request, if the path is that
/// of a bus.
///
/// Desktop clients up to 7.6 write two slashes, which werkzeug merges as it
/// does all others that follow each other.
fn of_path(path: &str) -> Option<String> {
    // As in WSGI, an encoded slash is one.
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (name, bus, more) = (parts.next()?, parts.next()?, parts.next());
    let good = path.starts_with('/')
        && bus == "bus"
        && more.is_none()
        && !path.ends_with('/')
        && !name.chars().any(char::is_control);
    good.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_a_bus_names_the_database() {
        for (path, name) in [
            ("/tryton/bus", Some("tryton")),
            ("/tryton//bus", Some("tryton")),
            ("//tryton/bus", Some("tryton")),
            ("/my%20db/bus", Some("my db")),
            ("/j%C3%A9r%C3%B4me/b%75s", Some("jérôme")),
            ("/bus/bus", Some("bus")),
            ("/a+b/bus", Some("a+b")),
            ("/tryton/bus/", None),
            ("/tryton/bus//", None),
            ("/tryton/Bus", None),
            ("/tryton/bus/more", None),
            ("/tryton%2Fother/bus", None),
            ("/tryton%00/bus", None),
            ("/%ff/bus", None),
            ("/tryton", None),
            ("/bus", None),
            ("//bus", None),
            ("/", None),
            ("", None),
            ("*", None),
            ("tryton/bus", None),
        ] {
            assert_eq!(of_path(path).as_deref(), name, "{path}");
        }
    }
}
