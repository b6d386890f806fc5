//! The model store: streams, groups, state, records, delayed work and dead letters, shared by all processes.
//!
//! Plain data and functions of it; nobody waits here and nothing is random. Time is handed in. Says what a bus must do
//! (`moontide::bus`, the conformance suite) in the shortest way: one claim per entry, all in one step.

mod claim;
mod effects;
mod settle;

pub use settle::Settler;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use moontide::bus::{DeadId, Past, PastFailure, Recorded, Subscription, Undecodable};
use moontide::clock::Millis;
use moontide::event::Event;
use moontide::judge::DeathReason;
use moontide::outcome::{Emit, RecordKey};

use crate::editions::GROUPS;
use crate::events::{Number, number_of};
use crate::flaw::Flaw;

/// Streams whose names begin so hold the retries of a group.
const RETRIES: &str = "moontide:retry:";
/// The store's clock when a history begins.
const EPOCH: Millis = 1_800_000_000_000;

/// Number of a process; never used again.
pub type ProcessId = u64;

/// Milliseconds since the history began, which no clock step touches.
pub type Elapsed = i64;

/// What is stored.
pub struct Store {
    pub flaw: Option<Flaw>,
    /// A process that did not beat for so long is dead.
    recovery: Elapsed,
    /// Dead letters lie where others may take them away.
    shared_letters: bool,
    /// How far the store's clock was moved.
    offset: Millis,
    pub streams: BTreeMap<Arc<str>, Vec<Entry>>,
    pub groups: BTreeMap<Arc<str>, Group>,
    pub state: BTreeMap<String, Bytes>,
    records: BTreeMap<[u8; 16], Held>,
    due: BTreeMap<(Millis, u64), Due>,
    pub letters: Vec<Letter>,
    beats: BTreeMap<ProcessId, Elapsed>,
    last_claim: u64,
    last_due: u64,
    news: News,
}

/// What happened since somebody last asked.
#[derive(Default)]
pub struct News {
    /// Groups that have something to claim.
    pub groups: BTreeSet<Arc<str>>,
    /// What can be claimed from now on.
    pub ready: Vec<(Arc<str>, Number)>,
    /// What is due next may be something else.
    pub due: bool,
}

/// What lies in a stream.
#[derive(Clone)]
pub struct Entry {
    pub event: Result<Event, Undecodable>,
    past: Option<Box<Past>>,
}

/// A group.
pub struct Group {
    subscription: Subscription,
    /// By stream: entries before this one are claimed or settled.
    cursors: BTreeMap<Arc<str>, usize>,
    pub pending: BTreeMap<u64, Pending>,
    /// Claims that ended, and who ended each with which epoch.
    settled: BTreeMap<u64, (ProcessId, u64)>,
    /// Claims below this one are from before the store was reset.
    first_claim: u64,
}

/// An entry that was claimed and is not settled.
#[derive(Clone)]
pub struct Pending {
    pub stream: Arc<str>,
    pub at: usize,
    /// `None`: given back.
    pub owner: Option<ProcessId>,
    epoch: u64,
    orphaned: u32,
    deaths: u32,
    pub marked: bool,
}

/// An idempotency record.
struct Held {
    by: Recorded,
    until: Millis,
}

/// What is due later.
enum Due {
    Retry { group: Arc<str>, entry: Entry },
    Event(Emit),
}

/// A dead letter.
pub struct Letter {
    pub group: Arc<str>,
    pub handler: Arc<str>,
    pub version: Arc<str>,
    pub reason: DeathReason,
    pub event: Result<Event, Undecodable>,
    pub attempts: u32,
    pub failures: Vec<PastFailure>,
}

impl Store {
    pub fn new(flaw: Option<Flaw>, recovery: Elapsed, shared_letters: bool) -> Self {
        Self {
            flaw,
            recovery,
            shared_letters,
            offset: 0,
            streams: BTreeMap::new(),
            groups: BTreeMap::new(),
            state: BTreeMap::new(),
            records: BTreeMap::new(),
            due: BTreeMap::new(),
            letters: Vec::new(),
            beats: BTreeMap::new(),
            last_claim: 0,
            last_due: 0,
            news: News::default(),
        }
    }

    /// What happened since this was last asked.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// The store's clock.
    pub fn now(&self, elapsed: Elapsed) -> Millis {
        EPOCH + elapsed + self.offset
    }

    /// What its clock would show if it had never been stepped.
    pub fn unstepped(&self, elapsed: Elapsed) -> Millis {
        EPOCH + elapsed
    }

