//! One handler's door to the server.
//!
//! Whatever asks the server runs on its own and ends in the door's books, so that it makes no difference whether whoever
//! asked still waits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;

use super::beat::Beat;
use super::door::{Door, Next};
use super::due::Due;
use super::fault::{self, Fault};
use super::settle::{self, Settler};
use super::store::Store;
use super::{held, reader, step, takeover};
use crate::bus::{Answer, BusError, Delivery, Inbox, Run, Step, StepAnswer, Steps};
use crate::failpoint;
use crate::judge::Verdict;
use crate::outcome::RecordKey;

/// The inbox itself.
pub(super) struct RedisInbox {
    pub store: Arc<Store>,
    pub beat: Arc<Beat>,
    pub due: Arc<Due>,
    pub door: Arc<Door>,
}

#[async_trait]
impl Inbox for RedisInbox {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        let max = max.min(self.store.options.read_max);
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            if self.store.is_closed() {
                self.door.bell.notify_one();
                return Err(BusError::Closed);
            }
            match self.door.next(max)? {
                Next::Deliver(deliveries) => return Ok(deliveries),
                Next::Read => {
                    tokio::spawn(reader::read(self.store.clone(), self.beat.clone(), self.door.clone(), max));
                }
                Next::Wait => {}
            }
            self.door.bell.notified().await;
        }
    }

    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
        let settling = tokio::spawn(settle(self.store.clone(), self.door.clone(), runs.clone()));
        let answers = settling.await.unwrap_or(Err(BusError::Closed));
        if let Some(delay) = runs.iter().filter_map(soonest).min() {
            self.due.added(delay);
        }
        answers
    }

    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        self.store.check_open()?;
        if self.door.with_held(|held| held.standing(delivery)) != held::Standing::InHand {
            return Ok(false);
        }
        let group = &self.door.subscription.group;
        let times = held::times(delivery.lease);
        let marking = takeover::mark(&self.store, &delivery.stream, group, delivery.entry, times);
        failpoint::during("mark.sent", marking).await.map_err(|fault| self.store.told(fault))
    }
}

#[async_trait]
impl Steps for RedisInbox {
    async fn recall(&self, event: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        self.store.check_open()?;
        step::recall(&self.store, event).await.map_err(|fault| self.store.told(fault))
    }

    async fn record(&self, delivery: &Delivery, step: &Step) -> Result<StepAnswer, BusError> {
        self.store.check_open()?;
        let recording = step::record(&self.store, &self.door, delivery, step);
        failpoint::during("step.sent", recording).await.map_err(|fault| self.store.told(fault))
    }
}

async fn settle(store: Arc<Store>, door: Arc<Door>, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
    store.check_open()?;
    let batch = door.batch(&runs);
    if batch.sent.is_empty() {
        return Ok(door.settled(&batch, &runs, Vec::new()));
    }
    let sent = batch.sent.iter().map(|at| &runs[*at]);
    let settler = Settler { store: &store, subscription: &door.subscription, retry: &door.retry, number: batch.number };
    let call = door.with_held(|held| settler.call(held, sent));
    let answer = failpoint::during("settle.sent", store.procedures.settle.run(&store.link, &call)).await;
    failpoint::reached("settle.answered");
    let settled = answer.and_then(|answer: Value| settle::read(answer, batch.sent.len()));
    let settled = settled.map_err(|fault: Fault| store.told(fault))?;
    store.check_open()?;
    store.tell_time(settled.now);
    let answers = door.settled(&batch, &runs, settled.answers);
    // What was settled is remembered: a repeated settle sends the rest only.
    settled
        .barred
        .map_or(Ok(answers), |why| Err(store.told(fault::of_code("NOPERM", why.trim_start_matches("NOPERM ")))))
}

/// How soon work is due that `run` leaves for later.
fn soonest(run: &Run) -> Option<Duration> {
    let emits = run.effects.events.iter().filter_map(|emit| emit.delay);
    let retries = run.deliveries.iter().filter_map(|settling| match &settling.verdict {
        Verdict::Retry { delay, .. } => Some(*delay),
        _ => None,
    });
    emits.chain(retries).min()
}

impl Drop for RedisInbox {
    /// What was received and never settled goes back, for whoever opens the group next.
    fn drop(&mut self) {
        self.store.give_back_later(&self.door);
    }
}
