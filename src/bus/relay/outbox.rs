//! Empties the ledger's outbox into the carrier: in order per stream, at least once, under stable event ids.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{Carrier, Keeper, OUTBOX_PREFIX};
use crate::bus::{BusError, Delivery, Inbox, Run, Settling, Start, Subscription, backoff};
use crate::event::{Event, TypePattern};
use crate::judge::Verdict;
use crate::outcome::{Effects, Emit};

/// Events on their way at a time.
const BATCH_MAX: usize = 256;

/// The task that empties it; ends when dropped.
pub(super) struct Outbox(JoinHandle<()>);

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Outbox {
    pub async fn start(carrier: Arc<dyn Carrier>, keeper: &dyn Keeper) -> Result<Self, BusError> {
        let everything = TypePattern::parse("*").expect("it is a pattern");
        let subscription = Subscription {
            handler: "outbox".into(),
            group: "moontide:outbox".into(),
            types: vec![everything.clone()],
            streams: Vec::new(),
            discover: vec![(OUTBOX_PREFIX.to_owned(), everything)],
            start: Start::Earliest,
        };
        let inbox = keeper.subscribe(subscription).await?.inbox;
        Ok(Self(tokio::spawn(empty(carrier, inbox))))
    }
}

/// Sends an emit by way of the outbox.
pub(super) fn reroute(emit: &mut Emit) {
    emit.stream.insert_str(0, OUTBOX_PREFIX);
}

async fn empty(carrier: Arc<dyn Carrier>, inbox: Arc<dyn Inbox>) {
    let mut failures = 0;
    loop {
        let handed_over = match inbox.receive(BATCH_MAX).await {
            Ok(deliveries) => hand_over(&*carrier, &*inbox, deliveries).await,
            Err(BusError::Closed) => return,
            Err(error) => {
                tracing::error!("the outbox cannot be read: {error}; nothing is lost, trying again");
                failures += 1;
                tokio::time::sleep(backoff(failures)).await;
                continue;
            }
        };
        match handed_over {
            Ok(()) => failures = 0,
            Err(BusError::Closed) => return,
            Err(error) => tracing::error!("the outbox is not emptied: {error}"),
        }
    }
}

/// Hands a batch to the carrier, as often as it takes, and then settles it.
async fn hand_over(carrier: &dyn Carrier, inbox: &dyn Inbox, deliveries: Vec<Delivery>) -> Result<(), BusError> {
    for part in deliveries.chunk_by(|one, other| one.stream == other.stream) {
        let events: Vec<Event> = part.iter().filter_map(|delivery| delivery.event.as_ref().ok().cloned()).collect();
        let stream = part[0].stream.strip_prefix(OUTBOX_PREFIX).unwrap_or(&part[0].stream).to_owned();
        let mut failures = 0;
        while let Err(error) = carrier.publish(&stream, events.clone()).await {
            if failures == 0 {
                tracing::error!(stream, "cannot publish: {error}; nothing is lost, trying again");
            }
            failures += 1;
            tokio::time::sleep(backoff(failures)).await;
        }
    }
    let runs: Arc<[Run]> = deliveries.into_iter().map(done).collect();
    let mut failures = 0;
    while let Err(error) = inbox.settle(runs.clone()).await {
        if !error.is_passing() {
            return Err(error);
        }
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
    Ok(())
}

fn done(delivery: Delivery) -> Run {
    Run {
        deliveries: vec![Settling { delivery: Arc::new(delivery), verdict: Verdict::Commit }],
        reads: Vec::new(),
        effects: Effects::default(),
        record: None,
        version: "".into(),
    }
}
