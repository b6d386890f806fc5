//! Deliveries that are run once more, uncharged: what they wait for, and in whose company they run then.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::Worker;
use super::batch::Judged;
use super::later::{AFTER_DEATH, Again};
use crate::bus::{CRASH_BUDGET, Delivery};
use crate::failpoint;

impl Worker {
    pub(super) fn again(&mut self, delivery: Arc<Delivery>, alone: bool, after: Duration) {
        let again = if alone || self.suspects.has_turn(&delivery) { Again::Alone } else { Again::Run };
        self.later.push(delivery, again, after);
    }

    /// A script thread was lost, and with it the turns of its runs: they are never given back.
    pub(super) fn moved(&mut self, delivery: Arc<Delivery>) {
        self.hot = Arc::default();
        self.again(delivery, false, Duration::ZERO);
    }

    /// The run could not be ended and cost a thread. That counts as a death of the process does: it runs once more, alone
    /// and under its mark, and then is given up.
    pub(super) fn stuck(&mut self, delivery: Arc<Delivery>) {
        self.hot = Arc::default();
        self.suspects.end_turn(&delivery);
        let deaths = delivery.deaths + self.later.stuck(&delivery);
        if deaths < CRASH_BUDGET {
            return self.later.push(delivery, Again::Suspect, AFTER_DEATH);
        }
        let message = "the script could not be interrupted and was given up with its thread, the last time alone";
        self.give_up(delivery, message);
    }

    /// State moved under the run: repeat it.
    pub(super) fn conflict(&mut self, judged: Judged, state: &str) {
        failpoint::reached("conflict.before");
        self.hot.mark(state);
        let Judged { delivery, held, .. } = judged;
        drop(held);
        self.collided(delivery);
    }

    /// State moved under the run, which noticed it before it ran a step.
    pub(super) fn stale(&mut self, delivery: Arc<Delivery>) {
        self.spec.metrics.conflict();
        self.collided(delivery);
    }

    fn collided(&mut self, delivery: Arc<Delivery>) {
        let after = self.later.after_conflict(&delivery, self.rng.random());
        self.again(delivery, false, after);
    }
}
