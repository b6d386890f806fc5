//! Events under which a process may have died: one of them runs at a time in the whole process, so that a death can be
//! charged.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use crate::bus::{Delivery, Lease};
use crate::event::EntryId;

/// The suspects of one handler.
#[derive(Default)]
pub(super) struct Suspects {
    waiting: VecDeque<Arc<Delivery>>,
    /// The process' turn, and whose it is.
    turn: Option<(OwnedMutexGuard<()>, Lease, EntryId)>,
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

    /// It could not be marked: it is the next one again.
    pub fn put_back(&mut self, delivery: Arc<Delivery>) {
        self.waiting.push_front(delivery);
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<Arc<Delivery>> {
        self.waiting.pop_front()
    }

    /// All that wait.
    pub fn drain(&mut self) -> impl Iterator<Item = Arc<Delivery>> + '_ {
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
