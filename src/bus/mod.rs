//! The seams to whatever carries events and keeps what handlers need.
//!
//! A [`Bus`] carries events; an [`Inbox`] is one handler's door to it; a [`Ledger`] is what the host keeps for handlers
//! (state, records). [`DeadLetters`], [`StateAdmin`] and [`Overview`] are what operators look at and touch. Receive and settle travel together:
//! what is received carries its [`Lease`], and settling asks for it. No implementation may know scripts, metrics or the
//! worker.

pub mod intake;
mod letters;
mod operations;
mod past;
pub mod promise;
pub mod redis;
pub mod relay;
mod selection;
pub mod sqlite;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::intake::{Claim, Intake, TakenIn};
pub use self::letters::{DeadFilter, DeadId, DeadLetter, DeadLetters, DeadReason, NoDeadId, Replayed};
pub use self::steps::{STEPS_KEPT, Step, StepAnswer, Steps};

use crate::clock::Millis;
use crate::envelope::Fields;
use crate::event::{EntryId, Event, Trail, TypePattern};
use crate::judge::Verdict;
use crate::outcome::{Effects, Emit, Failure, Read, Record, RecordKey, Write};

pub use operations::{
    ChannelStatus, GroupDetail, GroupPosition, GroupStatus, Groups, HandlerReport, Housekeeping, Moved, Overview,
    Process,
};

/// What a bus can and cannot do; the conformance suite picks its cases by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Settle is one transaction: effects and acknowledgement in one store.
    pub one_store: bool,
    /// Deaths are counted: a delivery says how often its process died under it, and one that ran alone is charged.
    pub marks: bool,
    /// What was published outlives the process.
    pub durable: bool,
    /// Several processes can share the work.
    pub shared: bool,
    /// Past events can be read again (`start = "earliest"`, history).
    pub history: bool,
}

/// Carries events.
#[async_trait]
pub trait Bus: Send + Sync {
    fn features(&self) -> Features;

    /// Stores all of `emits` or none, at the configured durability, and says where each lies (`None`: delayed, or still
    /// on its way). No emits at all asks whether the store takes any just now.
    async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError>;

    /// Opens (and creates, where it is new) the group of one handler. At most one inbox per group and process.
    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError>;
}

/// What a handler wants to receive.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub handler: Arc<str>,
    pub group: Arc<str>,
    /// Types asked for; entries of other types are settled without being delivered.
    pub types: Vec<TypePattern>,
    /// Streams read by name; created where they are missing.
    pub streams: Vec<String>,
    /// Besides, every stream whose name matches one of these: (prefix of the stream's name, pattern for the rest).
    /// A stream that appears later is read from its first entry.
    pub discover: Vec<(String, TypePattern)>,
    /// Where a group that is new on a stream begins.
    pub start: Start,
}

impl Subscription {
    /// Whether the handler asks for events of type `kind`.
    pub fn wants(&self, kind: &str) -> bool {
        self.types.iter().any(|pattern| pattern.matches(kind))
    }
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Latest,
    Earliest,
    /// The first entry stored at or after this time.
    At(Millis),
}

/// An open inbox, and what opening it meant.
pub struct Subscribed {
    pub inbox: Arc<dyn Inbox>,
    /// One for each stream on which the group is new: to be logged.
    pub began: Vec<Began>,
}

/// A group that began on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Began {
    pub stream: String,
    /// Retained entries before the beginning.
    pub skipped: u64,
    /// Retained entries from the beginning on.
    pub taken_in: u64,
}

/// One handler's door to the bus.
#[async_trait]
pub trait Inbox: Steps {
    /// Waits until there is something, and hands out at most `max` deliveries. Cancel-safe: what was claimed but not handed
    /// out is handed out by the next call. Each stays ours while this process lives, however long it takes.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError>;

    /// Applies each run whole or not at all, in order, and answers each. A repeated settle of the same batch is
    /// harmless: it answers [`Answer::AlreadyMine`]. On an error nothing is known; repeat the settle, not the script.
    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError>;

