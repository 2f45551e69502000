//! HTTP/1 and HTTP/2: a connection, its requests and its answers.
mod body;
pub(crate) mod http1;
pub(crate) mod http2;
mod lifetime;
pub(crate) mod open;
mod park;
mod streams;
#[cfg(test)]
mod tests;
mod wire;
