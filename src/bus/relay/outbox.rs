//! Empties the ledger's outbox into the carrier: at least once, under stable event ids, in order per stream.
//!
//! The order holds while one process empties it; what a dead one had in hand, or several share, may change places. An event that
//! the carrier refuses for ever becomes a dead letter of the outbox and holds up nobody; from there it can be replayed.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{Carrier, Keeper, OUTBOX_PREFIX};
use crate::bus::{BusError, Delivery, Inbox, Run, Settling, Start, Subscription, backoff};
use crate::event::{Event, TypePattern};
use crate::judge::{DeathReason, Verdict};
use crate::outcome::{Effects, Emit, Failure, FailureKind};

/// Events on their way at a time.
const BATCH_MAX: usize = 256;
/// Streams whose names begin so belong to the host.
const HOST_PREFIX: &str = "moontide:";

/// The task that empties it; ends when dropped.
pub(super) struct Outbox(JoinHandle<()>);

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Outbox {
    pub(super) async fn start(carrier: Arc<dyn Carrier>, keeper: &dyn Keeper) -> Result<Self, BusError> {
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

/// Why `emits` can never be published, if so.
pub(super) fn refusal(emits: &[Emit]) -> Option<String> {
    let forged = emits.iter().find(|emit| emit.stream.starts_with(HOST_PREFIX))?;
    Some(format!("stream {:?} belongs to the host; publish to another one", forged.stream))
}

/// The carrier or the ledger was closed.
struct Closed;

async fn empty(carrier: Arc<dyn Carrier>, inbox: Arc<dyn Inbox>) {
    loop {
        let deliveries = match persist("read the outbox", || inbox.receive(BATCH_MAX)).await {
            Ok(Ok(deliveries)) => deliveries,
            Ok(Err(reason)) => return tracing::error!("the outbox cannot be read: {reason}; restart to try again"),
            Err(Closed) => return,
        };
        if hand_over(&*carrier, &*inbox, deliveries).await.is_err() {
            return;
        }
    }
}

/// Calls until there is an answer; a refusal is one.
async fn persist<T, F>(what: &str, mut call: impl FnMut() -> F) -> Result<Result<T, String>, Closed>
where
    F: Future<Output = Result<T, BusError>>,
{
    let mut failures = 0;
    loop {
        match call().await {
            Ok(answer) => return Ok(Ok(answer)),
            Err(BusError::Refused(reason)) => return Ok(Err(reason)),
            Err(BusError::Closed) => return Err(Closed),
            Err(error) if failures == 0 => tracing::error!("cannot {what}: {error}; nothing is lost, trying again"),
            Err(error) => tracing::debug!(failures, "still cannot {what}: {error}"),
        }
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Hands a batch to the carrier, as often as it takes, and then settles it.
async fn hand_over(carrier: &dyn Carrier, inbox: &dyn Inbox, deliveries: Vec<Delivery>) -> Result<(), Closed> {
    let mut verdicts = Vec::with_capacity(deliveries.len());
    // The origin names the stream: a replay lies in the outbox's own.
    for part in deliveries.chunk_by(|one, other| one.origin().0 == other.origin().0) {
        verdicts.extend(publish(carrier, part).await?);
    }
    let runs: Arc<[Run]> =
        deliveries.into_iter().zip(verdicts).map(|(delivery, verdict)| run(delivery, verdict)).collect();
    // Whatever it answers, each is handed over: at worst it is once more.
    let settled = persist("settle the outbox", || inbox.settle(runs.clone())).await?;
    settled.err().iter().for_each(|reason| tracing::error!("the outbox cannot be settled: {reason}"));
    Ok(())
}

/// Publishes what belongs to one stream: together, and one by one where the carrier refuses that.
async fn publish(carrier: &dyn Carrier, part: &[Delivery]) -> Result<Vec<Verdict>, Closed> {
    let origin = part.first().map_or("", |delivery| delivery.origin().0);
    let stream = origin.strip_prefix(OUTBOX_PREFIX).unwrap_or(origin);
    let events: Vec<Event> = part.iter().filter_map(|delivery| delivery.event.as_ref().ok().cloned()).collect();
    let together = persist("publish", || carrier.publish(stream, &events)).await?;
    let mut verdicts = Vec::with_capacity(part.len());
    for delivery in part {
        let event = match &delivery.event {
            Ok(event) => event,
            Err(raw) => {
                verdicts.push(dead(DeathReason::Undecodable, &raw.reason));
                continue;
            }
        };
        let alone = match &together {
            Ok(()) => Ok(()),
            Err(_) => persist("publish", || carrier.publish(stream, std::slice::from_ref(event))).await?,
        };
        verdicts.push(match alone {
            Ok(()) => Verdict::Commit,
            Err(reason) => {
                tracing::error!(stream, event = event.id, "the carrier refuses it, now a dead letter: {reason}");
                dead(DeathReason::Invalid, &reason)
            }
        });
    }
    Ok(verdicts)
}

fn dead(reason: DeathReason, message: &str) -> Verdict {
    let kind = if reason == DeathReason::Undecodable { FailureKind::Event } else { FailureKind::Refused };
    Verdict::Dead { reason, failure: Failure::new(kind, message) }
}

fn run(delivery: Delivery, verdict: Verdict) -> Run {
    Run {
        deliveries: vec![Settling { delivery: Arc::new(delivery), verdict }],
        reads: Vec::new(),
        effects: Effects::default(),
        record: None,
        steps: None,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
