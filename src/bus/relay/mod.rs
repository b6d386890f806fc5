//! A bus that keeps nothing, paired with a ledger that does.
//!
//! Kafka, RabbitMQ and their like carry events but cannot hold state, so a settle cannot be one step there. It becomes three,
//! in an order in which a crash between any two loses nothing and repeats nothing that counts: the ledger commits
//! everything, emitted events included, under a fence per delivery; the outbox is relayed to the carrier, at least once
//! under stable ids; the carrier is told that the delivery is done. Retries, delayed events and replays live in the ledger and
//! are read from there. Knows no concrete carrier and no concrete ledger.

mod inbox;
mod outbox;

use std::sync::Arc;

use async_trait::async_trait;

use super::{Answer, Bus, BusError, Features, Run, Subscribed, Subscription};
use crate::event::{EntryId, Event};
use crate::outcome::Emit;

use inbox::RelayInbox;
use super::Undecodable;

/// Streams of the ledger whose entries are on their way to the carrier.
pub const OUTBOX_PREFIX: &str = "moontide:outbox:";

/// Carries events and keeps nothing for handlers.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// Hands over all of `events`; on an error some may have been taken, and all are handed over again.
    async fn publish(&self, stream: &str, events: Vec<Event>) -> Result<(), BusError>;

    /// Opens the group of one handler.
    async fn subscribe(&self, subscription: &Subscription) -> Result<Arc<dyn Channel>, BusError>;
}

/// One group's deliveries.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Waits until there is something; cancel-safe. What is neither acknowledged nor given back when the process dies comes
    /// again.
    async fn receive(&self, max: usize) -> Result<Vec<Carried>, BusError>;
    /// These are done; harmless when repeated.
    async fn acknowledge(&self, entries: &[(Arc<str>, EntryId)]) -> Result<(), BusError>;
    /// These come again, here or elsewhere.
    async fn give_back(&self, entries: &[(Arc<str>, EntryId)]) -> Result<(), BusError>;
}

/// An entry in transit.
#[derive(Clone, Debug)]
pub struct Carried {
    pub stream: Arc<str>,
    pub entry: EntryId,
    pub event: Result<Event, Undecodable>,
}

/// A ledger that can settle deliveries which lie elsewhere.
#[async_trait]
pub trait Fence: Send + Sync {
    /// Settles runs whose deliveries came from a carrier, each whole or not at all; the fence is the delivery's origin and
    /// attempt. What must not be acknowledged to the carrier says so in its answer.
    async fn settle_carried(&self, subscription: Arc<Subscription>, runs: Arc<[Run]>)
    -> Result<Vec<Answer>, BusError>;

    /// The carrier knows that these are done: their fences can go.
    async fn lift(&self, subscription: Arc<Subscription>, entries: Vec<(Arc<str>, EntryId)>) -> Result<(), BusError>;
}

/// The ledger's side of a relay: a whole bus of its own, for what lies there, and the fence.
pub trait Keeper: Bus + Fence {}

impl<T: Bus + Fence> Keeper for T {}

/// A carrier and a ledger, as one bus.
pub struct Relay {
    carrier: Arc<dyn Carrier>,
    keeper: Arc<dyn Keeper>,
    durable: bool,
    _outbox: outbox::Outbox,
}

impl Relay {
    /// Pairs them and starts to empty the outbox. `durable`: what the carrier took outlives the process.
    ///
    /// # Errors
    /// When the outbox cannot be opened.
    pub async fn new(carrier: Arc<dyn Carrier>, keeper: Arc<dyn Keeper>, durable: bool) -> Result<Self, BusError> {
        let outbox = outbox::Outbox::start(carrier.clone(), &*keeper).await?;
        Ok(Self { carrier, keeper, durable, _outbox: outbox })
    }
}

#[async_trait]
impl Bus for Relay {
    fn features(&self) -> Features {
        Features { one_store: false, durable: self.durable, shared: false, history: false }
    }

    /// All or none: by way of the outbox, so that a crash half-way through repeats and never drops.
    async fn publish(&self, mut emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        emits.iter_mut().for_each(outbox::reroute);
        let count = emits.len();
        self.keeper.publish(emits).await?;
        Ok(vec![None; count])
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError> {
        let ours = Subscription { streams: Vec::new(), discover: Vec::new(), ..subscription.clone() };
        let local = self.keeper.subscribe(ours).await?;
        let channel = self.carrier.subscribe(&subscription).await?;
        let inbox = RelayInbox::new(channel, local.inbox, self.keeper.clone(), Arc::new(subscription));
        Ok(Subscribed { inbox: Arc::new(inbox), began: local.began })
    }
}
