//! A socket that listens.
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How many clients may wait to be accepted, because all connect at once after
/// a restart. The kernel's own limit holds as well.
const BACKLOG: i32 = 16 * 1024;

/// How often a client is probed that does not answer, and how many times.
///
/// The times are the most that Linux allows. The probes of many clients can be
/// dropped by a queue of the system, and then the server must not close the
/// connections: the clients would not hear of that either, and would wait for a
/// server that no longer knows them. A client that is really gone leaves when
/// its poll ends.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 127;

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
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
    fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(listener) => listener.into(),
            Self::Unix(listener) => listener.into(),
        }
    }

    /// Whether the socket listens. Otherwise no connection ever comes from it.
    pub(super) fn listens(&self) -> io::Result<bool> {
        self.socket().is_listener()
    }

    /// Lets the system probe clients that were silent for `idle`, or up to half
    /// of that less, so that no firewall drops their connections.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_keep_alive(&self, idle: Duration) -> io::Result<()> {
        if let Self::Unix(_) = self {
            return Ok(());
        }
        if idle.is_zero() {
            return self.socket().set_keepalive(false);
        }
        let probes = TcpKeepalive::new()
            .with_time(idle)
            .with_interval(idle.min(PROBE_EVERY))
            .with_retries(PROBES);
        self.socket().set_tcp_keepalive(&probes)
    }

    pub(super) fn set_backlog(&self) -> io::Result<()> {
        self.socket().listen(BACKLOG)
    }
}
