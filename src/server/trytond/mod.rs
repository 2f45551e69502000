//! The facts that only trytond knows: databases, sessions, and the chats that
//! users may read.
mod backoff;
mod checks;
pub(crate) mod metrics;
mod recent;
pub(crate) mod rights;
pub(crate) mod sessions;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A session as a client names it, with the address of the client.
///
/// The login is not part of it, because trytond checks only the user, the token
/// and the address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The database.
    pub database: Box<str>,
    /// The id of the user.
    pub user: u32,
    /// The proof of the session.
    pub token: Box<str>,
    /// The address of the client, as far as it is known.
    pub address: Option<Box<str>>,
    /// Whether the connection comes from this host and passes no counted proxy.
    /// All such connections count as one client: `localhost` has two addresses,
    /// and a unix socket has none.
    pub is_local: bool,
}

/// trytond's answer for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The session is valid.
    Valid,
    /// The session never existed, has expired or was ended.
    Invalid,
    /// There is no such database.
    UnknownDatabase,
    /// trytond can't tell now, because the database can't be reached.
    Failed,
}

/// A question of access: which of these chats may the user follow?
#[derive(Clone, Debug)]
pub struct Asked {
    /// The database.
    pub database: Box<str>,
    /// The id of the user.
    pub user: u32,
    /// The chats, each of the form `chat:<model>,<id>`.
    pub chats: Vec<Box<str>>,
}

/// An answer of trytond, to be awaited.
pub type Answered<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// trytond, as the server asks it. No method may block.
pub trait Trytond: Send + Sync + 'static {
    /// Asks for databases by their names: whether each exists, or none when
    /// trytond can't tell now. One question is under way at a time.
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>>;

    /// Asks which of these sessions, all of one database, are valid. One
    /// question for each database is under way at a time.
    fn sessions(
        &self,
        database: &str,
        sessions: Vec<Arc<Session>>,
    ) -> Answered<Vec<Check>>;

    /// Asks which chats a user may follow; none when trytond can't tell now. If
    /// the future is dropped, the answer is not needed any more.
    fn readable(&self, asked: Asked) -> Answered<Option<Vec<Box<str>>>>;

    /// Called when the bus of a database was made for a poll, and the database
    /// is not listened to yet.
    fn opened(&self, database: &str);
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("database", &self.database)
            .field("user", &self.user)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
