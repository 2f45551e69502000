//! The bus server over real sockets, with well-behaved and misbehaving clients.
//! They share one binary, because linking a test binary takes seconds.
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