    /// Writes the durable mark "this delivery runs alone now" before a suspect is run. False: it is no longer ours.
    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError>;
}

/// The right to settle one entry, as the bus counts it. Only the bus that made it can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// What was claimed (SQLite: the span).
    pub claim: u64,
    /// Raised whenever the claim changes hands.
    pub epoch: u64,
}

/// One event in the hands of one handler.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub lease: Lease,
    /// Where it lies now; a retry lies in the host's own stream of the handler.
    pub stream: Arc<str>,
    pub entry: EntryId,
    pub event: Result<Event, Undecodable>,
    /// The fields of the entry, where it is in a layout of others: a dead letter keeps them.
    pub lay: Option<Box<Fields>>,
    /// What happened before; `None` for a first delivery.
    pub past: Option<Box<Past>>,
    /// How often its process died before it was settled. From 2 on it must be run alone, after [`Inbox::mark`].
    pub orphaned: u32,
    /// Deaths under its mark. At [`CRASH_BUDGET`] it is a killer and must not be run.
    pub deaths: u32,
    /// When this process received it, by the store's clock.
    pub received: Millis,
}

/// Deaths under a mark after which an event is given up.
pub const CRASH_BUDGET: u32 = 2;

/// Orphanings after which an event runs alone.
pub const ORPHANED_ALONE: u32 = 2;

impl Delivery {
    /// Number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.past.as_ref().map_or(1, |past| past.attempts + 1)
    }

    /// The stream and entry where the event was first delivered from.
    pub fn origin(&self) -> (&str, EntryId) {
        match self.past.as_ref() {
            Some(past) => (&past.stream, past.entry),
            None => (&self.stream, self.entry),
        }
    }

    /// The chain of emits that led here. A replay begins a new one: an operator wants it so.
    pub fn trail(&self) -> Trail {
        let replayed = self.past.as_ref().is_some_and(|past| past.replay_of.is_some());
        self.event.as_ref().ok().filter(|_| !replayed).map(Trail::of).unwrap_or_default()
    }

    /// Names origin and attempt for a log line or a record: `events:order.created/17-0#2`.
    pub fn token(&self) -> String {
        let (stream, entry) = self.origin();
        format!("{stream}/{entry}#{}", self.attempt())
    }
}

/// What a delivery that is not the first one carries along.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Counted attempts so far.
    pub attempts: u32,
    /// Snoozes and other uncounted retries so far.
    pub snoozes: u32,
    /// Origin: stream and entry of the first delivery.
    pub stream: Arc<str>,
    pub entry: EntryId,
    /// When it was first received.
    pub first_received: Millis,
    /// The errors of earlier attempts, oldest first; at most [`FAILURES_MAX`], the first and the latest kept.
    pub failures: Vec<PastFailure>,
    /// Set on a replay: the dead letter whose record it passes.
    pub replay_of: Option<DeadId>,
    /// Where the steps are recorded that earlier deliveries may have run.
    pub steps: Option<RecordKey>,
}

impl Past {
    /// What the next delivery carries along if nothing happens in this one.
    pub fn of(delivery: &Delivery) -> Self {
        let (stream, entry) = delivery.origin();
        delivery.past.as_deref().cloned().unwrap_or_else(|| Self {
            attempts: 0,
            snoozes: 0,
            stream: Arc::from(stream),
            entry,
            first_received: delivery.received,
            failures: Vec::new(),
            replay_of: None,
            steps: None,
        })
    }

    /// What the next delivery carries along after this one failed at `at`; `counted` raises the attempts.
    pub fn after(delivery: &Delivery, failure: &Failure, version: &Arc<str>, at: Millis, counted: bool) -> Self {
        let (mut past, attempt) = (Self::of(delivery), delivery.attempt());
        past.attempts += u32::from(counted);
        past.snoozes += u32::from(!counted);
        if past.failures.len() >= FAILURES_MAX {
            past.failures.remove(1);
        }
        past.failures.push(PastFailure { attempt, at, version: version.clone(), failure: failure.clone() });
        past
    }

