//! The connections that come to a socket.
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::listener::Listener;

/// A socket whose connections are accepted by the runtime.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener, Option<Probing>),
    Unix(UnixListener),
}

/// The silence of a client after which the system probes its connection.
///
/// It is another for each connection, between the half of the setting and all of
/// it. A message to all clients begins the silence of all of them at once. If
/// the system then sent thousands of probes at the same time, its queues would
/// drop most of them, and other packets with them.
#[derive(Debug)]
pub(crate) struct Probing {
    /// In seconds.
    longest: u64,
    accepted: AtomicU64,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A TCP connection, and the address of its peer.
    Tcp(TcpStream, IpAddr),
    /// A connection over a unix socket.
    Unix(UnixStream),
}

impl Acceptor {
    /// Lets the runtime take over a socket.
    ///
    /// # Errors
    ///
    /// When the socket can't be used.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let probing = Probing::of(&listener)?;
                Self::Tcp(TcpListener::from_std(listener)?, probing)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
        })
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// When it can't be accepted.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener, probing) => {
                let (stream, address) = listener.accept().await?;
                if let Some(probing) = probing {
                    // A socket that refuses keeps the setting of the listener.
                    let _ = SockRef::from(&stream).set_tcp_keepalive(
                        &TcpKeepalive::new().with_time(probing.next()),
                    );
                }
                Accepted::Tcp(stream, address.ip())
            }
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}

impl Probing {
    /// The setting of a socket, whose connections inherit the rest of it.
    fn of(listener: &std::net::TcpListener) -> io::Result<Option<Self>> {
        let socket = SockRef::from(listener);
        if !socket.keepalive()? {
            return Ok(None);
        }
        Ok(Some(Self {
            longest: socket.tcp_keepalive_time()?.as_secs(),
            accepted: AtomicU64::new(0),
        }))
    }

    /// The silence for the next connection.
    fn next(&self) -> Duration {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs(self.longest - number % (self.longest / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn silences(longest: u64) -> BTreeSet<u64> {
        let probing = Probing {
            longest,
            accepted: AtomicU64::new(0),
        };
        (0..1000).map(|_| probing.next().as_secs()).collect()
    }

    #[test]
    fn silences_of_connections_are_spread_over_half_of_the_setting() {
        assert_eq!(silences(60), (30..=60).collect());
        assert_eq!(silences(3), [2, 3].into());
        assert_eq!(silences(1), [1].into());
    }
}
