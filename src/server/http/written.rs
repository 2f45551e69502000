//! The rest of an answer, until the client has all of it.
use std::ops::Deref;

use hyper::StatusCode;

use crate::server::app::{Answer, App};
use crate::server::polls::database::Place;
use crate::server::request::reply::Body;

/// An answer that is being written. Where it can't be, this is just dropped,
/// and the message given to another poll.
pub(crate) struct Written<A> {
    app: A,
    status: StatusCode,
    place: Option<Place>,
    /// Whether the answer is a message.
    delivers: bool,
    /// When the message arrived, if the poll waited for it.
    arrived: Option<f64>,
}

impl<A: Deref<Target = App>> Written<A> {
    /// The rest of an answer that is being written.
    pub(crate) fn new(app: A, answer: Answer) -> Self {
        Self {
            app,
            status: answer.reply.status(),
            place: answer.place,
            delivers: matches!(answer.reply.body, Body::Message(..)),
            arrived: answer.arrived,
        }
    }

    /// It was written.
    pub(crate) fn done(self) {
        let app = &*self.app;
        if let Some(place) = self.place {
            place.written();
        }
        if self.delivers {
            app.metrics.delivered.inc();
            if self.arrived.is_none() {
                app.metrics.replayed.inc();
            }
        }
        if let Some(arrived) = self.arrived {
            let latency = app.databases.now() - arrived;
            app.metrics.latency.observe(latency.max(0.0));
        }
        app.metrics.answered(self.status);
    }
}
