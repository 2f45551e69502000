//! The server, for all its connections.
mod answer;
mod hold;
mod open;
mod wait;

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

pub(crate) use self::answer::{Answer, Delivery};
use super::config::Config;
use super::drain::Drain;
use super::metrics::Metrics;
use super::polls::database::Databases;
use super::trytond::Trytond;
use super::trytond::metrics::SessionMetrics;
use super::trytond::rights::Rights;
use super::trytond::sessions::Sessions;
use crate::registry::Process;

/// The server, for all its connections.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) databases: Databases,
    pub(crate) sessions: Arc<Sessions>,
    /// None if any chat may be followed.
    rights: Option<Rights>,
    pub(crate) metrics: Metrics,
    pub(crate) drain: Drain,
    /// Tells the connection that has been idle for the longest time to close.
    pub(crate) crowded: Notify,
    /// A permit for each poll that may still wait.
    polls: Semaphore,
}

impl App {
    /// A server of the buses of `process`, without a connection.
    pub(crate) fn new(
        config: Config,
        trytond: Arc<dyn Trytond>,
        process: Arc<Process>,
    ) -> Self {
        let metrics = Metrics::new(&config);
        let rights = config.check_access.then(|| {
            let (process, trytond) = (process.clone(), trytond.clone());
            Rights::new(process, trytond, config.session_cache)
        });
        Self {
            rights,
            databases: Databases::new(
                process,
                config.history,
                config.limits.session_polls,
                trytond.clone(),
            ),
            sessions: Arc::new(Sessions::new(
                trytond,
                config.session_cache,
                config.limits.session_polls,
                SessionMetrics::new(metrics.registry()),
            )),
            metrics,
            drain: Drain::default(),
            crowded: Notify::new(),
            polls: Semaphore::new(most_polls(&config)),
            config,
        }
    }

    /// How many polls wait.
    pub(crate) fn polls_waiting(&self) -> usize {
        most_polls(&self.config) - self.polls.available_permits()
    }

    /// All metrics as text. It is called within the runtime, whose tasks are
    /// counted as well.
    pub(crate) fn metrics_text(&self) -> String {
        let databases = self.databases.list();
        self.metrics
            .text(&self.config, self.polls_waiting(), &databases)
    }
}

fn most_polls(config: &Config) -> usize {
    config.limits.max_polls.min(Semaphore::MAX_PERMITS)
}
