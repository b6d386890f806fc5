//! Whose an entry is: opening a group, claiming, taking over, giving back, marks.

use std::collections::BTreeMap;
use std::sync::Arc;

use moontide::bus::{Delivery, Lease, Subscription};
use moontide::clock::Millis;
use moontide::event::EntryId;

use super::{Elapsed, Entry, Group, Pending, ProcessId, RETRIES, Store};
use crate::events::number_of;
use crate::flaw::Flaw;

impl Store {
    /// Opens the group, as its handler reads it now.
    pub fn subscribe(&mut self, subscription: Subscription) {
        let first_claim = self.last_claim + 1;
        let group = self.groups.entry(subscription.group.clone()).or_insert_with(|| Group {
            subscription: subscription.clone(),
            cursors: BTreeMap::new(),
            pending: BTreeMap::new(),
            settled: BTreeMap::new(),
            first_claim,
        });
        group.subscription = subscription;
    }

    /// Whether somebody who is dead, or nobody, holds something of the group.
    pub fn has_orphans(&self, group: &str, elapsed: Elapsed) -> bool {
        let orphaned = |pending: &Pending| pending.owner.is_none_or(|owner| self.is_dead(owner, elapsed));
        self.groups.get(group).is_some_and(|group| group.pending.values().any(orphaned))
    }

    fn is_dead(&self, process: ProcessId, elapsed: Elapsed) -> bool {
        let patience = if self.flaw == Some(Flaw::ClaimsFromTheLiving) { self.recovery / 8 } else { self.recovery };
        self.beats.get(&process).is_none_or(|at| elapsed - at >= patience)
    }

    /// Makes at most `max` entries of the group the process's: first what others left, then what is new.
    pub fn claim(&mut self, group: &str, process: ProcessId, max: usize, elapsed: Elapsed) -> Vec<Delivery> {
        let mut claimed = self.take_over(group, process, max, elapsed);
        let room = max - claimed.len();
        claimed.extend(self.claim_new(group, process, room));
        let now = self.now(elapsed);
        let Some(group) = self.groups.get(group) else { return Vec::new() };
        let delivery = |claim: &u64| delivery(&self.streams, *claim, &group.pending[claim], now);
        let deliveries = claimed.iter().map(delivery).collect();
        if self.flaw == Some(Flaw::AcknowledgesFirst) {
            self.acknowledge_first(&claimed);
        }
        deliveries
    }

    fn acknowledge_first(&mut self, claimed: &[u64]) {
        for group in self.groups.values_mut() {
            group.pending.retain(|claim, _| !(claimed.contains(claim) && claim.is_multiple_of(8)));
        }
    }

    fn take_over(&mut self, group: &str, process: ProcessId, max: usize, elapsed: Elapsed) -> Vec<u64> {
        let dead: Vec<ProcessId> = match self.flaw {
            Some(Flaw::NeverTakesOver) => Vec::new(),
            _ => self.owners(group).into_iter().filter(|owner| self.is_dead(*owner, elapsed)).collect(),
        };
        let flaw = self.flaw;
        let Some(group) = self.groups.get_mut(group) else { return Vec::new() };
        let mut taken = Vec::new();
        for (claim, pending) in &mut group.pending {
            if taken.len() >= max || pending.owner.is_some_and(|owner| owner == process || !dead.contains(&owner)) {
                continue;
            }
            pending.change_hands(process, flaw);
            taken.push(*claim);
        }
        taken
    }

    fn owners(&self, group: &str) -> Vec<ProcessId> {
        let pending = self.groups.get(group).into_iter().flat_map(|group| group.pending.values());
        let mut owners: Vec<ProcessId> = pending.filter_map(|pending| pending.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    fn claim_new(&mut self, group: &str, process: ProcessId, max: usize) -> Vec<u64> {
        let Some(group) = self.groups.get_mut(group) else { return Vec::new() };
        let mut claimed = Vec::new();
        for (stream, entries) in &self.streams {
            if !group.reads(stream) {
                continue;
            }
            let cursor = group.cursors.entry(stream.clone()).or_default();
            while *cursor < entries.len() && claimed.len() < max {
                self.last_claim += 1;
                group.pending.insert(self.last_claim, Pending::new(stream.clone(), *cursor, Some(process)));
                claimed.push(self.last_claim);
                *cursor += 1;
            }
        }
        claimed
    }

    /// Writes the mark "runs alone now"; false: it is not the process's any more.
    pub fn mark(&mut self, group: &str, process: ProcessId, lease: Lease) -> bool {
        let pending = self.groups.get_mut(group).and_then(|group| group.pending.get_mut(&lease.claim));
        let ours = pending.filter(|pending| pending.owner == Some(process) && pending.epoch == lease.epoch);
        ours.map(|pending| pending.marked = true).is_some()
    }

    /// The process's inbox of the group closed: what it held is anybody's. Nobody died, so an open mark is none.
    pub fn close_inbox(&mut self, group: &str, process: ProcessId) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let name = &group.subscription.group;
        for pending in group.pending.values_mut().filter(|pending| pending.owner == Some(process)) {
            (pending.owner, pending.marked) = (None, false);
            let number = number_of(&self.streams[&pending.stream][pending.at].event);
            self.news.ready.push((name.clone(), number));
        }
        self.news.groups.insert(name.clone());
    }
}

fn delivery(streams: &BTreeMap<Arc<str>, Vec<Entry>>, claim: u64, pending: &Pending, now: Millis) -> Delivery {
    let entry = &streams[&pending.stream][pending.at];
    Delivery {
        lease: Lease { claim, epoch: pending.epoch },
        stream: pending.stream.clone(),
        entry: EntryId(pending.at as u64, 0),
        event: entry.event.clone(),
        lay: None,
        past: entry.past.clone(),
        orphaned: pending.orphaned,
        deaths: pending.deaths,
        received: now,
    }
}

impl Group {
    pub(super) fn reads(&self, stream: &str) -> bool {
        let own = stream.strip_prefix(RETRIES).is_some_and(|group| *group == *self.subscription.group);
        own || self.subscription.streams.iter().any(|wanted| wanted == stream)
    }

    /// Whether everything was claimed.
    pub(super) fn read_all(&self, streams: &BTreeMap<Arc<str>, Vec<Entry>>) -> bool {
        self.unread(streams).next().is_none()
    }

    /// What was not claimed yet.
    pub(super) fn unread<'s>(&self, streams: &'s BTreeMap<Arc<str>, Vec<Entry>>) -> impl Iterator<Item = &'s Entry> {
        let read = streams.iter().filter(|(stream, _)| self.reads(stream));
        read.flat_map(|(stream, entries)| &entries[self.cursors.get(stream).copied().unwrap_or(0)..])
    }
}

impl Pending {
    pub(super) fn new(stream: Arc<str>, at: usize, owner: Option<ProcessId>) -> Self {
        Self { stream, at, owner, epoch: 0, orphaned: 0, deaths: 0, marked: false }
    }

    fn change_hands(&mut self, to: ProcessId, flaw: Option<Flaw>) {
        if self.owner.is_some() {
            let charged = match flaw {
                Some(Flaw::ChargesEverybody) => true,
                Some(Flaw::ChargesNobody) => false,
                _ => self.marked,
            };
            self.orphaned += 1;
            self.deaths += u32::from(charged);
            self.marked = false;
        }
        self.owner = Some(to);
        self.epoch += 1;
    }
}
