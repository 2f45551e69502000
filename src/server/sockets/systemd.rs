//! The service manager: the sockets that it hands over, and messages to it.
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use sd_notify::{NotifyState, notify};
use socket2::SockRef;

use super::listener::Listener;

/// The number of the first descriptor that systemd hands over.
const FIRST: usize = 3;

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
            let socket = sockets.take_unix_listener(index);
            // Its error names only the last kind that was tried.
            let socket =
                socket.map_err(|_| wrong(index, "is no socket for streams"))?;
            listeners.extend(socket.map(Listener::Unix));
            continue;
        };
        let is_unix = SockRef::from(&socket).local_addr()?.is_unix();
        listeners.push(if is_unix {
            Listener::Unix(OwnedFd::from(socket).into())
        } else {
            Listener::Tcp(socket)
        });
    }
    for (index, listener) in listeners.iter().enumerate() {
        if !listener.listens()? {
            return Err(wrong(index, "does not listen"));
        }
    }
    Ok(listeners)
}

fn wrong(index: usize, fault: &str) -> io::Error {
    let number = FIRST + index;
    let text = format!(
        "descriptor {number} {fault}: use ListenStream in the socket unit, and \
         Accept=no"
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Tells the service manager that the server is ready.
pub fn notify_ready() {
    tell(NotifyState::Ready);
}

/// Tells the service manager that the server drains.
pub fn notify_stopping() {
    tell(NotifyState::Stopping);
}

/// A fault of the service manager is no reason to disconnect clients.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = notify(&[state]) {
        log::warn!(
            target: "trytond.bus",
            "the state of the server is not sent over NOTIFY_SOCKET: {error}",
        );
    }
}
