//! One handler's door: what the carrier brings, and what the ledger holds for it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Carried, Channel, Keeper, outbox};
use crate::bus::{Answer, BusError, Delivery, Inbox, Lease, Run, Subscription};
use crate::clock::{Clock, SystemClock};
use crate::event::EntryId;
use crate::judge::Verdict;

/// Claim of everything that lies at the carrier; a ledger numbers its claims from 1.
const AT_CARRIER: Lease = Lease { claim: 0, epoch: 0 };

pub(super) struct RelayInbox {
    channel: Arc<dyn Channel>,
    local: Arc<dyn Inbox>,
    keeper: Arc<dyn Keeper>,
    subscription: Arc<Subscription>,
}

type Entries = Vec<(Arc<str>, EntryId)>;

impl RelayInbox {
    pub fn new(
        channel: Arc<dyn Channel>,
        local: Arc<dyn Inbox>,
        keeper: Arc<dyn Keeper>,
        subscription: Arc<Subscription>,
    ) -> Self {
        Self { channel, local, keeper, subscription }
    }

    /// Entries nobody asked for are acknowledged at once, in bulk.
    async fn wanted(&self, carried: Vec<Carried>) -> Result<Vec<Delivery>, BusError> {
        let wants = |one: &Carried| one.event.as_ref().map_or(true, |event| self.subscription.wants(&event.kind));
        let (wanted, others): (Vec<_>, Vec<_>) = carried.into_iter().partition(wants);
        if !others.is_empty() {
            let entries: Entries = others.into_iter().map(|one| (one.stream, one.entry)).collect();
            self.channel.acknowledge(&entries).await?;
        }
        let now = SystemClock.now();
        let delivery = |one: Carried| Delivery {
            lease: AT_CARRIER,
            stream: one.stream,
            entry: one.entry,
            event: one.event,
            past: None,
            orphaned: 0,
            deaths: 0,
            received: now,
        };
        Ok(wanted.into_iter().map(delivery).collect())
    }

    async fn settle_carried(&self, runs: Vec<Run>) -> Result<Vec<Answer>, BusError> {
        let (back, rest): (Vec<_>, Vec<_>) = runs.iter().partition(|run| gives_back(run));
        self.channel.give_back(&entries(&back)).await?;
        let committed: Arc<[Run]> = rest.iter().map(|run| (*run).clone()).collect();
        let answers = self.keeper.settle_carried(self.subscription.clone(), committed).await?;
        let done: Vec<&Run> = rest.iter().zip(&answers).filter(|(_, answer)| is_over(answer)).map(|(run, _)| *run).collect();
        let done = entries(&done);
        self.channel.acknowledge(&done).await?;
        self.keeper.lift(self.subscription.clone(), done).await?;
        let mut answers = answers.into_iter();
        let answer = |run: &Run| match gives_back(run) {
            true => Answer::Done { dead: None },
            false => answers.next().unwrap_or(Answer::Fenced),
        };
        Ok(runs.iter().map(answer).collect())
    }
}

fn gives_back(run: &Run) -> bool {
    run.deliveries.iter().all(|settling| settling.verdict == Verdict::Release)
}

fn entries(runs: &[&Run]) -> Entries {
    let deliveries = runs.iter().flat_map(|run| &run.deliveries);
    deliveries.map(|settling| (settling.delivery.stream.clone(), settling.delivery.entry)).collect()
}

/// Whether the ledger is through with the delivery, so that the carrier can be too.
fn is_over(answer: &Answer) -> bool {
    matches!(answer, Answer::Done { .. } | Answer::AlreadyMine | Answer::Duplicate { .. })
}

#[async_trait]
impl Inbox for RelayInbox {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        loop {
            let carried = tokio::select! {
                biased;
                local = self.local.receive(max) => return local,
                carried = self.channel.receive(max) => carried?,
            };
            let wanted = self.wanted(carried).await?;
            if !wanted.is_empty() {
                return Ok(wanted);
            }
        }
    }

    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
        let (mut carried, mut local) = (Vec::new(), Vec::new());
        for run in &*runs {
            let mut run = run.clone();
            run.effects.events.iter_mut().for_each(outbox::reroute);
            if is_carried(&run) { carried.push(run) } else { local.push(run) }
        }
        let mut of_carried = match carried.is_empty() {
            true => Vec::new(),
            false => self.settle_carried(carried).await?,
        }
        .into_iter();
        let mut of_local = match local.is_empty() {
            true => Vec::new(),
            false => self.local.settle(local.into()).await?,
        }
        .into_iter();
        let answer = |run: &Run| if is_carried(run) { of_carried.next() } else { of_local.next() };
        runs.iter().map(answer).collect::<Option<_>>().ok_or(BusError::Closed)
    }

    /// A carrier does not tell who died under a delivery, so nothing it brings is ever a suspect.
    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        if delivery.lease == AT_CARRIER { Ok(true) } else { self.local.mark(delivery).await }
    }
}

fn is_carried(run: &Run) -> bool {
    run.deliveries.first().is_some_and(|settling| settling.delivery.lease == AT_CARRIER)
}
