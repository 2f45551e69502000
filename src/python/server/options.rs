//! The options of the bus server, and its start.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use crossbeam_channel::unbounded;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use super::PyServer;
use super::requests::Threads;
use crate::history::Bounds;
use crate::registry;
use crate::server::{
    Address, Config, Limits, Listener, Server, Tls, inherited, raise_descriptor_limit,
};

/// The configuration, from a dictionary. Times are in seconds.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
pub(super) struct Options {
    listen: Vec<String>,
    reuse_port: bool,
    admin_listen: Vec<String>,
    keep_alive: f64,
    threads: usize,
    allow_subscribe: bool,
    relay_user: bool,
    long_polling_timeout: f64,
    cache_timeout: f64,
    cache_size: usize,
    /// None without a journal.
    journal_timeout: Option<f64>,
    cors: Vec<String>,
    num_proxies: usize,
    check_access: bool,
    session_cache: f64,
    drain: f64,
    header_size: usize,
    header_timeout: f64,
    body_size: usize,
    body_timeout: f64,
    write_timeout: f64,
    idle_timeout: f64,
    max_channels: usize,
    channel_size: usize,
    session_polls: usize,
    max_polls: usize,
    max_connections: usize,
    hold_time: f64,
    /// The paths of the certificate and of its key, none without TLS.
    ssl: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// Starts the server.
    pub(super) fn start(self) -> PyResult<PyServer> {
        let config = self.config()?;
        let tls = config.tls.clone();
        let mut listeners = inherited().map_err(|error| {
            io_error("a socket of the service manager (LISTEN_FDS)", &error)
        })?;
        if listeners.is_empty() {
            let bind_one = if self.reuse_port {
                Address::bind_beside
            } else {
                Address::bind
            };
            listeners = bind("listen", &self.listen, bind_one)?;
        }
        let admin = bind("admin_listen", &self.admin_listen, Address::bind)?;
        let keep_alive = time("keep_alive", self.keep_alive)?;
        for listener in listeners.iter().chain(&admin) {
            listener.set_keep_alive(keep_alive).map_err(|error| {
                io_error(&format!("keep_alive, {listener}"), &error)
            })?;
        }
        let addresses = listeners.iter().chain(&admin);
        let addresses = addresses.map(ToString::to_string).collect();
        let descriptors = raise_descriptor_limit()?;
        let workers = match self.threads {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let (sender, requests) = unbounded();
        let server = Server::start(
            config,
            listeners,
            admin,
            Arc::new(Threads::new(sender)),
            registry::current(),
            workers,
        )?;
        Ok(PyServer {
            server,
            requests,
            addresses,
            descriptors,
            tls,
        })
    }

    fn config(&self) -> PyResult<Config> {
        let tls = self.ssl.as_ref().map(|(certificate, key)| {
            Tls::read(certificate, key).map_err(|error| ssl_error(&error))
        });
        Ok(Config {
            tls: tls.transpose()?.map(Arc::new),
            allow_subscribe: self.allow_subscribe,
            relay_user: self.relay_user,
            long_polling_timeout: time(
                "long_polling_timeout",
                self.long_polling_timeout,
            )?,
            history: Bounds {
                cache_timeout: time("cache_timeout", self.cache_timeout)?,
                journal_timeout: self
                    .journal_timeout
                    .map(|seconds| time("journal_timeout", seconds))
                    .transpose()?,
                cache_size: self.cache_size,
            },
            cors: self.cors.iter().map(|origin| (**origin).into()).collect(),
            num_proxies: self.num_proxies,
            check_access: self.check_access,
            session_cache: time("session_cache", self.session_cache)?,
            drain: time("drain", self.drain)?,
            limits: Limits {
                header_size: self.header_size,
                header_timeout: time("header_timeout", self.header_timeout)?,
                body_size: self.body_size,
                body_timeout: time("body_timeout", self.body_timeout)?,
                write_timeout: time("write_timeout", self.write_timeout)?,
                idle_timeout: time("idle_timeout", self.idle_timeout)?,
                max_channels: self.max_channels,
                channel_size: self.channel_size,
                session_polls: self.session_polls,
                max_polls: self.max_polls,
                max_connections: self.max_connections,
                hold_time: time("hold_time", self.hold_time)?,
            },
        })
    }
}

fn bind(
    option: &str,
    addresses: &[String],
    bind_one: fn(&Address) -> io::Result<Vec<Listener>>,
) -> PyResult<Vec<Listener>> {
    let mut listeners = Vec::new();
    for text in addresses {
        let address: Address = text
            .parse()
            .map_err(|error| PyValueError::new_err(format!("{option}: {error}")))?;
        let bound = bind_one(&address)
            .map_err(|error| io_error(&format!("{option} {address}"), &error))?;
        listeners.extend(bound);
    }
    Ok(listeners)
}

pub(super) fn ssl_error(error: &str) -> PyErr {
    PyValueError::new_err(format!("[ssl] in the configuration: {error}"))
}

fn io_error(what: &str, error: &io::Error) -> PyErr {
    PyOSError::new_err(format!("{what}: {error}"))
}

pub(super) fn time(option: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| {
        PyValueError::new_err(format!("{option} of {seconds} seconds: {error}"))
    })
}
