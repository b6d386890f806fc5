//! Events under which a process may have died: one of them runs at a time in the whole process, so that a death can be
//! charged.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::bus::{Delivery, Lease};
use crate::event::EntryId;

/// The suspects of one handler.
#[derive(Default)]
pub(super) struct Suspects {
    waiting: VecDeque<Arc<Delivery>>,
    /// The process' turn, and whose it is.
    turn: Option<(OwnedMutexGuard<()>, Lease, EntryId)>,
    /// The process' turn, while nobody knows whether the first one that waits was marked.
    kept: Option<OwnedMutexGuard<()>>,
}

impl Suspects {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether one of them could run if it had the process' turn.
    pub fn want_turn(&self) -> bool {
        self.turn.is_none() && !self.waiting.is_empty()
    }

    /// It runs when those before it have ended.
    pub fn push(&mut self, delivery: Arc<Delivery>) {
        self.waiting.push_back(delivery);
    }

    /// The process' turn; cancel-safe.
    pub async fn next_turn(&mut self, alone: &Arc<Mutex<()>>) -> OwnedMutexGuard<()> {
        match self.kept.take() {
            Some(turn) => turn,
            None => alone.clone().lock_owned().await,
        }
    }

    /// Nobody knows whether it was marked: it is the next one again, and no other has the turn before, or both would be
    /// charged with one death.
    pub fn put_back(&mut self, delivery: Arc<Delivery>, turn: OwnedMutexGuard<()>) {
        self.waiting.push_front(delivery);
        self.kept = Some(turn);
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<Arc<Delivery>> {
        self.waiting.pop_front()
    }

    /// All that wait.
    pub fn drain(&mut self) -> impl Iterator<Item = Arc<Delivery>> + '_ {
        self.kept = None;
        self.waiting.drain(..)
    }

    /// `delivery` runs, and nobody else has the turn until it has ended.
    pub fn take_turn(&mut self, turn: OwnedMutexGuard<()>, delivery: &Delivery) {
        self.turn = Some((turn, delivery.lease, delivery.entry));
    }

    /// Whether it is the one that runs alone.
    pub fn has_turn(&self, delivery: &Delivery) -> bool {
        self.turn.as_ref().is_some_and(|(_, lease, entry)| *lease == delivery.lease && *entry == delivery.entry)
    }

    /// `delivery` has ended: if the turn was its own, the next suspect may have it.
    pub fn end_turn(&mut self, delivery: &Delivery) {
        if self.has_turn(delivery) {
            self.turn = None;
        }
    }
}
