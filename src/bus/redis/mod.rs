//! Redis Streams: bus and ledger on one server that many processes share.
//!
//! Redis 7.0 or Valkey 7.2 and later. Settle is one script inside the server (`settle`, `scripts/settle.lua`); who owns what is the
//! consumer groups' pending lists, and who is alive is a counter per process (`beat`). Blocking reads have a connection of
//! their own (`bell`); everything else shares one (`link`). The names of all keys are in `keys`.

mod address;
mod adopt;
mod args;
mod beat;
mod bell;
mod channels;
mod dead;
mod discovery;
mod door;
mod due;
mod entry;
mod erase;
mod fault;
mod fitness;
mod foreign;
mod group;
mod hand_over;
mod held;
mod inbox;
mod intake;
mod keys;
mod ledger;
mod letters;
mod link;
mod losses;
mod machine;
mod operate;
mod overview;
mod peers;
mod procedure;
mod publish;
mod reader;
mod replay;
mod reply;
mod roll;
mod route;
mod settle;
mod silence;
mod standing;
mod state;
mod step;
mod store;
mod sweep;
mod takeover;
mod tls;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

pub use address::Address;
pub use adopt::{Adopt, AdoptRules};
pub use erase::erase;
pub use fitness::{RECORD_BYTES, promises};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Bus, BusError, Features, Subscribed, Subscription};
use crate::channels::Channel;
use crate::envelope::Layouts;
use crate::event::EntryId;
use crate::failpoint;
use crate::outcome::Emit;
use crate::streams::Streams;
use beat::Beat;
use channels::Ears;
use door::Door;
use due::Due;
use fault::Fault;
use inbox::RedisInbox;
use store::Store;

/// How the bus is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: Address,
    /// All keys of ours begin so; scripts cannot reach them.
    pub prefix: String,
    /// Before the keys of `ctx.kv`.
    pub state_prefix: String,
    /// A server that may throw away keys of ours is used nevertheless.
    pub allow_eviction: bool,
    /// A process whose heartbeat stands still for this long is taken for dead.
    pub recovery_time: Duration,
    /// How often our own heartbeat is raised, at least; a quarter of the recovery time where that is shorter.
    pub beat_every: Duration,
    /// Name of this process, for people.
    pub instance: String,
    /// Where types live, and how much of the past each stream keeps.
    pub streams: Arc<Streams>,
    /// A group without a living handler stops holding back trimming after this time.
    pub forget_group_after: Duration,
    /// Dead letters go when they are this old; `None`: never. Those of others stay.
    pub dead_letters_retain: Option<Duration>,
    /// Where dead letters lie, and others may put theirs; `None`: under the prefix.
    pub dead_letters_stream: Option<String>,
    /// The layout in which events lie there; `None`: as in their streams.
    pub dead_letters_layout: Option<Layouts>,
    /// How often history is trimmed and what expired is removed.
    pub upkeep_every: Duration,
    /// Entries in one read, at most; at least 1.
    pub read_max: usize,
    /// How long the server holds a read in which nothing happens.
    pub block: Duration,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// From which consumers of others handlers adopt; `None`: none does from any.
    pub adopt: Option<AdoptRules>,
}

impl Options {
    /// The defaults, for the server at `address`.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            prefix: "moontide:".into(),
            state_prefix: "state:".into(),
            allow_eviction: false,
            recovery_time: Duration::from_secs(10),
            beat_every: Duration::from_secs(1),
            instance: format!("process {}", std::process::id()),
            streams: Arc::default(),
            forget_group_after: Duration::from_secs(7 * 24 * 3600),
            dead_letters_retain: None,
            dead_letters_stream: None,
            dead_letters_layout: None,
            upkeep_every: Duration::from_secs(1),
            read_max: 1024,
            block: Duration::from_secs(1),
            patience: link::PATIENCE,
            adopt: None,
        }
    }

    /// From one heartbeat to the next.
    fn beat_period(&self) -> Duration {
        self.beat_every.min(self.recovery_time / 4)
    }
}

/// The bus. Dropping it stops it at once and tidies nothing, as a crash would; [`RedisBus::close`] is the orderly end.
pub struct RedisBus {
    store: Arc<Store>,
    beat: Arc<Beat>,
    due: Arc<Due>,
    ears: Mutex<Option<Ears>>,
}

