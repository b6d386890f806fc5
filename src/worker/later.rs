//! Deliveries that wait for a moment before they go on: conflicts, victims of a neighbour, suspects after a death.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::bus::{Delivery, Lease};
use crate::event::EntryId;

/// How long an event under whose mark a process died waits before it runs once more: a process that is killed again and
/// again, by whatever cause, must not look as if the event had done it.
pub(super) const AFTER_DEATH: Duration = Duration::from_secs(2);
/// How long an event waits whose effects the store refuses, and its dead letter too.
pub(super) const UNWRITABLE_WAIT: Duration = Duration::from_secs(5);

/// How a delivery goes on.
#[derive(Debug)]
pub(super) enum Again {
    Run,
    /// With no other run in its VM.
    Alone,
    /// In the queue of those that run alone in the process.
    Suspect,
    /// Not at all: its dead letter, which says this, is tried again.
    GiveUp(String),
}

/// Everything that waits.
pub(super) struct Later {
    waiting: FuturesUnordered<BoxFuture<'static, (Arc<Delivery>, Again, bool)>>,
    /// Of those: go on within a moment.
    soon: usize,
    /// Conflicts in a row, of deliveries that had one.
    conflicts: HashMap<(Lease, EntryId), u32>,
    /// Threads lost to deliveries that cost one.
    stuck: HashMap<(Lease, EntryId), u32>,
    /// Cancelled: nothing waits any longer.
    stop: CancellationToken,
}

impl Later {
    pub fn new(stop: CancellationToken) -> Self {
        Self { waiting: FuturesUnordered::new(), soon: 0, conflicts: HashMap::new(), stuck: HashMap::new(), stop }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many go on within a moment.
    pub fn soon(&self) -> usize {
        self.soon
    }

    /// How many wait longer.
    pub fn aside(&self) -> usize {
        self.waiting.len() - self.soon
    }

    /// The next delivery that goes on; `None`: nothing waits.
    pub async fn next(&mut self) -> Option<(Arc<Delivery>, Again)> {
        let (delivery, again, soon) = self.waiting.next().await?;
        self.soon -= usize::from(soon);
        Some((delivery, again))
    }

    /// Puts a delivery aside; it goes on after `delay`, or when the worker is to stop.
    pub fn push(&mut self, delivery: Arc<Delivery>, again: Again, delay: Duration) {
        let (stop, soon) = (self.stop.clone(), delay < AFTER_DEATH);
        self.soon += usize::from(soon);
        self.waiting.push(Box::pin(async move {
            if !delay.is_zero() {
                stop.run_until_cancelled(tokio::time::sleep(delay)).await;
            }
            (delivery, again, soon)
        }));
    }

    /// How long to wait after state moved under a run: not at all the first time, since runs of this process now queue on the
    /// key; after that, against other processes, a share of a time that doubles from 2 to 128 ms. `chance`: 0 to 1.
    pub fn after_conflict(&mut self, delivery: &Delivery, chance: f64) -> Duration {
        let count = self.conflicts.entry((delivery.lease, delivery.entry)).or_default();
        *count += 1;
        match *count {
            1 => Duration::ZERO,
            count => Duration::from_millis(1 << (count - 1).min(7)).mul_f64(chance),
        }
    }

    /// The delivery cost a script thread; answers how many by now.
    pub fn stuck(&mut self, delivery: &Delivery) -> u32 {
        let count = self.stuck.entry((delivery.lease, delivery.entry)).or_default();
        *count += 1;
        *count
    }

    /// The delivery is settled: its conflicts, and what it cost, no longer count.
    pub fn forget(&mut self, delivery: &Delivery) {
        if !self.stuck.is_empty() {
            self.stuck.remove(&(delivery.lease, delivery.entry));
        }
        if !self.conflicts.is_empty() {
            self.conflicts.remove(&(delivery.lease, delivery.entry));
        }
    }
}
