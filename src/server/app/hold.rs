//! A poll for which there is no room.
use std::time::Duration;

use tokio::io::AsyncRead;

use super::{Answer, App};
use crate::server::metrics::Counted;
use crate::server::polls::registration::Registration;
use crate::server::request::cors::Browser;
use crate::server::request::refusal::Refusal;
use crate::server::request::reply::Body;
use crate::server::trytond::sessions::Admission;
use crate::server::wait::{Caller, Waited};

impl App {
    /// Holds a poll above `max_polls`. It gets a message that is ready when it
    /// arrives or `hold_time` later, but does not wait for one. So its client
    /// gets each message within `hold_time`, and takes no place from other
    /// clients.
    pub(super) async fn hold<S: AsyncRead + Unpin>(
        &self,
        caller: &mut Caller<'_, S>,
        browser: Browser,
        mut admission: Admission,
        register: impl Fn() -> Registration,
    ) -> Option<Box<Answer>> {
        let _counted = Counted::by(&self.metrics.held);
        let time = self.config.limits.hold_time;
        for pause in [Duration::ZERO, time] {
            let ends =
                caller.wait(pause, |context| (admission.poll_ended(context), None));
            match ends.await {
                Waited::Timeout => {}
                Waited::Gone => return None,
                Waited::Done(()) => {
                    let refusal = Refusal::UNAUTHORIZED.into();
                    return Some(Box::new(Answer::new(browser, refusal)));
                }
            }
            let mut poll = register();
            let begun = self.databases.now();
            let look = caller.wait(time, |context| (poll.glance(context, begun), None));
            match look.await {
                Waited::Gone => return None,
                Waited::Done(Some(outcome)) => {
                    let relayed = self.config.relay_user;
                    let answer = Answer::to(poll, browser, outcome, begun, relayed);
                    return Some(Box::new(answer));
                }
                Waited::Done(None) | Waited::Timeout => {}
            }
        }
        let mut answer = Answer::new(browser, Body::Empty);
        // Another connection may reach a server that has room for the poll.
        answer.closes = true;
        Some(Box::new(answer))
    }
}
