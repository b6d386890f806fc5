//! The seam for events from outside: stored once per key, however often they are sent.
//!
//! A sender that lost our answer sends again under the same key. Whether its events lie here already is decided in the step
//! that stores them.

use std::time::Duration;

use async_trait::async_trait;

use super::BusError;
use crate::outcome::{Emit, RecordKey};

/// Takes events from outside.
#[async_trait]
pub trait Intake: Send + Sync {
    /// As [`Bus::publish`](super::Bus::publish), in one step with the claim on a key: all or nothing, and nothing where the
    /// key was claimed before.
    async fn take_in(&self, emits: Vec<Emit>, claim: Claim) -> Result<TakenIn, BusError>;
}

/// A sender's word that these events are those that it sent, or will send, under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub key: RecordKey,
    /// Hash of what was sent: a key stands for one body.
    pub body: u128,
    /// How long the key is remembered, by the store's clock.
    pub window: Duration,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenIn {
    /// Stored now.
    Stored,
    /// The same body was stored under this key before.
    Before,
    /// Another body was stored under this key before: nothing is stored.
    OtherBody,
}