impl RedisBus {
    /// Opens the bus.
    ///
    /// # Errors
    /// [`BusError::Away`] where the server cannot be reached, [`BusError::Unusable`] where it cannot be used as it is.
    pub async fn open(options: Options) -> Result<Arc<Self>, BusError> {
        let store = Arc::new(Store::new(options));
        fitness::check(&store).await?;
        let beat = Beat::begin(store.clone()).await.map_err(|fault| store.told_at_start(fault))?;
        let due = Due::begin(store.clone());
        store.spawn(bell::listen(store.clone()));
        store.spawn(upkeep::keep_up(store.clone()));
        store.spawn(discovery::walk_on(store.clone()));
        store.spawn(ring_deaths(store.clone(), beat.clone()));
        if let Some(rules) = store.options.adopt.clone() {
            store.spawn(adopt::adopt_on(store.clone(), rules));
        }
        Ok(Arc::new(Self { store, beat, due, ears: Mutex::default() }))
    }

    /// Listens to channels, until the bus is closed or [`RedisBus::stop_listening`].
    pub fn listen(&self, channels: Vec<Channel>) {
        *self.ears.lock() = Some(Ears::open(&self.store, &self.beat, channels));
    }

    /// Hears nothing more; what was heard is still taken.
    pub fn stop_listening(&self) {
        self.ears.lock().iter().for_each(Ears::close);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.store.is_closed()
    }

    /// Ends in order: what this process still holds goes back uncharged.
    pub async fn close(&self) {
        let ears = self.ears.lock().take();
        if let Some(ears) = ears {
            ears.drain().await;
        }
        let (mut read, mut all_read) = (Vec::new(), true);
        for door in self.store.doors() {
            let group = &door.subscription.group;
            self.store.give_back_later(&door);
            // What it brings after we have said farewell would be nobody's: we are not counted any more.
            all_read &= tokio::time::timeout(self.store.options.patience, door.has_read()).await.is_ok();
            self.store.gone_back(group).await;
            read.extend(door.sources().into_iter().map(|stream| (stream, group.clone())));
        }
        failpoint::reached("farewell.before");
        let left = match all_read {
            true => failpoint::during("farewell.sent", self.beat.farewell(&read)).await,
            false => Err(Fault::Away("a last read was not answered".into())),
        };
        failpoint::reached("farewell.after");
        if let Err(fault) = left {
            let told = self.store.told(fault);
            tracing::warn!("the others learn of our end only when our heartbeat has stood still: {told}");
        }
        self.store.close();
    }
}

/// Whoever died may have left something to any inbox.
async fn ring_deaths(store: Arc<Store>, beat: Arc<Beat>) {
    let mut deaths = beat.deaths();
    while deaths.changed().await.is_ok() {
        store.doors().iter().for_each(|door| door.ring_left());
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.store.close();
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn features(&self) -> Features {
        Features { one_store: true, marks: true, durable: true, shared: true, history: true }
    }

    async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        publish::publish(&self.store, &self.due, &emits).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError> {
        let subscription = Arc::new(subscription);
        self.store.gone_back(&subscription.group).await;
        let (streams, began) = group::open(&self.store, &subscription).await?;
        let retry: Arc<str> = self.store.keys.retry(&subscription.group).into();
        let sources = [retry.clone()].into_iter().chain(streams.into_iter().map(Arc::from)).collect();
        let door = Arc::new(Door::new(subscription, retry, sources, self.store.batches.clone()));
        self.store.add_door(&door);
        // What was trimmed while nobody read is counted, and the server knows how to look from now on.
        let looked = self.store.look(door.sources().iter().map(|stream| &**stream)).await;
        looked.map_err(|fault| self.store.told(fault))?;
        // A stream that appeared between the look above and now told nobody who had this door.
        door.look_for_streams();
        Ok(Subscribed {
            inbox: Arc::new(RedisInbox {
                store: self.store.clone(),
                beat: self.beat.clone(),
                due: self.due.clone(),
                door,
            }),
            began,
        })
    }
}

#[cfg(test)]
mod tests;
