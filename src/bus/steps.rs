//! What the durable steps of a handler's runs came to (`ctx:step`), kept from attempt to attempt.
//!
//! Records belong to an event, not to a delivery: they are named by its idempotency key, so that retries, a take-over and the
//! replay of a dead letter find them. They end with the settle that commits the event, and stay as long as its dead letter.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BusError, Delivery};
use crate::outcome::RecordKey;

/// How long records are kept whose event is never settled, counted from the last one, besides what a handler lets events wait.
pub const STEPS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Names the steps of its event.
    pub event: RecordKey,
    pub name: Arc<str>,
    /// JSON text; empty: nothing.
    pub result: Bytes,
    /// All records of the event are kept at least this long from now on.
    pub kept: Duration,
}

/// What recording a step came to; the closed list.
#[derive(Clone, Debug, PartialEq)]
pub enum StepAnswer {
    Recorded,
    /// It was recorded before, with this result: by a call whose reply was lost, or in another delivery of the event.
    Known(Bytes),
    /// Somebody else owns the delivery now: nothing was recorded.
    Fenced,
    /// Group or stream vanished: nothing was recorded.
    StoreReset,
}

/// What is remembered of steps.
#[async_trait]
pub trait Steps: Send + Sync {
    /// Names and results of the steps recorded for `event`, in any order.
    async fn recall(&self, event: RecordKey) -> Result<Vec<(String, Bytes)>, BusError>;

    /// Records what a step of a run over `delivery` came to, if the delivery is still ours. Who records first wins. On an error
    /// nothing is known; repeat it, not the step.
    async fn record(&self, delivery: &Delivery, step: &Step) -> Result<StepAnswer, BusError>;
}
