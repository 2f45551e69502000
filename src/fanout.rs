//! The pool of threads that wakes waiters, so that a publisher does not wait
//! until a thousand of them are awake.
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, SendError, Sender, unbounded};

use crate::bus::Crowd;
use crate::error::{Error, Result};
use crate::sync::{Mutex, lock};

/// How many waiters a worker wakes before it takes the next job. The number is
/// small enough to share a crowd among the workers, and large enough that
/// taking a job costs little.
const SLICE: usize = 64;

/// A pool of worker threads that wakes waiters.
#[derive(Debug)]
pub struct Fanout {
    jobs: Sender<Job>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Job {
    Wake(Crowd),
    /// Ends the worker that takes this job.
    Stop,
}

impl Fanout {
    /// Starts a pool of `workers` threads.
    ///
    /// # Errors
    ///
    /// When the system refuses to start a thread.
    pub fn start(workers: usize) -> Result<Self> {
        let (jobs, receiver) = unbounded();
        let workers = (0..workers)
            .map(|number| {
                let receiver = receiver.clone();
                thread::Builder::new()
                    .name(format!("bus-fanout-{number}"))
                    .spawn(move || work(&receiver))
                    .map_err(Error::Thread)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            jobs,
            workers: Mutex::new(workers),
        })
    }

    /// Passes waiters to the pool to be woken, in this order.
    pub fn deliver(&self, crowds: impl IntoIterator<Item = Crowd>) {
        for Crowd { wake, waiters } in crowds {
            let mut waiters = waiters.into_iter();
            while waiters.len() > 0 {
                // In a list of its own, because `split_off` keeps the whole
                // capacity for each part.
                self.send(Job::Wake(Crowd {
                    wake: wake.clone(),
                    waiters: waiters.by_ref().take(SLICE).collect(),
                }));
            }
        }
    }

    /// Ends the workers after the jobs that are queued so far.
    pub fn stop(&self) {
        let workers = std::mem::take(&mut *lock(&self.workers));
        for _ in &workers {
            self.send(Job::Stop);
        }
        for worker in workers {
            // A worker that panicked has ended as well.
            let _ = worker.join();
        }
    }

    fn send(&self, job: Job) {
        if let Err(SendError(Job::Wake(crowd))) = self.jobs.send(job) {
            // All workers have ended.
            crowd.wake();
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    while let Ok(Job::Wake(crowd)) = jobs.recv() {
        crowd.wake();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::waiter::{Signal, Waiter, Wake};

    #[test]
    fn all_are_woken_before_the_pool_stops() {
        let fanout = Fanout::start(2).expect("threads");
        let waiters: Vec<_> = (0..1000)
            .map(|_| Arc::new(Waiter::new(Signal::thread())))
            .collect();
        let wake = Wake::Closed;
        fanout.deliver([Crowd {
            wake,
            waiters: waiters.clone(),
        }]);
        fanout.stop();
        for waiter in waiters {
            assert!(waiter.wait(Duration::ZERO).is_some() || waiter.woken().is_some());
        }
    }
}