    /// What a process holds, by group.
    pub fn held_by(&self, process: ProcessId) -> Vec<(Arc<str>, Number)> {
        let held = |(name, group): (&Arc<str>, &Group)| {
            let ours = group.pending.values().filter(|pending| pending.owner == Some(process));
            ours.map(|pending| (name.clone(), number_of(&self.entry(pending).event))).collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(held).collect()
    }

    /// Appends, now or when it is due.
    pub fn publish(&mut self, emits: Vec<Emit>, elapsed: Elapsed) {
        let now = self.now(elapsed);
        for mut emit in emits {
            match emit.delay.take() {
                Some(delay) => self.later(now + delay.as_millis() as Millis, Due::Event(emit)),
                None => self.append(&emit.stream, Entry { event: Ok(emit.event), past: None }),
            }
        }
    }

    /// Appends what is no event.
    pub fn publish_garbage(&mut self, stream: &str, garbage: Undecodable) {
        self.append(stream, Entry { event: Err(garbage), past: None });
    }

    fn append(&mut self, stream: &str, entry: Entry) {
        let number = number_of(&entry.event);
        match self.streams.get_mut(stream) {
            Some(entries) => entries.push(entry),
            None => drop(self.streams.insert(stream.into(), vec![entry])),
        }
        for (name, _) in self.groups.iter().filter(|(_, group)| group.reads(stream)) {
            self.news.groups.insert(name.clone());
            self.news.ready.push((name.clone(), number));
        }
    }

    fn later(&mut self, at: Millis, due: Due) {
        self.last_due += 1;
        if self.flaw == Some(Flaw::LosesDelayed) && self.last_due.is_multiple_of(8) {
            return;
        }
        self.due.insert((at, self.last_due), due);
        self.news.due = true;
    }

    /// In how many milliseconds the next delayed work is due, by the store's clock.
    pub fn due_in(&self, elapsed: Elapsed) -> Option<Millis> {
        self.due.keys().next().map(|(at, _)| (at - self.now(elapsed)).max(0))
    }

    /// In how many milliseconds all delayed work is due.
    pub fn all_due_in(&self, elapsed: Elapsed) -> Millis {
        self.due.keys().next_back().map_or(0, |(at, _)| (at - self.now(elapsed)).max(0))
    }

    /// Moves what is due into its streams.
    pub fn move_due(&mut self, elapsed: Elapsed) {
        let later = self.due.split_off(&(self.now(elapsed) + 1, 0));
        for due in std::mem::replace(&mut self.due, later).into_values() {
            match due {
                Due::Retry { group, entry } => self.append(&format!("{RETRIES}{group}"), entry),
                Due::Event(emit) => self.append(&emit.stream, Entry { event: Ok(emit.event), past: None }),
            }
        }
    }

    /// The store's clock steps.
    pub fn step_clock(&mut self, by: Millis) {
        self.offset += by;
        self.news.due = true;
    }

    /// The process is alive.
    pub fn beat(&mut self, process: ProcessId, elapsed: Elapsed) {
        self.beats.insert(process, elapsed);
    }

    /// The process closed: what it held is anybody's.
    pub fn leave(&mut self, process: ProcessId) {
        self.beats.remove(&process);
        let groups: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        groups.iter().for_each(|group| self.close_inbox(group, process));
    }

    /// Everything is gone; groups are opened again, empty.
    pub fn reset(&mut self) {
        self.streams.clear();
        self.state.clear();
        self.records.clear();
        self.due.clear();
        self.letters.clear();
        for group in self.groups.values_mut() {
            let lost = std::mem::take(&mut group.pending);
            if self.flaw != Some(Flaw::OutlivesReset) {
                group.first_claim = self.last_claim + 1;
                group.settled.clear();
            } else {
                group
                    .settled
                    .extend(lost.into_iter().map(|(claim, lost)| (claim, (lost.owner.unwrap_or(0), lost.epoch))));
            }
            group.cursors.clear();
        }
    }

    /// The value of a key.
    pub fn read(&self, key: &str) -> Option<Bytes> {
        self.state.get(key).cloned()
    }

    /// Who holds a record.
    pub fn recorded(&self, key: RecordKey, elapsed: Elapsed) -> Option<Recorded> {
        let held = self.records.get(&key.0).filter(|held| held.until > self.now(elapsed));
        held.map(|held| held.by.clone())
    }

    /// Whether nothing waits: no delayed work, and every group has been opened and has settled every entry.
    pub fn is_quiet(&self) -> bool {
        self.due.is_empty()
            && GROUPS.iter().all(|group| self.groups.contains_key(*group))
            && self.groups.values().all(|group| group.pending.is_empty() && group.read_all(&self.streams))
    }

    /// What waits: events of a group that are pending or not claimed yet.
    pub fn waiting(&self, group: &str) -> BTreeSet<Number> {
        let Some(group) = self.groups.get(group) else { return BTreeSet::new() };
        let pending = group.pending.values().map(|pending| number_of(&self.entry(pending).event));
        let unread = group.unread(&self.streams).map(|entry| number_of(&entry.event));
        let due = self.due.values().filter_map(|due| match due {
            Due::Retry { group: of, entry } if *of == group.subscription.group => Some(number_of(&entry.event)),
            _ => None,
        });
        pending.chain(unread).chain(due).collect()
    }

    fn entry(&self, pending: &Pending) -> &Entry {
        &self.streams[&pending.stream][pending.at]
    }

    /// Number of the dead letter that is written next.
    fn next_letter(&self) -> DeadId {
        DeadId(self.letters.len() as u64 + 1)
    }
}
