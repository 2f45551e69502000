//! The sockets that the server listens on.
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::{
    AcceptConn, KeepAlive, ReuseAddr, ReusePort, TcpKeepCount, TcpKeepIdle,
    TcpKeepInterval,
};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
    SockaddrStorage, bind, getsockname, getsockopt, listen, setsockopt, socket,
};

/// How many clients may wait to be accepted, because all connect at once after
/// a restart. The kernel's own limit holds as well.
const BACKLOG: i32 = 16 * 1024;

/// How often, and how many times, a silent client is probed before its
/// connection counts as lost.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 6;

/// An address to listen on: `host:port`, `[v6]:port`, `*:port` or
/// `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host, none for all of this one's addresses, and a port.
    Tcp(Option<String>, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// One of the network.
    Tcp(TcpListener),
    /// One of the file system.
    Unix(UnixListener),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if Path::new(path).is_absolute() {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("the path of '{text}' is not absolute"))
            };
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("'{text}' has no port"))?;
        let port = port
            .parse()
            .map_err(|_| format!("'{port}' in '{text}' is not a port"))?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare.unwrap_or(host) {
            "" => Err(format!("'{text}' has no host")),
            "*" => Ok(Self::Tcp(None, port)),
            host if bare.is_none() && host.contains(':') => {
                Err(format!("the host of '{text}' needs brackets"))
            }
            host => Ok(Self::Tcp(Some(host.to_owned()), port)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(None, port) => write!(f, "*:{port}"),
            Self::Tcp(Some(host), port) if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            Self::Tcp(Some(host), port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

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
            Self::Unix(path) => {
                if is_stale(path) {
                    std::fs::remove_file(path)?;
                }
                vec![Listener::Unix(UnixListener::bind(path)?)]
            }
            Self::Tcp(None, port) => {
                // Of both families, unless this host lacks IPv6.
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
    let (family, name): (_, Box<dyn SockaddrLike>) = match address {
        SocketAddr::V4(address) => {
            (AddressFamily::Inet, Box::new(SockaddrIn::from(address)))
        }
        SocketAddr::V6(address) => {
            (AddressFamily::Inet6, Box::new(SockaddrIn6::from(address)))
        }
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // As the standard library does, so that a port is free once its server has
    // ended.
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, ReusePort, &true)?;
    bind(socket.as_raw_fd(), &*name)?;
    Ok(socket.into())
}

fn is_stale(path: &Path) -> bool {
    let is_socket = path
        .symlink_metadata()
        .is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_) => f.write_str("a closed socket"),
            },
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|name| name.as_pathname());
                match path {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => f.write_str("unix:"),
                }
            }
        }
    }
}

impl Listener {
    /// Makes sure that the socket listens, because no connection ever comes
    /// from a socket that does not listen.
    fn check(&self) -> io::Result<()> {
        let listens = match self {
            Self::Tcp(listener) => getsockopt(listener, AcceptConn)?,
            Self::Unix(listener) => getsockopt(listener, AcceptConn)?,
        };
        if listens {
            Ok(())
        } else {
            let kind = io::ErrorKind::InvalidInput;
            Err(io::Error::new(kind, format!("{self:?} does not listen")))
        }
    }

    /// Has the system probe the clients that were silent for `idle`. So a
    /// firewall in between does not forget their connections, and lost
    /// connections are noticed. The sockets of clients inherit the setting from
    /// this one.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_keep_alive(&self, idle: Duration) -> io::Result<()> {
        let Self::Tcp(listener) = self else {
            return Ok(());
        };
        let seconds =
            |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        setsockopt(listener, KeepAlive, &!idle.is_zero())?;
        if !idle.is_zero() {
            setsockopt(listener, TcpKeepIdle, &seconds(idle))?;
            setsockopt(listener, TcpKeepInterval, &seconds(idle.min(PROBE_EVERY)))?;
            setsockopt(listener, TcpKeepCount, &PROBES)?;
        }
        Ok(())
    }

    fn set_backlog(&self) -> io::Result<()> {
        let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
        match self {
            Self::Tcp(listener) => listen(&listener.as_fd(), backlog)?,
            Self::Unix(listener) => listen(&listener.as_fd(), backlog)?,
        }
        Ok(())
    }
}

/// The sockets that systemd hands over (`sd_listen_fds`), already listening.
/// Only the first call gets them.
///
/// # Errors
///
/// When one of them is no listening socket of a stream.
pub fn inherited() -> io::Result<Vec<Listener>> {
    let mut sockets = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..sockets.len() {
        // The family is read from the socket below, because the first call may
        // take a socket of either family.
        let Some(socket) = sockets
            .take_tcp_listener(index)
            .or_else(|_| Ok::<_, io::Error>(None))?
        else {
            if let Some(socket) = sockets.take_unix_listener(index)? {
                listeners.push(Listener::Unix(socket));
            }
            continue;
        };
        let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
        listeners.push(match name.family() {
            Some(AddressFamily::Unix) => Listener::Unix(OwnedFd::from(socket).into()),
            _ => Listener::Tcp(socket),
        });
    }
    for listener in &listeners {
        listener.check()?;
    }
    Ok(listeners)
}

/// Raises the limit of descriptors of this process to its maximum, because each
/// connection needs one. Returns the limit.
///
/// # Errors
///
/// When the system refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read() {
        let tcp =
            |host: Option<&str>, port| Ok(Address::Tcp(host.map(Into::into), port));
        for (text, address) in [
            ("localhost:8001", tcp(Some("localhost"), 8001)),
            ("127.0.0.1:0", tcp(Some("127.0.0.1"), 0)),
            ("[::1]:8001", tcp(Some("::1"), 8001)),
            ("*:8001", tcp(None, 8001)),
            (
                "unix:/run/bus.sock",
                Ok(Address::Unix("/run/bus.sock".into())),
            ),
            (
                "unix:bus.sock",
                Err("the path of 'unix:bus.sock' is not absolute"),
            ),
            ("localhost", Err("'localhost' has no port")),
            (":8001", Err("':8001' has no host")),
            ("::1:8001", Err("the host of '::1:8001' needs brackets")),
            ("localhost:x", Err("'x' in 'localhost:x' is not a port")),
            (
                "localhost:70000",
                Err("'70000' in 'localhost:70000' is not a port"),
            ),
        ] {
            let read = text.parse::<Address>();
            if let Ok(read) = &read {
                assert_eq!(read.to_string(), text);
            }
            assert_eq!(read, address.map_err(str::to_owned), "{text}");
        }
    }

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
