//! A message bus for the Tryton server.
//!
//! The engine knows neither Python nor a clock nor a configuration. The Python
//! package around it ties it to trytond.
//!
//! # Layout
//!
//! - [`error`]: the errors of the engine
//! - [`json`]: writing JSON as Python does
//! - [`message`]: a message, from a NOTIFY to a response
//! - [`parts`]: payloads larger than a NOTIFY allows
//! - [`poll`]: the channels of a poll, limited to those that its user may see
//! - [`access`]: the cached answers about the chats that a user may follow
//! - `index`, `queue`: a hash table and a queue that grow a little at a time
//! - [`history`]: the retained messages of one database, and the ids of those
//!   that were evicted
//! - [`waiter`]: a subscriber that waits, and how to wake it
//! - [`waitlist`]: the waiters by channel
//! - `look`: looks into the database, and the polls that wait for one
//! - `journal`: how far the journal of a database was read
//! - `settle`: decides whether a poll needs a look or a row before the history
//!   can answer it
//! - [`alarm`]: wakes the listening thread
//! - [`bus`]: one database's bus, history and waiters behind one lock
//! - [`fanout`]: the threads that wake waiters
//! - [`gate`]: limits the threads that request Python's lock at a time
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
pub mod history;
mod index;
mod journal;
#[cfg(all(test, not(loom)))]
mod journal_model;
pub mod json;
mod look;
#[cfg(all(test, not(loom)))]
mod look_model;
pub mod message;
pub mod parts;
pub mod poll;
#[cfg(feature = "python")]
mod python;
mod queue;
pub mod registry;
#[cfg(feature = "server")]
pub mod server;
mod settle;
mod sync;
pub mod waiter;
pub mod waitlist;
pub mod watchdog;

pub use error::{Error, Result};
