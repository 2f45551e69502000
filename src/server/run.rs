//! The server as a whole: from its sockets to its end.
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::admin;
use super::app::App;
use super::config::Config;
use super::drain::Period;
use super::sockets::Listener;
use super::sockets::accept::Accept;
use super::sockets::acceptor::Acceptor;
use super::trytond::Trytond;
use crate::registry::Process;

/// How often unused entries are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How long the server waits, after the drain, for another connection to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the server waits, after the drain, for all connections.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// The signal to stop, given by the caller; clones are the same signal.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    given: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// A signal that was not given yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the server to drain and end.
    pub fn stop(&self) {
        self.given.send_replace(true);
    }

    async fn given(&self) {
        let mut given = self.given.subscribe();
        // The sender exists as long as this.
        let _ = given.wait_for(|given| *given).await;
    }
}

/// Serves the buses of `process` until `stop` is given and the drain is over,
/// on sockets that listen already: `listeners` for clients, `admin` for
/// administrators.
///
/// Messages come by [`Process::publish`]. It runs on a runtime of tokio with
/// time and input enabled. The remaining connections end with that runtime.
///
/// # Errors
///
/// When a socket can't be used.
pub async fn run(
    config: Config,
    listeners: Vec<Listener>,
    admin: Vec<Listener>,
    trytond: Arc<dyn Trytond>,
    process: Arc<Process>,
    stop: Stop,
) -> io::Result<()> {
    let app = Arc::new(App::new(config, trytond, process));
    let most = app
        .config
        .limits
        .max_connections
        .min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(most));
    let (until, over) = watch::channel(());
    let accept = Accept {
        app: app.clone(),
        places: places.clone(),
        over,
    };
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept.clone().run(Acceptor::new(listener)?));
    }
    let _others = others(&app, admin)?;
    select! {
        () = stop.given() => {}
        () = tidy(&app) => {}
    }
    let period = drain(&app);
    sleep_until(period.closing()).await;
    drop(until);
    let accepted = async { while accepting.join_next().await.is_some() {} };
    let _ = timeout(PATIENCE, accepted).await;
    // Stopped before the places are taken back, because these tasks might want
    // one.
    accepting.shutdown().await;
    sleep_until(period.end()).await;
    last_answers(&app, &places, most).await;
    Ok(())
}

/// The tasks beside those that accept clients. They end when this is dropped.
fn others(app: &Arc<App>, admin: Vec<Listener>) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let relaying = app.clone();
    tasks.spawn(async move { relaying.databases.relay().await });
    let sessions = app.sessions.clone();
    tasks.spawn(async move { sessions.renew().await });
    for listener in admin {
        let acceptor = Acceptor::new(listener)?;
        tasks.spawn(admin::accept(acceptor, app.clone()));
    }
    Ok(tasks)
}

/// Begins the drain; returns its time.
fn drain(app: &App) -> Period {
    app.metrics.draining.set(1);
    // Without a client there is nothing to spread.
    let length = match app.metrics.connections.get() {
        0 => Duration::ZERO,
        _ => app.config.drain,
    };
    app.drain.begin(length)
}

/// Runs until the end of the server.
async fn tidy(app: &App) {
    let mut ticks = interval(TIDY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        app.databases.tidy();
        app.sessions.tidy();
    }
}

/// Waits for the remaining connections, until all of the `most` places are
/// given back. Each ends by itself, at the latest with its next answer. On a
/// busy machine, or over a slow network, that takes a while.
async fn last_answers(app: &App, places: &Semaphore, most: usize) {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let ended = async {
        let mut all = pin!(places.acquire_many(most));
        loop {
            let open = app.metrics.connections.get();
            select! {
                _ = &mut all => return,
                () = sleep(PATIENCE) => {}
            }
            if app.metrics.connections.get() >= open {
                return;
            }
        }
    };
    let _ = timeout(LAST_ANSWERS, ended).await;
}
