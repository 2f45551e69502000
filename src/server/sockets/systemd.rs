//! The service manager: the sockets that it hands over, and messages to it.
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use sd_notify::{NotifyState, notify};
use socket2::SockRef;

use super::listener::Listener;

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
        let is_unix = SockRef::from(&socket).local_addr()?.is_unix();
        listeners.push(if is_unix {
            Listener::Unix(OwnedFd::from(socket).into())
        } else {
            Listener::Tcp(socket)
        });
    }
    for listener in &listeners {
        listener.check()?;
    }
    Ok(listeners)
}

/// Tells the service manager that the server is ready.
///
/// # Errors
///
/// When the socket of the service manager can't be written to.
pub fn notify_ready() -> io::Result<()> {
    notify(&[NotifyState::Ready])
}

/// Tells the service manager that the server drains.
///
/// # Errors
///
/// As for [`notify_ready`].
pub fn notify_stopping() -> io::Result<()> {
    notify(&[NotifyState::Stopping])
}
