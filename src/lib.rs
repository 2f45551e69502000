//! A message bus for the Tryton server.
//!
//! The engine knows neither Python nor a clock nor a configuration; what
//! ties it to trytond is the Python package around it.
//!
//! # Layout
//!
//! - [`error`]: what can go wrong in the engine
//! - [`json`]: writing JSON as Python does
//! - [`message`]: a message, from a NOTIFY to a response
//! - [`parts`]: payloads larger than a NOTIFY allows
//! - [`poll`]: what a client asks for, and what it may see of it
//! - [`access`]: which chats a user may follow, as far as trytond was asked
//! - [`history`]: the retained messages of one database
//! - [`waiter`]: a subscriber that waits, and how to wake it
//! - [`waitlist`]: who waits on which channels
//! - `gone`: what is known of messages that left it for want of room
//! - `look`: looks into the database, and the polls that wait for one
//! - `journal`: how far the journal of a database was read
//! - `settle`: what a poll has to wait for before the history can answer it
//! - [`alarm`]: wakes the thread that listens
//! - [`bus`]: one database's bus, history and waiters behind one lock
//! - [`fanout`]: the threads that wake waiters
//! - [`gate`]: lets a few threads at a time ask for Python's lock
//! - [`watchdog`]: a time limit for calls that can't be interrupted
//! - [`registry`]: the buses of this process
//! - [`server`]: the bus server, with the feature of that name
//! - `sync`: the locks of the standard library, or of the model checker
//! - `python`: the native module, the only place that knows Python
pub mod access;
pub mod alarm;
pub mod bus;
pub mod error;
pub mod fanout;
#[cfg(all(feature = "server", any(fuzzing, all(test, not(loom)))))]
#[doc(hidden)]
pub mod fuzz;
pub mod gate;
mod gone;
pub mod history;
mod journal;
pub mod json;
mod look;
pub mod message;
pub mod parts;
pub mod poll;
#[cfg(feature = "python")]
mod python;
pub mod registry;
#[cfg(feature = "server")]
pub mod server;
mod settle;
mod sync;
pub mod waiter;
pub mod waitlist;
pub mod watchdog;

pub use error::{Error, Result};
