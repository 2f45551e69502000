//! The connections that come to a socket.
use std::io;
use std::net::IpAddr;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::listener::Listener;

/// A socket whose connections are accepted by the runtime.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
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
                Self::Tcp(TcpListener::from_std(listener)?)
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
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Accepted::Tcp(stream, address.ip())
            }
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}
