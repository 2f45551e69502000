//! Messages to the service manager, if one listens.
use std::io;

use sd_notify::{NotifyState, notify};

/// Tells that the server is ready.
///
/// # Errors
///
/// When the socket of the service manager can't be written to.
pub fn notify_ready() -> io::Result<()> {
    notify(&[NotifyState::Ready])
}

/// Tells that the server drains.
///
/// # Errors
///
/// As for [`notify_ready`].
pub fn notify_stopping() -> io::Result<()> {
    notify(&[NotifyState::Stopping])
}
