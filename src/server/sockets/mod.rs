//! The sockets: those that the server listens on, and connections that come in.
pub(crate) mod accept;
pub(crate) mod handshake;
pub(crate) mod listen;
pub(crate) mod systemd;
