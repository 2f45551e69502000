//! The polls of a database, by client.
mod client;
#[cfg(test)]
mod client_model;
mod clients;
pub(crate) mod database;
mod list;
pub(crate) mod outcome;
mod places;
pub(crate) mod registration;
