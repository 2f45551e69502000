//! How long a connection of HTTP/2 stays open.
use std::time::Duration;

use tokio::time::Instant;

use super::open::ON_ITS_WAY;
use super::streams::Activity;
use crate::server::config::Limits;
use crate::server::drain::Drain;

/// A time that never comes.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// The limits of the time that a connection stays open.
#[derive(Debug)]
pub(super) struct Lifetime<'a> {
    limits: &'a Limits,
    drain: &'a Drain,
    idle: Idle,
    /// When the client was told that no other request is taken.
    told: Option<Instant>,
}

/// A connection without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    /// The connection has had no request yet.
    New,
    /// The connection has had requests.
    Kept,
    /// Another connection wants its place.
    Crowded,
}

impl<'a> Lifetime<'a> {
    /// The lifetime of a new connection.
    pub(super) fn new(limits: &'a Limits, drain: &'a Drain) -> Self {
        Self {
            limits,
            drain,
            idle: Idle::New,
            told: None,
        }
    }

    /// The time until which the connection may stay open without a change.
    pub(super) fn deadline(&mut self, activity: Activity) -> Instant {
        if !matches!(activity, Activity::Idle(_)) {
            self.idle = Idle::Kept;
        }
        match activity {
            Activity::Waiting => Instant::now() + NEVER,
            Activity::Writing(since) => since + self.limits.write_timeout,
            Activity::Idle(since) => match self.told {
                None => since + self.idle_time(),
                Some(told) => self.last_request(since, told),
            },
        }
    }

    /// Whether another connection may ask for the place of this one.
    pub(super) fn may_leave(&self, activity: Activity) -> bool {
        matches!(activity, Activity::Idle(_)) && self.idle != Idle::Crowded
    }

    /// Notes that another connection asks for the place.
    pub(super) fn ask(&mut self) {
        self.idle = Idle::Crowded;
    }

    /// Notes that the client has been told that no other request is taken.
    pub(super) fn tell(&mut self) {
        self.told = Some(Instant::now());
    }

    /// Whether it has been told so.
    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    fn idle_time(&self) -> Duration {
        match self.idle {
            // A client that has sent nothing yet gets `header_timeout`.
            Idle::New => self.limits.header_timeout,
            Idle::Kept => self.limits.idle_timeout,
            Idle::Crowded => ON_ITS_WAY,
        }
    }

    /// The time until which a request may arrive that was sent before the
    /// client was told.
    fn last_request(&self, since: Instant, told: Instant) -> Instant {
        let until = since.max(told) + self.limits.header_timeout;
        match self.idle {
            Idle::New => until,
            Idle::Kept => {
                let last = self.drain.last_request(since);
                last.map_or(until, |last| last.min(until))
            }
            Idle::Crowded => since.max(told) + ON_ITS_WAY,
        }
    }
}
