//! The bus server: it holds the long polls of all clients in one process,
//! without a thread for each.
//!
//! The caller owns the sockets and says when to stop. trytond is behind the
//! trait [`Trytond`]. Messages are published on the buses of the
//! [registry](crate::registry).
//!
//! A connection comes in through `sockets`, with a certificate through `tls`, and
//! is served by `http`. `app` answers each request. It reads the request with
//! `request`, asks `trytond` for the session and for access, registers the poll
//! in `polls`, and has it `wait` there for its message.
//!
//! # Layout
//!
//! From the top down; each module uses only modules below it.
//!
//! - `handle`: the server on threads of its own
//! - `run`: the server from its sockets to its end
//! - `admin`: the pages for administrators
//! - `sockets`: addresses, sockets that listen, and connections that come in
//! - `http`: a connection of HTTP/1 or HTTP/2, its requests and its answers
//! - `app`: the way of a request to its answer
//! - `polls`: the polls and the clients of each database
//! - `request`: the parts of a request and of its answer
//! - `trytond`: the facts that only trytond knows, and their caches
//! - `metrics`: the metrics, in the format of Prometheus
//! - `wait`: waiting for a client that may leave meanwhile
//! - `config`: the settings
//! - `tls`: the certificate
//! - `drain`: the end of the server, spread over some seconds
//! - `fuzz`: the properties that hold for any input
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
