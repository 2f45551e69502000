//! Checking the sessions that have a poll again.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Sessions, State};
use crate::server::trytond::checks::Rank;
use crate::server::trytond::{Check, Session};
use crate::sync::lock;

/// Sessions with a poll are checked again once in this part of the time for
/// which they are cached, unless their last check is younger than `YOUNG` of
/// it. Both together leave time for the check.
const ROUND: f64 = 0.6;
const YOUNG: f64 = 0.3;

/// The least time of a round, and its steps.
const ROUND_MIN: Duration = Duration::from_millis(500);
const STEPS: u32 = 50;

impl Sessions {
    /// Checks the sessions with a poll again, without an end: each once in a
    /// round, which consists of small steps.
    pub(crate) async fn renew(self: &Arc<Self>) {
        let round = self.session_cache.mul_f64(ROUND).max(ROUND_MIN);
        let mut ticks = interval(round / STEPS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answers: Vec<_> = self
                .due()
                .into_iter()
                .map(|session| {
                    let answer = self.checks.ask(session.clone(), Rank::Lately);
                    (session, answer)
                })
                .collect();
            if answers.is_empty() {
                continue;
            }
            self.metrics.renewals.inc_by(answers.len() as u64);
            let cache = self.clone();
            tokio::spawn(async move {
                for (session, answer) in answers {
                    cache.note(&session, answer.await.unwrap_or(Check::Failed));
                }
            });
        }
    }

    /// The sessions with a poll that the next step checks.
    fn due(&self) -> Vec<Arc<Session>> {
        let mut state = lock(&self.state);
        let State { entries, round, .. } = &mut *state;
        let all = entries.places();
        let young = Instant::now() + self.session_cache.mul_f64(1.0 - YOUNG);
        let mut due = Vec::new();
        for _ in 0..round.step(all) {
            let Some(entry) = entries.at(round.next(all)) else {
                continue;
            };
            if entry.has_polls() && !entry.is_renewed && !entry.is_valid(young) {
                entry.is_renewed = true;
                due.push(entry.session.clone());
            }
        }
        due
    }
}

/// The round that checks sessions again.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The next place, and the part of a place that is due.
    hand: usize,
    part: f64,
}

impl Round {
    /// How many of `all` places belong to the next step.
    fn step(&mut self, all: usize) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^32")]
        let more = all as f64 / f64::from(STEPS);
        self.part += more;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a small part of their number"
        )]
        let number = self.part as usize;
        self.part = self.part.fract();
        number.min(all)
    }

    /// The next of `all` places.
    fn next(&mut self, all: usize) -> usize {
        let place = if self.hand < all { self.hand } else { 0 };
        self.hand = place + 1;
        place
    }
}
