//! What one inbox holds: entries in chunks, one chunk per answer of the server and stream.
//!
//! Owns what a lease means: the number of a chunk, the place in it, and how often the entry was delivered. Chunks that have
//! ended are kept for a while, so that whoever settles twice is told that it is settled.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bus::{Answer, Delivery, Lease, Run};
use crate::event::EntryId;

/// Ended chunks that are kept.
const REMEMBERED_MAX: usize = 64;
/// Asking for this many entries between two costs the server less than asking twice.
const GAP_MAX: usize = 4;

/// How an entry stands with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    InHand,
    Settled,
    /// The lease is void: somebody else has it, or we never had.
    Void,
}

/// A stretch of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub first: EntryId,
    pub last: EntryId,
    /// Entries that we may have in it.
    pub in_hand: usize,
}

struct Chunk {
    stream: Arc<str>,
    /// Each with how often it was delivered.
    entries: Vec<(EntryId, u32, Standing)>,
    in_hand: usize,
}

/// Inboxes of this process so far: no two give a lease of the same number.
static INBOXES: AtomicU64 = AtomicU64::new(0);

/// The chunks of one inbox.
pub(super) struct Held {
    chunks: HashMap<u64, Chunk>,
    ended: VecDeque<u64>,
    next: u64,
}

impl Default for Held {
    fn default() -> Self {
        let inbox = INBOXES.fetch_add(1, Ordering::Relaxed);
        Self { chunks: HashMap::new(), ended: VecDeque::new(), next: inbox << 32 }
    }
}

impl Held {
    /// Takes in entries of `stream`, each with how often it was delivered, and gives each its lease.
    pub fn take_in(&mut self, stream: &Arc<str>, entries: &[(EntryId, u32)]) -> Vec<Lease> {
        let claim = self.next;
        self.next += 1;
        let leases = entries.iter().enumerate();
        let leases = leases.map(|(at, (_, times))| Lease { claim, epoch: (at as u64) << 32 | u64::from(*times) });
        let leases = leases.collect();
        if !entries.is_empty() {
            let in_hand = entries.len();
            let entries = entries.iter().map(|(entry, times)| (*entry, *times, Standing::InHand)).collect();
            self.chunks.insert(claim, Chunk { stream: stream.clone(), entries, in_hand });
        }
        leases
    }

    /// How a delivery stands.
    pub fn standing(&self, delivery: &Delivery) -> Standing {
        let entry = self.chunks.get(&delivery.lease.claim).and_then(|chunk| chunk.entries.get(place(delivery.lease)));
        match entry {
            Some((entry, _, standing)) if *entry == delivery.entry => *standing,
            _ => Standing::Void,
        }
    }

    /// What becomes of `run`, if that is known without asking: it is settled, or not ours.
    pub fn answer(&self, run: &Run) -> Option<Answer> {
        let mut settled = 0;
        for settling in &run.deliveries {
            match self.standing(&settling.delivery) {
                Standing::Void => return Some(Answer::Fenced),
                Standing::Settled => settled += 1,
                Standing::InHand => {}
            }
        }
        match settled {
            0 => None,
            all if all == run.deliveries.len() => Some(Answer::AlreadyMine),
            _ => Some(Answer::Fenced),
        }
    }

    /// A delivery ended, or is no longer ours.
    pub fn end(&mut self, delivery: &Delivery, standing: Standing) {
        let claim = delivery.lease.claim;
        let Some(chunk) = self.chunks.get_mut(&claim) else { return };
        let Some((_, _, now)) = chunk.entries.get_mut(place(delivery.lease)) else { return };
        if std::mem::replace(now, standing) != Standing::InHand {
            return;
        }
        chunk.in_hand -= 1;
        if chunk.in_hand == 0 {
            self.ended.push_back(claim);
            if self.ended.len() > REMEMBERED_MAX
                && let Some(oldest) = self.ended.pop_front()
            {
                self.chunks.remove(&oldest);
            }
        }
    }

    /// The stretches of a stream in which the entries with these leases lie, so that what lies between them in a stretch
    /// is little.
    pub fn stretches(&self, leases: &[Lease]) -> Vec<Stretch> {
        let mut places: Vec<_> = leases.iter().map(|lease| (lease.claim, place(*lease))).collect();
        places.sort_unstable();
        let near = |a: &(u64, usize), b: &(u64, usize)| a.0 == b.0 && b.1 - a.1 <= GAP_MAX;
        let stretch = |part: &[(u64, usize)]| {
            let ((claim, from), (_, to)) = (part.first()?, part.last()?);
            let entries = &self.chunks.get(claim)?.entries;
            Some(Stretch { first: entries.get(*from)?.0, last: entries.get(*to)?.0, in_hand: to - from + 1 })
        };
        places.chunk_by(near).filter_map(stretch).collect()
    }

