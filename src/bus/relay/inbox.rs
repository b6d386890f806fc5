//! One handler's door: what the carrier brings, and what the ledger holds for it.
//!
//! Owns the order of commit, acknowledgement and lift. Nothing is acknowledged that the ledger is not through with, and a call that
//! is cancelled anywhere leaves everything where the next call finds it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::hand::{Hand, is_carried, place};
use super::{Carried, Channel, Fence, Place, outbox};
use crate::bus::{Answer, BusError, Delivery, Inbox, Run, Settling, Step, StepAnswer, Steps, Subscription};
use crate::clock::Clock;
use crate::judge::Verdict;
use crate::outcome::RecordKey;

pub(super) struct RelayInbox {
    channel: Arc<dyn Channel>,
    local: Arc<dyn Inbox>,
    fence: Arc<dyn Fence>,
    subscription: Subscription,
    clock: Arc<dyn Clock>,
    /// Came from the carrier, not handed out.
    arrived: tokio::sync::Mutex<VecDeque<Carried>>,
    hand: Mutex<Hand>,
}

impl RelayInbox {
    pub(super) fn new(
        channel: Arc<dyn Channel>,
        local: Arc<dyn Inbox>,
        fence: Arc<dyn Fence>,
        subscription: Subscription,
        clock: Arc<dyn Clock>,
        numbers: Arc<AtomicU64>,
    ) -> Self {
        let (arrived, hand) = (tokio::sync::Mutex::default(), Mutex::new(Hand::new(numbers)));
        Self { channel, local, fence, subscription, clock, arrived, hand }
    }

    // --- receive ---

    /// Takes at most `max` of what arrived in hand. What nobody asked for and what is settled already is acknowledged, in bulk.
    async fn admit(&self, arrived: &mut VecDeque<Carried>, max: usize) -> Result<Vec<Delivery>, BusError> {
        let count = max.min(arrived.len());
        let places: Vec<Place> = arrived.iter().take(count).map(|one| (one.stream.clone(), one.entry)).collect();
        let settled = self.fence.settled(&self.subscription.group, &places).await?;
        let over: Vec<bool> = arrived.iter().zip(&settled).map(|(one, settled)| *settled || !self.wants(one)).collect();
        let done: Vec<Place> = only(&places, &over);
        if !done.is_empty() {
            self.channel.acknowledge(&done).await?;
            self.lift(only(&places, &settled));
        }
        // From here on nothing waits: what is taken out is handed out.
        let now = self.clock.now();
        let mut hand = self.hand.lock();
        let news = arrived.drain(..count).zip(places).zip(over).filter(|(_, over)| !over);
        let deliver = |((one, place), _): ((Carried, Place), bool)| {
            let lease = hand.take(place)?;
            let Carried { stream, entry, event } = one;
            Some(Delivery { lease, stream, entry, event, lay: None, past: None, orphaned: 0, deaths: 0, received: now })
        };
        Ok(news.filter_map(deliver).collect())
    }

    fn wants(&self, one: &Carried) -> bool {
        one.event.as_ref().map_or(true, |event| self.subscription.wants(&event.kind))
    }

    fn lift(&self, places: Vec<Place>) {
        if !places.is_empty() {
            self.fence.lift(&self.subscription.group, places);
        }
    }

    // --- settle ---

    /// What can be said of a run without settling it.
    async fn foregone(&self, run: &Run) -> Result<Option<Answer>, BusError> {
        if let Some(reason) = outbox::refusal(&run.effects.events) {
            return Ok(Some(Answer::Invalid { reason }));
        }
        let is_void = {
            let hand = self.hand.lock();
            carried(run).any(|settling| !hand.holds(&settling.delivery))
        };
        if !is_void {
            return Ok(None);
        }
        // Its reply was lost, or it was never ours to settle: the ledger knows.
        let kept = carried(run).filter(|settling| settling.verdict != Verdict::Release);
        let places: Vec<Place> = kept.map(|settling| place(&settling.delivery)).collect();
        let settled = self.fence.settled(&self.subscription.group, &places).await?;
        let all = settled.into_iter().all(|settled| settled);
        Ok(Some(if all { Answer::AlreadyMine } else { Answer::Fenced }))
    }

