//! A bus that keeps nothing, paired with a ledger that does.
//!
//! Kafka and its like carry events but cannot hold state, so a settle cannot be one step there. It becomes three: (1) the ledger
//! commits everything, emitted events included, under a fence per delivery; (2) the outbox is handed to the carrier, at least once
//! under stable ids; (3) the carrier is told that the delivery is done, then the fence is lifted. (2) and (3) both follow (1), and
//! do not wait for each other: in the outbox an event is as safe as the state beside it. Retries, delayed events and replays
//! live in the ledger and are read from there. Knows no concrete carrier and no concrete ledger.
//!
//! What a crash leaves behind, between any two steps:
//!
//! | it dies | then |
//! |---|---|
//! | before (1) | nothing happened; the carrier delivers again |
//! | after (1), before (2) | the events lie in the outbox; whoever opens the ledger next hands them over |
//! | within (2), or before its entries are settled in the ledger | events are handed over again, under the same ids |
//! | after (1), before (3) | the fence stands: it is acknowledged when the group is opened next, or recognised when the carrier delivers it first; nothing runs |
//! | after the acknowledgement, before the fence is lifted | the fence is lifted when the group is opened next |
//! | after the lift | the fence still stands for a while, because another process may hold a copy |
//!
//! A reply that is lost is a crash after (1): the same settle again finds the fence, acknowledges and answers "already mine".
//! Whoever settles first wins; a copy that another process ran meanwhile changes nothing. The promise is only as good as the
//! ledger's commit: one that can lose commits (a power cut without full sync) would lose what the carrier was told is done.
//! Deaths under what lies at the carrier are not counted, so a killer there is not recognised ([`Features::marks`]).

mod hand;
mod inbox;
mod outbox;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;

use super::{Began, Bus, BusError, Features, Subscribed, Subscription, Undecodable};
use crate::clock::Clock;
use crate::event::{EntryId, Event};
use crate::outcome::Emit;

use inbox::RelayInbox;
use outbox::Outbox;

/// Streams of the ledger whose entries are on their way to the carrier.
pub const OUTBOX_PREFIX: &str = "moontide:outbox:";

/// Claim of everything that lies at a carrier; a ledger numbers its own claims from 1.
pub const AT_CARRIER: u64 = 0;

/// Where an entry lies at the carrier: stream and entry.
pub type Place = (Arc<str>, EntryId);

/// Carries events and keeps nothing for handlers.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// What it can: `durable`, `shared` and `history` are asked, the rest is not its to say.
    fn features(&self) -> Features;

    /// Hands over all of `events`, in order; on an error some may have been taken, and all are handed over again.
    /// [`BusError::Refused`] is for ever: one of them can never be taken.
    async fn publish(&self, stream: &str, events: &[Event]) -> Result<(), BusError>;

    /// Opens the group of one handler.
    async fn subscribe(&self, subscription: &Subscription) -> Result<Opened, BusError>;
}

/// A channel, and what opening it meant.
pub struct Opened {
    pub channel: Arc<dyn Channel>,
    /// One for each stream on which the group is new.
    pub began: Vec<Began>,
}

/// One group's deliveries. What is neither acknowledged nor given back comes again, under the same entry, when the channel
/// is dropped or its process dies.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Waits until there is something, and hands out at most `max`; cancel-safe.
    async fn receive(&self, max: usize) -> Result<Vec<Carried>, BusError>;
    /// These are done, whichever process they were delivered to; harmless when repeated.
    async fn acknowledge(&self, places: &[Place]) -> Result<(), BusError>;
    /// These come again, here or elsewhere; harmless when repeated.
    async fn give_back(&self, places: &[Place]) -> Result<(), BusError>;
}

/// An entry in transit.
#[derive(Clone, Debug)]
pub struct Carried {
    pub stream: Arc<str>,
    pub entry: EntryId,
    pub event: Result<Event, Undecodable>,
}

/// The ledger's record of deliveries that lie at a carrier and are settled, by group. A fence is set by the settle itself.
#[async_trait]
pub trait Fence: Send + Sync {
    /// For each of `places`: whether the ledger is through with it.
    async fn settled(&self, group: &str, places: &[Place]) -> Result<Vec<bool>, BusError>;

    /// Settled, and never lifted: the carrier may not know.
    async fn standing(&self, group: &str) -> Result<Vec<Place>, BusError>;

    /// The carrier knows that these are done. Nobody waits for it: what a crash prevents, [`Fence::standing`] finds.
    fn lift(&self, group: &str, places: Vec<Place>);
}

/// The ledger's side of a relay: a whole bus of its own. Its inboxes also settle deliveries whose claim is [`AT_CARRIER`], where the
/// fence takes the place of ownership: [`Answer::AlreadyMine`] if it stands, else it is set in the same transaction.
///
/// [`Answer::AlreadyMine`]: super::Answer::AlreadyMine
pub trait Keeper: Bus {
    fn fence(&self) -> Arc<dyn Fence>;
}

/// A carrier and a ledger, as one bus.
pub struct Relay {
    carrier: Arc<dyn Carrier>,
    keeper: Arc<dyn Keeper>,
    clock: Arc<dyn Clock>,
    /// Numbers of what was handed out.
    handed_out: Arc<AtomicU64>,
    _outbox: Outbox,
}

impl Relay {
    /// Pairs them and starts to empty the outbox; `clock` is the ledger's.
    ///
    /// # Errors
    /// When the outbox cannot be opened.
    pub async fn new(
        carrier: Arc<dyn Carrier>,
        keeper: Arc<dyn Keeper>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BusError> {
        let outbox = Outbox::start(carrier.clone(), &*keeper).await?;
        Ok(Self { carrier, keeper, clock, handed_out: Arc::default(), _outbox: outbox })
    }
}

#[async_trait]
impl Bus for Relay {
    fn features(&self) -> Features {
        let (carrier, keeper) = (self.carrier.features(), self.keeper.features());
        Features {
            one_store: false,
            marks: false,
            durable: carrier.durable && keeper.durable,
            shared: carrier.shared && keeper.shared,
            history: carrier.history,
        }
    }

    /// All or none: by way of the outbox, so that a crash half-way through repeats and never drops.
    async fn publish(&self, mut emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        if let Some(reason) = outbox::refusal(&emits) {
            return Err(BusError::Refused(reason));
        }
        emits.iter_mut().for_each(outbox::reroute);
        let count = emits.len();
        self.keeper.publish(emits).await?;
        Ok(vec![None; count])
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError> {
        let ours = Subscription { streams: Vec::new(), discover: Vec::new(), ..subscription.clone() };
        let (local, fence) = (self.keeper.subscribe(ours).await?.inbox, self.keeper.fence());
        let Opened { channel, began } = self.carrier.subscribe(&subscription).await?;
        let standing = fence.standing(&subscription.group).await?;
        if !standing.is_empty() {
            channel.acknowledge(&standing).await?;
            fence.lift(&subscription.group, standing);
        }
        let (clock, handed_out) = (self.clock.clone(), self.handed_out.clone());
        let inbox = RelayInbox::new(channel, local, fence, subscription, clock, handed_out);
        Ok(Subscribed { inbox: Arc::new(inbox), began })
    }
}