    /// The entries of `stream` in hand.
    pub fn entries(&self, stream: &str) -> HashSet<EntryId> {
        let chunks = self.chunks.values().filter(|chunk| chunk.in_hand > 0 && &*chunk.stream == stream);
        let entries = chunks.flat_map(|chunk| &chunk.entries);
        entries.filter(|(_, _, standing)| *standing == Standing::InHand).map(|(entry, ..)| *entry).collect()
    }

    /// Everything in hand, with how often it was delivered, is handed over; all leases are void.
    pub fn drain(&mut self) -> Vec<(Arc<str>, EntryId, u32)> {
        self.ended.clear();
        let open = std::mem::take(&mut self.chunks).into_values().filter(|chunk| chunk.in_hand > 0);
        let entries = open.flat_map(|chunk| {
            let stream = chunk.stream;
            let in_hand = chunk.entries.into_iter().filter(|(_, _, standing)| *standing == Standing::InHand);
            in_hand.map(move |(entry, times, _)| (stream.clone(), entry, times))
        });
        entries.collect()
    }
}

/// How often the entry was delivered when the lease was given.
pub(super) fn times(lease: Lease) -> u32 {
    lease.epoch as u32
}

fn place(lease: Lease) -> usize {
    (lease.epoch >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn delivery(entry: EntryId, lease: Lease) -> Delivery {
        let event = Ok(Event::new("1", "test", "t"));
        let stream = "orders".into();
        Delivery { lease, stream, entry, event, lay: None, past: None, orphaned: 0, deaths: 0, received: 0 }
    }

    #[test]
    fn a_lease_stands_until_it_ends_and_is_remembered_for_a_while() {
        let (mut held, stream) = (Held::default(), Arc::from("orders"));
        let ids = [EntryId(1, 0), EntryId(1, 1)];
        let leases = held.take_in(&stream, &[(ids[0], 1), (ids[1], 3)]);
        let both: Vec<_> = ids.iter().zip(&leases).map(|(id, lease)| delivery(*id, *lease)).collect();
        assert_eq!((times(leases[0]), times(leases[1])), (1, 3));
        assert_eq!(held.standing(&both[0]), Standing::InHand);
        assert_eq!(held.standing(&delivery(ids[1], leases[0])), Standing::Void, "a lease of another entry");
        held.end(&both[0], Standing::Settled);
        held.end(&both[0], Standing::Settled);
        assert_eq!(held.entries("orders"), HashSet::from([ids[1]]));
        held.end(&both[1], Standing::Void);
        assert_eq!((held.standing(&both[0]), held.standing(&both[1])), (Standing::Settled, Standing::Void));
        for n in 0..REMEMBERED_MAX as u64 {
            let one = EntryId(2, n);
            let lease = held.take_in(&stream, &[(one, 1)])[0];
            held.end(&delivery(one, lease), Standing::Settled);
        }
        assert_eq!(held.standing(&both[0]), Standing::Void, "forgotten");
        assert_eq!(held.chunks.len(), REMEMBERED_MAX);
    }

    #[test]
    fn entries_that_lie_near_each_other_are_one_stretch() {
        let (mut held, stream) = (Held::default(), Arc::from("orders"));
        let entries: Vec<_> = (0..40).map(|n| (EntryId(1, n), 1)).collect();
        let leases = held.take_in(&stream, &entries);
        let more = held.take_in(&stream, &[(EntryId(2, 0), 1)]);
        let asked = [leases[30], leases[1], leases[0], more[0], leases[5], leases[10]];
        let stretch = |first, last, in_hand| Stretch { first, last, in_hand };
        let expected = [
            stretch(EntryId(1, 0), EntryId(1, 5), 6),
            stretch(EntryId(1, 10), EntryId(1, 10), 1),
            stretch(EntryId(1, 30), EntryId(1, 30), 1),
            stretch(EntryId(2, 0), EntryId(2, 0), 1),
        ];
        assert_eq!(held.stretches(&asked), expected);
    }

    #[test]
    fn what_is_in_hand_is_handed_over_once() {
        let (mut held, stream) = (Held::default(), Arc::from("orders"));
        let leases = held.take_in(&stream, &[(EntryId(1, 0), 1), (EntryId(1, 1), 1)]);
        held.end(&delivery(EntryId(1, 0), leases[0]), Standing::Settled);
        assert_eq!(held.drain(), [(stream, EntryId(1, 1), 1)]);
        assert_eq!(held.standing(&delivery(EntryId(1, 1), leases[1])), Standing::Void);
        assert_eq!(held.drain(), []);
    }
}