    /// Tells the carrier what the ledger answered.
    async fn conclude(&self, runs: &[Run], answers: &[Answer]) -> Result<(), BusError> {
        let ended: Vec<(&Run, &Answer)> = runs.iter().zip(answers).filter(|(_, answer)| ends(answer)).collect();
        let (mut done, mut back) = (Vec::new(), Vec::new());
        for (run, answer) in &ended {
            for settling in carried(run) {
                let is_done = is_over(answer) && settling.verdict != Verdict::Release;
                if is_done { &mut done } else { &mut back }.push(&*settling.delivery);
            }
        }
        if !done.is_empty() {
            let places: Vec<Place> = done.iter().copied().map(place).collect();
            self.channel.acknowledge(&places).await?;
            self.lift(places);
        }
        if !back.is_empty() {
            {
                let mut hand = self.hand.lock();
                back.iter().for_each(|delivery| hand.let_go(delivery));
            }
            let places: Vec<Place> = back.iter().copied().map(place).collect();
            self.channel.give_back(&places).await?;
        }
        let mut hand = self.hand.lock();
        done.iter().chain(&back).for_each(|delivery| hand.put_down(delivery));
        Ok(())
    }
}

/// Those of `places` that `chosen` says.
fn only(places: &[Place], chosen: &[bool]) -> Vec<Place> {
    places.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(place, _)| place.clone()).collect()
}

fn carried(run: &Run) -> impl Iterator<Item = &Settling> {
    run.deliveries.iter().filter(|settling| is_carried(&settling.delivery))
}

/// Whether the run's deliveries leave our hands; after the others the worker settles again.
fn ends(answer: &Answer) -> bool {
    !matches!(answer, Answer::Conflict { .. } | Answer::Invalid { .. })
}

/// Whether the ledger is through with the run's deliveries, so that the carrier can be too. Those that were fenced as a part
/// of a run, or whose group vanished, must come again.
fn is_over(answer: &Answer) -> bool {
    matches!(answer, Answer::Done { .. } | Answer::AlreadyMine | Answer::Duplicate { .. })
}

/// The run as the ledger settles it.
fn rerouted(run: &Run) -> Run {
    let mut run = run.clone();
    run.effects.events.iter_mut().for_each(outbox::reroute);
    run
}

#[async_trait]
impl Inbox for RelayInbox {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut arrived = self.arrived.lock().await;
        loop {
            while !arrived.is_empty() {
                let deliveries = self.admit(&mut arrived, max).await?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
            }
            // Whichever is looked at first wins when both have something; the choice is tokio's, so that neither starves.
            tokio::select! {
                local = self.local.receive(max) => return local,
                carried = self.channel.receive(max) => arrived.extend(carried?),
            }
        }
    }

    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
        let mut answers = Vec::with_capacity(runs.len());
        for run in &*runs {
            answers.push(self.foregone(run).await?);
        }
        let open = runs.iter().zip(&answers).filter(|(_, foregone)| foregone.is_none());
        let sent: Arc<[Run]> = open.map(|(run, _)| rerouted(run)).collect();
        if !sent.is_empty() {
            let settled = self.local.settle(sent.clone()).await?;
            self.conclude(&sent, &settled).await?;
            let open = answers.iter_mut().filter(|answer| answer.is_none());
            open.zip(settled).for_each(|(answer, settled)| *answer = Some(settled));
        }
        answers.into_iter().collect::<Option<_>>().ok_or(BusError::Closed)
    }

    /// Nobody counts who died under what lies at the carrier, so it has no mark; in hand it is ours.
    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        if is_carried(delivery) { Ok(self.hand.lock().holds(delivery)) } else { self.local.mark(delivery).await }
    }
}

/// The ledger keeps them, whatever carries the event.
#[async_trait]
impl Steps for RelayInbox {
    async fn recall(&self, event: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        self.local.recall(event).await
    }

    async fn record(&self, delivery: &Delivery, step: &Step) -> Result<StepAnswer, BusError> {
        if is_carried(delivery) && !self.hand.lock().holds(delivery) {
            return Ok(StepAnswer::Fenced);
        }
        self.local.record(delivery, step).await
    }
}
