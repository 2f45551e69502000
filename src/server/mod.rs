//! The bus server: it holds the long polls of all clients in one process,
//! without a thread for each.
//!
//! The caller owns the sockets and says when to stop. trytond is behind the
//! trait [`Trytond`]. Messages are published on the buses of the
//! [registry](crate::registry).
//!
//! A request passes through the files in this order: `accept`, `connection`,
//! `park` (hyper reads it), `app`, which asks `route`, `cors`, `question`,
//! `credential`, `address`, `sessions` and `access`, then `wait` (for the
//! message that `clients`, or the bus, gives the poll) and `reply`. With a
//! certificate, `tls` (which has it from `certificate`) comes before
//! `connection`, or before `http2`, which replaces `connection`.
mod accept;
mod access;
mod address;
mod admin;
mod app;
mod certificate;
mod checks;
mod client;
#[cfg(test)]
mod client_model;
mod clients;
mod config;
mod connection;
mod cors;
mod credential;
mod database;
mod drain;
pub(crate) mod exposition;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod handle;
mod http2;
mod listen;
pub(crate) mod metrics;
mod p521;
mod park;
#[cfg(test)]
mod park_tests;
mod places;
mod question;
mod recent;
mod reply;
mod route;
mod run;
mod sessions;
mod streams;
mod systemd;
mod tls;
mod trytond;
mod wait;

pub use config::{Config, Limits};
pub use handle::Server;
pub use listen::{Address, Listener, inherited, raise_descriptor_limit};
pub use run::{Stop, run};
pub use systemd::{notify_ready, notify_stopping};
pub use tls::Tls;
pub use trytond::{Answered, Asked, Check, Session, Trytond};
