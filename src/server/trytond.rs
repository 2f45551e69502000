//! What only trytond knows: databases, sessions, and what users may read.
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A session as a client names it, with the address that the client has.
///
/// The login is no part of it: trytond checks the user, the token and the
/// address only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The database.
    pub database: Box<str>,
    /// The id of the user.
    pub user: u32,
    /// What proves it.
    pub token: Box<str>,
    /// The address of the client, as far as it is known.
    pub address: Option<Box<str>>,
    /// Whether the connection comes from this host, and not through a proxy
    /// that is counted. Such a session is that of any other such connection:
    /// `localhost` has two addresses, and a unix socket none.
    pub is_local: bool,
}

/// What trytond says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is valid.
    Valid,
    /// It never existed, has expired or was ended.
    Invalid,
    /// There is no such database.
    UnknownDatabase,
    /// It can't be told now: the database can't be reached.
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
    /// Asks for databases by their names: whether each exists, or none where
    /// that can't be told now. One question is under way at a time.
    fn databases(&self, names: Vec<Box<str>>) -> Answered<Option<Vec<bool>>>;

    /// Asks which of these sessions, all of one database, are valid. One
    /// question for each database is under way at a time.
    fn sessions(
        &self,
        database: &str,
        sessions: Vec<Arc<Session>>,
    ) -> Answered<Vec<Check>>;

    /// Asks which chats a user may follow; none where that can't be told now.
    /// If the future is dropped, nothing needs to be found out any more.
    fn readable(&self, asked: Asked) -> Answered<Option<Vec<Box<str>>>>;

    /// Is told that the bus of a database was made for a poll, and that the
    /// database is not listened to yet.
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
