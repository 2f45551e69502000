//! The parts of a request and of its answer. Nothing here knows the server.
pub(crate) mod address;
pub(crate) mod cors;
pub(crate) mod credential;
pub(crate) mod poll_request;
pub(crate) mod received;
pub(crate) mod refusal;
pub(crate) mod reply;
mod route;
