//! The address of a client, which trytond from 7.8 on binds a session to.
use std::net::IpAddr;

use hyper::HeaderMap;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A host of the network.
    Host(IpAddr),
    /// A process of this host, through a unix socket: a reverse proxy.
    Local,
}

/// The address of the client, behind `proxies` proxies each of which adds
/// its own peer to the end of `X-Forwarded-For`.
///
/// As in werkzeug's `ProxyFix`, which trytond uses, the header counts only
/// if it has as many addresses. On a unix socket nothing else is known, so
/// that there is always one proxy.
pub(super) fn client(
    peer: Peer,
    headers: &HeaderMap,
    proxies: usize,
) -> Option<String> {
    let proxies = match peer {
        Peer::Host(_) => proxies,
        Peer::Local => proxies.max(1),
    };
    forwarded(headers, proxies).or(match peer {
        // A socket of both families tells an address of the old one like
        // this, a socket of one family doesn't.
        Peer::Host(address) => Some(address.to_canonical().to_string()),
        Peer::Local => None,
    })
}

fn forwarded(headers: &HeaderMap, proxies: usize) -> Option<String> {
    let mut addresses = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        addresses.extend(value.to_str().ok()?.split(',').map(str::trim));
    }
    let place = addresses.len().checked_sub(proxies)?;
    let address = addresses.get(place)?;
    (!address.is_empty()).then(|| (*address).to_owned())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn address_is_that_before_the_proxies() {
        let host = Peer::Host("192.0.2.9".parse().expect("an address"));
        let mapped = Peer::Host("::ffff:192.0.2.9".parse().expect("an address"));
        for (peer, proxies, forwarded, address) in [
            (host, 0, &["192.0.2.1"][..], Some("192.0.2.9")),
            (mapped, 0, &[], Some("192.0.2.9")),
            (host, 1, &["192.0.2.1"], Some("192.0.2.1")),
            (host, 1, &["6.6.6.6, 192.0.2.1"], Some("192.0.2.1")),
            (host, 2, &["6.6.6.6,192.0.2.1 , ::1"], Some("192.0.2.1")),
            (host, 2, &["6.6.6.6, 192.0.2.1", "::1"], Some("192.0.2.1")),
            (host, 2, &["192.0.2.1"], Some("192.0.2.9")),
            (host, 1, &[], Some("192.0.2.9")),
            (host, 1, &["192.0.2.1,"], Some("192.0.2.9")),
            (Peer::Local, 0, &["6.6.6.6, 192.0.2.1"], Some("192.0.2.1")),
            (Peer::Local, 2, &["192.0.2.1, ::1"], Some("192.0.2.1")),
            (Peer::Local, 0, &[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            let found = client(peer, &headers, proxies);
            assert_eq!(
                found.as_deref(),
                address,
                "{peer:?} {forwarded:?} {proxies}"
            );
        }
    }
}
