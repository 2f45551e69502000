//! The sockets: those that the server listens on, and connections that come in.
pub(crate) mod accept;
pub(crate) mod acceptor;
mod address;
mod bind;
mod descriptors;
mod handshake;
mod listener;
mod systemd;

pub use address::Address;
pub use descriptors::raise_descriptor_limit;
pub use listener::Listener;
pub use systemd::{inherited, notify_ready, notify_stopping};