    /// The same, where the run may have recorded `steps`.
    #[must_use]
    pub fn with_steps(mut self, steps: Option<RecordKey>) -> Self {
        self.steps = steps.or(self.steps);
        self
    }
}

/// Errors kept per delivery.
pub const FAILURES_MAX: usize = 20;

/// An earlier attempt's error.
#[derive(Clone, Debug, PartialEq)]
pub struct PastFailure {
    pub attempt: u32,
    pub at: Millis,
    /// Version of the handler that failed.
    pub version: Arc<str>,
    pub failure: Failure,
}

/// An entry that is no event, as it lay there.
#[derive(Clone, Debug, PartialEq)]
pub struct Undecodable {
    pub reason: String,
    pub fields: Fields,
}

/// One execution and what is to become of it.
#[derive(Clone, Debug)]
pub struct Run {
    /// One, or many where a handler takes batches; never empty.
    pub deliveries: Vec<Settling>,
    pub reads: Vec<Read>,
    /// Empty unless the verdict commits.
    pub effects: Effects,
    /// `None`: `window = "off"`, or a verdict that ends nothing.
    pub record: Option<Record>,
    /// Where steps of the event may be recorded: forgotten when it is committed, kept with its dead letter.
    pub steps: Option<RecordKey>,
    /// Version of the handler that ran.
    pub version: Arc<str>,
}

/// One delivery of a run and its verdict.
#[derive(Clone, Debug)]
pub struct Settling {
    pub delivery: Arc<Delivery>,
    pub verdict: Verdict,
}

/// What settle found; the closed list.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Applied now. A dead letter says its number.
    Done { dead: Option<DeadId> },
    /// Applied before: our own reply was lost. Count it once.
    AlreadyMine,
    /// The idempotency key is taken: effects dropped, delivery acknowledged.
    Duplicate { by: String },
    /// State moved since it was read: nothing was applied; run again, uncharged.
    Conflict { key: String },
    /// Somebody else owns the delivery now: drop our copy.
    Fenced,
    /// Group or stream vanished; recreated. Drop our copy.
    StoreReset,
    /// The effects cannot be applied, now or ever (an `add` to a text): dead.
    Invalid { reason: String },
}

/// What the host keeps for handlers.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The values of `keys`, in their order, of one moment.
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, BusError>;

    /// Who holds each record, if anybody does: `by`, and the dead letter it ended in.
    async fn recorded(&self, keys: &[RecordKey]) -> Result<Vec<Option<Recorded>>, BusError>;
}

/// An idempotency record that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// [`Delivery::token`] of the delivery that wrote it.
    pub by: String,
    pub dead: Option<DeadId>,
    /// Its dead letter lies where others can take it away, to have its event handled anew: then it holds nothing any more.
    pub contested: bool,
}

/// One key of state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateEntry {
    pub key: String,
    pub value: Bytes,
    pub expires: Option<Millis>,
}

/// State, for operators.
#[async_trait]
pub trait StateAdmin: Send + Sync {
    /// Keys that begin with `prefix`, in order, only those after `after`.
    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<StateEntry>, BusError>;
    /// Applies all writes or none; the answer says, per write, whether the key existed.
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<bool>, BusError>;
}

/// Why the bus could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// Not now; the same call may work later.
    #[error("{store} is away: {cause}")]
    Away { store: String, cause: String },
    /// No room; the same call works when there is some.
    #[error("{store} is full: {cause}; free some space")]
    Full { store: String, cause: String },
    /// Never, as things stand; an operator must act.
    #[error("{store} cannot be used: {cause}")]
    Unusable { store: String, cause: String },
    /// What was asked is wrong.
    #[error("{0}")]
    Refused(String),
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
}

impl BusError {
    /// Whether repeating the call can help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Full { .. })
    }
}

/// Delay before call number `failures + 1` to a store that is away: 50 ms doubling to 5 s.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_millis(50 << failures.min(7)).min(Duration::from_secs(5))
}
