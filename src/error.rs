//! What can go wrong in the engine.
use std::fmt;

/// The result of an operation of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the engine, a variant for each thing a caller can
/// act on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A payload is not JSON, or JSON of another shape than a message's.
    Payload(serde_json::Error),
    /// A payload is JSON but no object.
    NotAnObject(&'static str),
    /// A piece of a large payload does not fit those before it.
    Part(&'static str),
    /// The system gives no further thread.
    Thread(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(source) => write!(f, "not a message: {source}"),
            Self::NotAnObject(what) => {
                write!(f, "not a message: the {what} is not an object")
            }
            Self::Part(why) => write!(f, "not a part of a message: {why}"),
            Self::Thread(source) => write!(f, "no thread can be started: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Payload(source) => Some(source),
            Self::Thread(source) => Some(source),
            Self::NotAnObject(_) | Self::Part(_) => None,
        }
    }
}
