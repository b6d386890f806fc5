//! One step in which everything a run did comes true, or nothing of it.

use std::sync::Arc;

use moontide::bus::{Answer, Delivery, Past, Run};
use moontide::judge::Verdict;
use moontide::outcome::Effects;

use super::{Due, Elapsed, Entry, Letter, Pending, ProcessId, Store};
use crate::events::number;
use crate::flaw::Flaw;

/// Whose runs are settled, and when.
#[derive(Clone)]
pub struct Settler {
    pub process: ProcessId,
    pub group: Arc<str>,
    pub elapsed: Elapsed,
    /// Dead letters are refused.
    pub refuses_letters: bool,
}

impl Store {
    /// Settles a run of one delivery.
    pub fn settle(&mut self, by: &Settler, run: &Run) -> Answer {
        let Some(settling) = run.deliveries.first() else { return Answer::Fenced };
        let (delivery, verdict) = (&*settling.delivery, &settling.verdict);
        if let Some(answer) = self.standing(by, delivery) {
            return answer;
        }
        let ends = matches!(verdict, Verdict::Commit | Verdict::Dead { .. });
        if ends && let Some(answer) = self.taken(by, run, delivery) {
            self.acknowledge(by, delivery);
            return answer;
        }
        if !matches!(verdict, Verdict::Release)
            && let Some(key) = self.changed(run)
        {
            return Answer::Conflict { key };
        }
        if let Some(reason) = self.unwritable(&run.effects) {
            return Answer::Invalid { reason };
        }
        if by.refuses_letters && matches!(verdict, Verdict::Dead { .. }) {
            return Answer::Invalid { reason: "no letters just now".to_owned() };
        }
        self.apply(by, run, delivery, verdict)
    }

    /// `None`: it is the process's, and not settled.
    fn standing(&self, by: &Settler, delivery: &Delivery) -> Option<Answer> {
        let group = self.groups.get(&by.group)?;
        let lease = delivery.lease;
        if lease.claim < group.first_claim {
            return Some(Answer::StoreReset);
        }
        if let Some(settled) = group.settled.get(&lease.claim) {
            let again = self.flaw == Some(Flaw::AppliesAgain) || self.flaw == Some(Flaw::NoOwnerCheck);
            let outlives = self.flaw == Some(Flaw::OutlivesReset);
            return match *settled == (by.process, lease.epoch) {
                true if outlives => None,
                true if again => None,
                true => Some(Answer::AlreadyMine),
                false if self.flaw == Some(Flaw::NoOwnerCheck) => None,
                false => Some(Answer::Fenced),
            };
        }
        let Some(pending) = group.pending.get(&lease.claim) else {
            return (self.flaw != Some(Flaw::AcknowledgesFirst)).then_some(Answer::Fenced);
        };
        let ours = pending.owner == Some(by.process) && pending.epoch == lease.epoch;
        (!ours && self.flaw != Some(Flaw::NoOwnerCheck)).then_some(Answer::Fenced)
    }

    /// Whether another delivery holds the record.
    fn taken(&self, by: &Settler, run: &Run, delivery: &Delivery) -> Option<Answer> {
        let wanted = run.record.as_ref().filter(|_| self.flaw != Some(Flaw::NoRecordCheck))?;
        let found = self.recorded(wanted.key, by.elapsed)?;
        let origin = |token: &str| token.rsplit_once('#').map(|(origin, _)| origin.to_owned());
        match origin(&found.by) == origin(&delivery.token()) {
            true => (self.flaw != Some(Flaw::AppliesAgain)).then_some(Answer::AlreadyMine),
            false => Some(Answer::Duplicate { by: found.by }),
        }
    }

    fn acknowledge(&mut self, by: &Settler, delivery: &Delivery) {
        let claim = delivery.lease.claim;
        if let Some(group) = self.groups.get_mut(&by.group) {
            group.pending.remove(&claim);
            group.settled.insert(claim, (by.process, delivery.lease.epoch));
        }
    }

    fn apply(&mut self, by: &Settler, run: &Run, delivery: &Delivery, verdict: &Verdict) -> Answer {
        let now = self.now(by.elapsed);
        let mut dead = None;
        match verdict {
            Verdict::Commit => self.take_effects(&run.effects, by.elapsed),
            Verdict::Skip { .. } => {}
            Verdict::Release => return self.give_back(by, delivery),
            Verdict::Retry { delay, counted, failure } => {
                let mut past = Past::after(delivery, failure, &run.version, now, *counted);
                match self.flaw {
                    Some(Flaw::ForgetsAttempts) => past.attempts = 0,
                    Some(Flaw::CountsTwice) => past.attempts += u32::from(*counted),
                    _ => {}
                }
                let entry = Entry { event: delivery.event.clone(), past: Some(Box::new(past)) };
                self.later(now + delay.as_millis() as i64, Due::Retry { group: by.group.clone(), entry });
            }
            Verdict::Dead { reason, failure } => {
                let mut failures = Past::after(delivery, failure, &run.version, now, true).failures;
                if self.flaw == Some(Flaw::SilentLetters) {
                    failures.clear();
                }
                dead = Some(self.next_letter());
                self.letters.push(Letter {
                    group: by.group.clone(),
                    handler: self.groups[&by.group].subscription.handler.clone(),
                    version: run.version.clone(),
                    reason: *reason,
                    event: delivery.event.clone(),
                    attempts: delivery.attempt(),
                    failures,
                });
            }
        }
        if let Some(record) = run.record.as_ref().filter(|_| matches!(verdict, Verdict::Commit | Verdict::Dead { .. }))
        {
            self.write_record(record, delivery, dead, now);
        }
        self.acknowledge(by, delivery);
        Answer::Done { dead }
    }

    /// The entry is anybody's again, under another claim; its mark no longer counts a death.
    fn give_back(&mut self, by: &Settler, delivery: &Delivery) -> Answer {
        self.last_claim += 1;
        let (claim, loses) = (self.last_claim, self.flaw == Some(Flaw::LosesGivenBack));
        let Some(group) = self.groups.get_mut(&by.group) else { return Answer::StoreReset };
        if let Some(pending) = group.pending.get(&delivery.lease.claim).filter(|_| !loses) {
            let free = Pending { owner: None, marked: false, ..pending.clone() };
            group.pending.insert(claim, free);
            self.news.groups.insert(by.group.clone());
            self.news.ready.push((by.group.clone(), number(delivery)));
        }
        self.acknowledge(by, delivery);
        Answer::Done { dead: None }
    }

    fn take_effects(&mut self, effects: &Effects, elapsed: Elapsed) {
        self.write(&effects.writes);
        let forgets = self.flaw == Some(Flaw::HalfEffects) && self.last_claim.is_multiple_of(8);
        if !forgets {
            self.publish(effects.events.clone(), elapsed);
        }
    }
}
