//! The settings of the administrator.
use std::sync::Arc;
use std::time::Duration;

use super::tls::Tls;
use crate::history::Bounds;

/// How the server behaves. The defaults are trytond's where it has one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether clients may poll. If not, they get 501 and stop until their next
    /// login.
    pub allow_subscribe: bool,
    /// Whether a user's notification is answered on the client's channel.
    pub relay_user: bool,
    /// The time after which a poll is answered without a message.
    pub long_polling_timeout: Duration,
    /// The limits of the history of each database. A client is also forgotten
    /// when it had no poll for its `cache_timeout`.
    pub history: Bounds,
    /// Origins other than the server's own that a browser may poll from, as
    /// in `https://tryton.example.com`.
    pub cors: Vec<Box<str>>,
    /// How many reverse proxies add their peer to `X-Forwarded-For`.
    pub num_proxies: usize,
    /// Whether a user may follow only the chats of records that the user may
    /// read.
    pub check_access: bool,
    /// How long a valid session, and the answer to an access check, are cached.
    pub session_cache: Duration,
    /// The time over which the waiting polls are answered when the server
    /// stops.
    pub drain: Duration,
    /// The limits of a single client.
    pub limits: Limits,
    /// The certificate with which TCP sockets speak TLS; none without TLS.
    pub tls: Option<Arc<Tls>>,
}

/// The limits of clients, such that none takes resources from the others. The
/// defaults are made for 10,000 clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the head of a request; more are refused with 431. At least
    /// 8192.
    pub header_size: usize,
    /// How long the head of a request may take to arrive.
    pub header_timeout: Duration,
    /// Bytes of the body of a request; more are refused with 413.
    pub body_size: usize,
    /// How long the body of a request may take to arrive; then it is refused
    /// with 400.
    pub body_timeout: Duration,
    /// How long a client may take for each 16 KiB of an answer.
    pub write_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// The channels of a poll; more are refused with 400.
    pub max_channels: usize,
    /// Bytes of the name of a channel; more are refused with 400.
    pub channel_size: usize,
    /// The waiting polls of a user of a database; more are refused with 429.
    pub session_polls: usize,
    /// The waiting polls of the server. A poll beyond them is answered at once
    /// if a message is there, otherwise without one after `hold_time`.
    pub max_polls: usize,
    /// The connections of the server. No other is accepted while this number is
    /// reached.
    pub max_connections: usize,
    /// How long a poll is held that can't be served now, for example because
    /// trytond can't tell whether its session is valid.
    pub hold_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow_subscribe: true,
            relay_user: true,
            long_polling_timeout: Duration::from_secs(300),
            history: Bounds {
                cache_timeout: Duration::from_secs(300),
                journal_timeout: None,
                cache_size: 64 * 1024 * 1024,
            },
            cors: Vec::new(),
            num_proxies: 0,
            check_access: false,
            session_cache: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            limits: Limits::default(),
            tls: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_size: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            body_size: 64 * 1024,
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_channels: 256,
            channel_size: 256,
            session_polls: 100,
            max_polls: 20_000,
            max_connections: 25_000,
            hold_time: Duration::from_secs(20),
        }
    }
}
