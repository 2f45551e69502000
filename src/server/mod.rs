//! The bus server: it holds the long polls of all clients in one process,
//! without a thread for each.
//!
//! The caller owns the sockets and says when to stop. trytond is behind the
//! trait [`Trytond`]. Messages are published on the buses of the
//! [registry](crate::registry).
//!
//! A connection comes in through `sockets`, with a certificate through `tls`, and
//! is served by `http`. `app` answers each request. It reads the request with
//! `request`, asks `trytond` for the session and for access, gives the poll its
//! place in `polls`, and has it `wait` there for its message.
mod admin;
mod app;
mod config;
mod drain;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod handle;
mod http;
pub(crate) mod metrics;
mod polls;
mod request;
mod run;
mod sockets;
mod tls;
mod trytond;
mod wait;

pub use config::{Config, Limits};
pub use handle::Server;
pub use run::{Stop, run};
pub use sockets::{
    Address, Listener, inherited, notify_ready, notify_stopping, raise_descriptor_limit,
};
pub use tls::Tls;
pub use trytond::{Answered, Asked, Check, Session, Trytond};
