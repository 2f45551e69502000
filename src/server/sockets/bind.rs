//! Listening on an address.
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::address::Address;
use super::listener::Listener;

impl Address {
    /// Listens on the address, or on each address of a host, such as those of
    /// both families of `localhost`. Addresses that this host lacks, such as
    /// those of IPv6 where the kernel has none, are logged and skipped as long
    /// as one other address works. A unix socket without a server is replaced.
    ///
    /// # Errors
    ///
    /// When the host is unknown, or the address is in use or does not belong to
    /// this host.
    pub fn bind(&self) -> io::Result<Vec<Listener>> {
        self.bind_by(TcpListener::bind::<SocketAddr>)
    }

    /// Listens beside other servers that call this method. The system gives
    /// each connection to one of them. A unix socket has one server.
    ///
    /// # Errors
    ///
    /// As for [`Address::bind`]. An address is also in use if another user
    /// listens on it, or a server that called [`Address::bind`].
    pub fn bind_beside(&self) -> io::Result<Vec<Listener>> {
        self.bind_by(bind_beside)
    }

    fn bind_by(
        &self,
        bind: impl Fn(SocketAddr) -> io::Result<TcpListener>,
    ) -> io::Result<Vec<Listener>> {
        let listeners = match self {
            Self::Unix(path) => vec![Listener::Unix(bind_path(path)?)],
            Self::Tcp(None, port) => {
                // A socket of both families, unless this host lacks IPv6.
                let listener = match bind((Ipv6Addr::UNSPECIFIED, *port).into()) {
                    Err(error) if is_missing(&error) => {
                        bind((Ipv4Addr::UNSPECIFIED, *port).into())
                    }
                    bound => bound,
                };
                vec![Listener::Tcp(listener?)]
            }
            Self::Tcp(Some(host), port) => {
                bind_all((host.as_str(), *port).to_socket_addrs()?, bind)?
            }
        };
        for listener in &listeners {
            listener.set_backlog()?;
        }
        Ok(listeners)
    }
}

/// Listens on all addresses that this host has; at least one of them.
fn bind_all(
    addresses: impl Iterator<Item = SocketAddr>,
    bind: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut missing = Vec::new();
    for address in addresses {
        match bind(address) {
            Ok(listener) => listeners.push(Listener::Tcp(listener)),
            Err(error) if is_missing(&error) => missing.push((address, error)),
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() {
        if let Some((_, error)) = missing.pop() {
            return Err(error);
        }
    }
    for (address, error) in missing {
        log::warn!(
            target: "trytond.bus",
            "bus server does not listen on {address}, which this host lacks: {error}",
        );
    }
    Ok(listeners)
}

/// Whether this host lacks an address. A name may have an address of a family
/// that is switched off (`net.ipv6.conf.all.disable_ipv6`) or that the kernel
/// does not have (`ipv6.disable`).
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

fn bind_beside(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // The standard library does the same, so that a port is free once its
    // server has ended.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Listens on a unix socket. One without a server is replaced.
fn bind_path(path: &Path) -> io::Result<UnixListener> {
    if let Ok(file) = path.symlink_metadata() {
        if !file.file_type().is_socket() {
            let kind = io::ErrorKind::AlreadyExists;
            return Err(io::Error::new(kind, "the path exists and is no socket"));
        }
        let is_stale = UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if is_stale {
            std::fs::remove_file(path)?;
        }
    }
    UnixListener::bind(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "its directory does not exist")
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_socket_is_replaced_and_a_living_one_is_not() {
        let path = std::env::temp_dir().join(format!("bus-{}", std::process::id()));
        let address = Address::Unix(path.clone());
        let first = address.bind().expect("it is free");
        assert!(address.bind().is_err());
        drop(first);
        address.bind().expect("no server listens");
        std::fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn path_that_can_not_be_a_socket_is_told() {
        let directory = std::env::temp_dir();
        for (path, reason) in [
            (directory.clone(), "the path exists and is no socket"),
            (directory.join("none/bus"), "its directory does not exist"),
        ] {
            let error = Address::Unix(path).bind().expect_err("no socket");
            assert_eq!(error.to_string(), reason);
        }
    }

    #[test]
    fn addresses_that_the_host_lacks_are_skipped() {
        let both: [SocketAddr; 2] = [
            (Ipv6Addr::LOCALHOST, 0).into(),
            (Ipv4Addr::LOCALHOST, 0).into(),
        ];
        for missing in [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL] {
            let without = |is_missing: fn(&SocketAddr) -> bool| {
                bind_all(both.into_iter(), |address| {
                    if is_missing(&address) {
                        return Err(missing.into());
                    }
                    TcpListener::bind(address)
                })
            };
            let found = without(SocketAddr::is_ipv6).expect("the other one");
            assert!(found[0].to_string().starts_with("127.0.0.1:"), "{found:?}");
            assert_eq!(found.len(), 1);
            let error = without(|_| true).expect_err("none is left");
            assert_eq!(error.raw_os_error(), Some(missing as i32));
        }
        let in_use = bind_all(both.into_iter(), |_| Err(Errno::EADDRINUSE.into()));
        assert!(in_use.is_err());
    }
}
