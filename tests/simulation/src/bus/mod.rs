//! The model bus: `moontide::bus`'s seams over the model store, with faults between.

pub mod call;
mod inbox;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use moontide::bus::{Bus, BusError, Delivery, Features, Ledger, Recorded, Subscribed, Subscription};
use moontide::event::EntryId;
use moontide::outcome::{Emit, RecordKey};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::process::Process;
use crate::store::ProcessId;
use call::{Luck, lost, to_store};
use inbox::ModelInbox;

/// A process's connection to the store.
#[derive(Clone)]
pub struct ModelBus {
    pub process: Arc<Process>,
}

/// What an inbox and its claims share.
pub struct Door {
    pub group: Arc<str>,
    pub process: ProcessId,
    bell: Notify,
    hand: Mutex<Hand>,
}

#[derive(Default)]
struct Hand {
    /// Claimed, not handed out.
    waiting: VecDeque<Delivery>,
    claiming: bool,
    failed: Option<BusError>,
    /// There may be something to claim.
    news: bool,
    /// The inbox is gone: a claim that is still on its way takes nothing.
    closed: bool,
}

impl Door {
    fn new(group: Arc<str>, process: ProcessId) -> Self {
        let hand = Hand { news: true, ..Hand::default() };
        Self { group, process, bell: Notify::new(), hand: Mutex::new(hand) }
    }

    /// There may be something to claim.
    pub fn ring(&self) {
        self.hand.lock().news = true;
        self.bell.notify_one();
    }
}

#[async_trait]
impl Bus for ModelBus {
    fn features(&self) -> Features {
        Features { one_store: true, marks: true, durable: true, shared: true, history: true }
    }

    async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        let luck = to_store(&self.process, "publish").await?;
        let world = &self.process.world;
        let none = vec![None; emits.len()];
        world.store.lock().publish(emits, world.elapsed());
        world.spread_news();
        self.answer(luck, "publish", none).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError> {
        let luck = to_store(&self.process, "subscribe").await?;
        let group = subscription.group.clone();
        self.process.world.store.lock().subscribe(subscription);
        self.answer(luck, "subscribe", ()).await?;
        let door = Arc::new(Door::new(group, self.process.id));
        self.process.world.listen(&door);
        Ok(Subscribed { inbox: Arc::new(ModelInbox { bus: self.clone(), door }), began: Vec::new() })
    }
}

#[async_trait]
impl Ledger for ModelBus {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, BusError> {
        let luck = to_store(&self.process, "read").await?;
        let values = {
            let store = self.process.world.store.lock();
            keys.iter().map(|key| store.read(key)).collect()
        };
        self.answer(luck, "read", values).await
    }

    async fn recorded(&self, keys: &[RecordKey]) -> Result<Vec<Option<Recorded>>, BusError> {
        let luck = to_store(&self.process, "recorded").await?;
        let world = &self.process.world;
        let found = {
            let store = world.store.lock();
            keys.iter().map(|key| store.recorded(*key, world.elapsed())).collect()
        };
        self.answer(luck, "recorded", found).await
    }
}

impl ModelBus {
    /// The way back.
    async fn answer<T>(&self, luck: Luck, call: &'static str, answer: T) -> Result<T, BusError> {
        self.process.world.way().await;
        match luck {
            Luck::Both => Ok(answer),
            Luck::ReplyLost => Err(lost(&self.process, call, "reply", true).await),
        }
    }
}
