//! A poll that waits for its answer.
use std::task::{Context, Poll as Progress};

use tokio::io::AsyncRead;
use tokio::time::Instant;

use super::open::OpenPoll;
use super::{Answer, App};
use crate::server::metrics::Ended;
use crate::server::polls::outcome::Outcome;
use crate::server::request::refusal::Refusal;
use crate::server::request::reply::Body;
use crate::server::wait::{Caller, Waited};

impl App {
    /// Waits for the answer to the poll; none when the client has closed the
    /// connection. Only this future is alive meanwhile, so its size is the cost
    /// of a waiting client.
    ///
    /// Not an `async fn`, which would reserve space for each argument twice.
    #[expect(clippy::boxed_local, reason = "unboxed the caller has room for it")]
    pub(crate) fn wait<'a, S: AsyncRead + Unpin>(
        &'a self,
        mut caller: Caller<'a, S>,
        poll: Box<OpenPoll<'a>>,
    ) -> impl Future<Output = Option<Box<Answer>>> {
        let begun = self.databases.now();
        let OpenPoll {
            browser,
            mut registration,
            mut admission,
            permit,
        } = *poll;
        async move {
            let time = self.config.long_polling_timeout;
            let look = |context: &mut Context<'_>| {
                if admission.poll_ended(context).is_ready() {
                    return (Progress::Ready(None), None);
                }
                let now = self.databases.now();
                let progress = registration.poll(context, now).map(Some);
                let again = registration
                    .until()
                    .map(|until| Instant::now() + until.saturating_sub(now));
                (progress, again)
            };
            let waited = caller.wait(time, look).await;
            drop((admission, permit));
            self.metrics.ended(match &waited {
                Waited::Gone => {
                    Ended::ClientGone(self.databases.now().saturating_sub(begun))
                }
                Waited::Timeout if self.drain.has_begun() => Ended::Drain,
                Waited::Timeout => Ended::Timeout,
                Waited::Done(None) => Ended::Session,
                Waited::Done(Some(Outcome::Empty)) => Ended::Superseded,
                Waited::Done(Some(Outcome::Message(_))) => Ended::Message,
            });
            let body = match waited {
                Waited::Gone => return None,
                Waited::Done(Some(outcome)) => {
                    let relayed = self.config.relay_user;
                    let answer =
                        Answer::to(registration, browser, outcome, begun, relayed);
                    return Some(Box::new(answer));
                }
                Waited::Timeout => Body::Empty,
                Waited::Done(None) => Refusal::UNAUTHORIZED.into(),
            };
            // The poll must not be given a message any more.
            drop(registration);
            Some(Box::new(Answer::new(browser, body)))
        }
    }
}
