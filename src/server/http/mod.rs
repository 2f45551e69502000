//! HTTP/1 and HTTP/2: a connection, its requests and its answers.
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod park;
#[cfg(test)]
mod park_tests;
mod streams;
