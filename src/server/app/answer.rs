//! The answer to a request, until its client has it.
use std::time::Duration;

use hyper::StatusCode;

use super::App;
use crate::server::polls::outcome::Outcome;
use crate::server::polls::registration::Registration;
use crate::server::request::cors::Browser;
use crate::server::request::reply::{Body, Reply};

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) delivery: Delivery,
    /// Whether the client has to continue over another connection.
    pub(crate) closes: bool,
}

/// The work that follows when an answer is written. If writing fails, this is
/// dropped, and another poll gets the message.
#[derive(Debug)]
pub(crate) struct Delivery {
    status: StatusCode,
    /// The poll whose answer it is, if it was registered.
    poll: Option<Registration>,
    delivered: Delivered,
}

/// The message in an answer, as it is counted.
#[derive(Clone, Copy, Debug)]
enum Delivered {
    /// No message.
    None,
    /// A message that was there before the poll.
    Replayed,
    /// A message that arrived at this time, while the poll waited.
    Awaited(Duration),
}

impl Answer {
    /// The answer to a request that is not registered as a poll.
    pub(crate) fn new(browser: Browser, body: Body) -> Self {
        Self::with(browser, body, None, Delivered::None)
    }

    /// The answer to a poll that was registered at `begun`. A notification of
    /// the user is `relayed` to the poll's client.
    pub(crate) fn to(
        poll: Registration,
        browser: Browser,
        outcome: Outcome,
        begun: Duration,
        relayed: bool,
    ) -> Self {
        let (body, delivered) = match outcome {
            Outcome::Empty => (Body::Empty, Delivered::None),
            Outcome::Message(message) => {
                let delivered = if message.arrived() < begun {
                    Delivered::Replayed
                } else {
                    Delivered::Awaited(message.arrived())
                };
                let channel = poll.asked().relay(&message).filter(|_| relayed);
                let channel = channel.map(Into::into);
                (Body::Message(message, channel), delivered)
            }
        };
        Self::with(browser, body, Some(poll), delivered)
    }

    fn with(
        browser: Browser,
        body: Body,
        poll: Option<Registration>,
        delivered: Delivered,
    ) -> Self {
        let reply = Reply { browser, body };
        Self {
            delivery: Delivery {
                status: reply.status(),
                poll,
                delivered,
            },
            reply,
            closes: false,
        }
    }
}

impl Delivery {
    /// The answer was written.
    pub(crate) fn done(self, app: &App) {
        if let Some(poll) = self.poll {
            poll.written();
        }
        let metrics = &app.metrics;
        match self.delivered {
            Delivered::None => {}
            Delivered::Replayed => {
                metrics.delivered.inc();
                metrics.replayed.inc();
            }
            Delivered::Awaited(arrived) => {
                metrics.delivered.inc();
                let latency = app.databases.now().saturating_sub(arrived);
                metrics.latency.observe(latency.as_secs_f64());
            }
        }
        metrics.answered(self.status);
    }
}
