//! The polls of a database, by client.
pub(crate) mod client;
#[cfg(test)]
mod client_model;
pub(crate) mod clients;
pub(crate) mod database;
pub(crate) mod outcome;
mod places;
pub(crate) mod registration;
