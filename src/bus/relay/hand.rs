//! What one inbox has in hand of what lies at the carrier.
//!
//! Owns the leases of carried deliveries: a number per handing-out, which no other one of this process has. What is handed out
//! and not put down is not handed out again, however often the carrier brings a copy.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{AT_CARRIER, Place};
use crate::bus::{Delivery, Lease};

/// Deliveries in hand.
pub(super) struct Hand {
    held: HashMap<Place, Held>,
    numbers: Arc<AtomicU64>,
}

struct Held {
    number: u64,
    /// It is being given back: whatever the carrier brings now is no copy.
    leaves: bool,
}

/// Whether the delivery lies at the carrier, and not in the ledger.
pub(super) fn is_carried(delivery: &Delivery) -> bool {
    delivery.lease.claim == AT_CARRIER
}

/// Where the delivery lies at the carrier.
pub(super) fn place(delivery: &Delivery) -> Place {
    (delivery.stream.clone(), delivery.entry)
}

impl Hand {
    /// Empty; takes its numbers from `numbers`.
    pub(super) fn new(numbers: Arc<AtomicU64>) -> Self {
        Self { held: HashMap::new(), numbers }
    }

    /// Takes what lies at `place` in hand; `None`: it is a copy of what is in hand already.
    pub(super) fn take(&mut self, place: Place) -> Option<Lease> {
        if self.holds_copy(&place) {
            return None;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.held.insert(place, Held { number, leaves: false });
        Some(Lease { claim: AT_CARRIER, epoch: number })
    }

    /// Whether another of what lies at `place` would be a copy.
    pub(super) fn holds_copy(&self, place: &Place) -> bool {
        self.held.get(place).is_some_and(|held| !held.leaves)
    }

    /// Whether this very delivery is in hand.
    pub(super) fn holds(&self, delivery: &Delivery) -> bool {
        self.held.get(&place(delivery)).is_some_and(|held| held.number == delivery.lease.epoch)
    }

    /// The carrier is about to hear that it goes back.
    pub(super) fn let_go(&mut self, delivery: &Delivery) {
        if let Some(held) = self.held.get_mut(&place(delivery)).filter(|held| held.number == delivery.lease.epoch) {
            held.leaves = true;
        }
    }

    /// The carrier knows what became of it.
    pub(super) fn put_down(&mut self, delivery: &Delivery) {
        if self.holds(delivery) {
            self.held.remove(&place(delivery));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Undecodable;
    use crate::event::EntryId;

    fn delivery(lease: Lease) -> Delivery {
        let event = Err(Undecodable { reason: String::new(), fields: Vec::new() });
        let (stream, entry) = ("orders".into(), EntryId(3, 7));
        Delivery { lease, stream, entry, event, lay: None, past: None, orphaned: 0, deaths: 0, received: 0 }
    }

    #[test]
    fn a_copy_is_one_until_the_first_goes_back() {
        let mut hand = Hand::new(Arc::default());
        let here: Place = ("orders".into(), EntryId(3, 7));
        let first = delivery(hand.take(here.clone()).expect("it is the first"));
        assert!(hand.take(here.clone()).is_none() && hand.holds(&first));
        hand.let_go(&first);
        assert!(hand.holds(&first), "until the carrier has heard of it");
        let second = delivery(hand.take(here.clone()).expect("it came again"));
        assert!(!hand.holds(&first) && hand.holds(&second));
        hand.put_down(&first);
        assert!(hand.holds(&second), "a void lease puts nothing down");
        hand.put_down(&second);
        assert!(hand.take(here).is_some());
    }
}
