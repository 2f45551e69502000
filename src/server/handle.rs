//! The server with a runtime of its own, for callers that have none.
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::config::Config;
use super::run::{Stop, run};
use super::sockets::Listener;
use super::trytond::Trytond;
use crate::registry::Process;
use crate::sync::{Mutex, lock};

/// A server that runs on threads of its own.
#[derive(Debug)]
pub struct Server {
    stop: Stop,
    /// Gets the result of the server when it has ended.
    ended: Mutex<Receiver<io::Result<()>>>,
    /// None once it was joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Starts the server, on `workers` threads and one that waits for them.
    /// For the rest see [`run`].
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(
        config: Config,
        listeners: Vec<Listener>,
        admin: Vec<Listener>,
        trytond: Arc<dyn Trytond>,
        process: Arc<Process>,
        workers: usize,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers.max(1))
            .thread_name("bus-server")
            .enable_all()
            .build()?;
        let stop = Stop::new();
        let (sender, ended) = mpsc::channel();
        let server = run(config, listeners, admin, trytond, process, stop.clone());
        let thread =
            thread::Builder::new()
                .name("bus-server".into())
                .spawn(move || {
                    let result = runtime.block_on(async { tokio::spawn(server).await });
                    let result = result.unwrap_or_else(|error| Err(error.into()));
                    // The remaining connections end here.
                    runtime.shutdown_background();
                    // The receiver is gone only if the handle was dropped.
                    let _ = sender.send(result);
                })?;
        Ok(Self {
            stop,
            ended: Mutex::new(ended),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Begins to drain, and then ends. Only the first call counts.
    pub fn drain(&self) {
        self.stop.stop();
    }

    /// Waits for the end of the server, for at most `timeout`; none when
    /// that has passed.
    pub fn wait(&self, timeout: Duration) -> Option<io::Result<()>> {
        let result = lock(&self.ended).recv_timeout(timeout);
        match result {
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            // The result was taken by an earlier call.
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(Ok(())),
            Ok(result) => {
                if let Some(thread) = lock(&self.thread).take() {
                    // A thread that panicked has ended as well.
                    let _ = thread.join();
                }
                Some(result)
            }
        }
    }
}
