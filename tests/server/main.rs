//! The bus server over real sockets, with clients as they are and as they
//! should not be. One binary: a test binary takes seconds to link.
#![cfg(feature = "server")]

mod support;

mod access;
mod bounds;
mod faults;
mod garbage;
mod http;
mod http2;
mod journal;
#[cfg(target_os = "linux")]
mod memory;
mod page;
mod sockets;
mod status;
mod tls;
