//! The one route of the server: `/<database>/bus`.
use percent_encoding::percent_decode_str;

/// The name of the database in the path of a request, if the path is that
/// of a bus.
///
/// Desktop clients up to 7.6 write two slashes, which werkzeug merges as it
/// does all others that follow each other.
pub(crate) fn database(path: &str) -> Option<String> {
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
            assert_eq!(database(path).as_deref(), name, "{path}");
        }
    }
}
