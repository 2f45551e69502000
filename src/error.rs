//! The errors of the engine.
use std::fmt;

/// The result of an operation of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine, with a variant for each case that a caller can act
/// on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A payload is not JSON, or JSON of another shape than a message's.
    Payload(serde_json::Error),
    /// A payload is JSON, but not an object.
    NotAnObject(&'static str),
    /// A row of the journal is larger than this process allows.
    TooLarge,
    /// A part of a large payload does not follow the part before it.
    Part(&'static str),
    /// The system refuses to start another thread.
    Thread(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(source) => write!(f, "not a message: {source}"),
            Self::NotAnObject(what) => {
                write!(f, "not a message: the {what} is not an object")
            }
            Self::TooLarge => {
                write!(f, "larger than [bus] message_size and cache_size")
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
            Self::NotAnObject(_) | Self::TooLarge | Self::Part(_) => None,
        }
    }
}
