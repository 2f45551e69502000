//! The address of a client, which trytond from 7.8 on binds a session to.
use std::net::IpAddr;

use hyper::HeaderMap;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A host of the network.
    Host(IpAddr),
    /// A process of this host, through a unix socket: a reverse proxy.
    Local,
}

/// Where a client is, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// The address as text. A value that a proxy added may be no address at
    /// all. No session has such an address.
    pub(crate) address: Option<Box<str>>,
    /// Whether the connection comes from this host and passes no counted proxy.
    pub(crate) is_local: bool,
}

/// The maximum length of an address. An IPv6 address with a zone is shorter.
const LENGTH_MAX: usize = 100;

/// The address of the client, behind `proxies` proxies. Each proxy adds its own
/// peer to the end of `X-Forwarded-For`.
///
/// As in werkzeug's `ProxyFix`, which trytond uses, the header counts only if
/// it has at least this number of addresses. On a unix socket nothing else is
/// known, so there is always one proxy.
pub(crate) fn client(peer: Peer, headers: &HeaderMap, proxies: usize) -> ClientAddress {
    let added = match peer {
        Peer::Host(_) => proxies,
        Peer::Local => proxies.max(1),
    };
    let forwarded = forwarded(headers, "x-forwarded-for", added);
    let is_local = proxies == 0 || forwarded.is_none();
    let (direct, is_loopback) = match peer {
        Peer::Host(address) => {
            // A socket of both families has the addresses of IPv4 in IPv6.
            let address = address.to_canonical();
            (Some(address.to_string()), address.is_loopback())
        }
        Peer::Local => (None, true),
    };
    ClientAddress {
        address: forwarded
            .as_deref()
            .map(canonical)
            .or(direct)
            .map(Into::into),
        is_local: is_local && is_loopback,
    }
}

/// The value that the outermost of `proxies` proxies added to a header that is
/// a list, if the header has that number of values. Empty values do not count.
///
/// Each byte is a character, as in WSGI. The proxies have written only the end
/// of the header, so a byte beyond ASCII must not make all of it unreadable.
pub(crate) fn forwarded(
    headers: &HeaderMap,
    name: &str,
    proxies: usize,
) -> Option<String> {
    let values: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(unquoted)
        .filter(|value| !value.is_empty())
        .collect();
    let place = values.len().checked_sub(proxies)?;
    let value = values.get(place)?;
    Some(value.iter().copied().map(char::from).collect())
}

fn unquoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""))
        .unwrap_or(value)
}

/// An address in its canonical form; any other text without control characters.
fn canonical(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        // It is logged.
        Err(_) => text
            .chars()
            .map(|character| {
                if character.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    character
                }
            })
            .take(LENGTH_MAX)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn found(peer: Peer, values: &[&[u8]], proxies: usize) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a header");
            headers.append("x-forwarded-for", value);
        }
        client(peer, &headers, proxies)
    }

    fn host(address: &str) -> Peer {
        Peer::Host(address.parse().expect("an address"))
    }

    #[test]
    fn address_is_that_before_the_proxies() {
        let (peer, mapped) = (host("192.0.2.9"), host("::ffff:192.0.2.9"));
        for (peer, proxies, values, address) in [
            (peer, 0, &["192.0.2.1"][..], Some("192.0.2.9")),
            (mapped, 0, &[], Some("192.0.2.9")),
            (peer, 1, &["192.0.2.1"], Some("192.0.2.1")),
            (peer, 1, &["6.6.6.6, 192.0.2.1"], Some("192.0.2.1")),
            (peer, 2, &["6.6.6.6,192.0.2.1 , ::1"], Some("192.0.2.1")),
            (peer, 2, &["6.6.6.6, 192.0.2.1", "::1"], Some("192.0.2.1")),
            (peer, 2, &["192.0.2.1"], Some("192.0.2.9")),
            (peer, 1, &[], Some("192.0.2.9")),
            (peer, 1, &[" ", ","], Some("192.0.2.9")),
            (peer, 1, &["192.0.2.1,"], Some("192.0.2.1")),
            (peer, 1, &["\"192.0.2.1\""], Some("192.0.2.1")),
            (peer, 1, &["\", 192.0.2.1"], Some("192.0.2.1")),
            (peer, 1, &["::FFFF:192.0.2.1"], Some("192.0.2.1")),
            (peer, 1, &["2001:DB8:0::7"], Some("2001:db8::7")),
            (peer, 1, &["fe80::1%eth0"], Some("fe80::1%eth0")),
            (peer, 1, &["192.0.2.1:50123"], Some("192.0.2.1:50123")),
            (Peer::Local, 0, &["6.6.6.6, 192.0.2.1"], Some("192.0.2.1")),
            (Peer::Local, 2, &["192.0.2.1, ::1"], Some("192.0.2.1")),
            (Peer::Local, 0, &[], None),
        ] {
            let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            let found = found(peer, &values, proxies).address;
            assert_eq!(found.as_deref(), address, "{peer:?} {values:?} {proxies}");
        }
    }

    #[test]
    fn byte_beyond_ascii_hides_no_address_and_is_none() {
        for peer in [host("127.0.0.1"), Peer::Local] {
            for (value, address) in [
                (&b"\xff, 192.0.2.1"[..], "192.0.2.1"),
                (b"\xff", "\u{ff}"),
                (b"192.0.2.1, \xe9", "\u{e9}"),
                (b"\x9b31m\x85\t1", "\u{fffd}31m\u{fffd}\u{fffd}1"),
            ] {
                let found = found(peer, &[value], 1);
                assert_eq!(found.address.as_deref(), Some(address));
                assert!(!found.is_local);
            }
        }
        let long = found(host("192.0.2.9"), &[&[b'x'; 4000]], 1).address;
        assert_eq!(long.map_or(0, |text| text.len()), LENGTH_MAX);
    }

    #[test]
    fn connection_of_this_host_is_local_unless_it_is_forwarded() {
        for (peer, proxies, values, is_local) in [
            (host("127.0.0.1"), 0, &[][..], true),
            (host("::1"), 0, &[], true),
            (host("::ffff:127.0.0.1"), 0, &[], true),
            (host("192.0.2.9"), 0, &[], false),
            (Peer::Local, 0, &[], true),
            // The proxy is not counted, by trytond neither.
            (host("127.0.0.1"), 0, &[&b"192.0.2.1"[..]], true),
            (Peer::Local, 0, &[b"192.0.2.1"], true),
            (host("127.0.0.1"), 1, &[], true),
            (host("127.0.0.1"), 1, &[b"127.0.0.1"], false),
            (Peer::Local, 1, &[b"::1"], false),
        ] {
            let found = found(peer, values, proxies).is_local;
            assert_eq!(found, is_local, "{peer:?} {proxies} {values:?}");
        }
    }
}
