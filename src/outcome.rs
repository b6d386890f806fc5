//! What running a script produced: effects, what it read, and how it ended.
//!
//! A closed vocabulary. Effects are only descriptions; a bus applies them in its settle, all or none. Knows events and
//! nothing else.

use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::event::{EntryId, Event, Json};

/// An event to publish, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Emit {
    pub stream: String,
    pub event: Event,
    /// Publish this long after the settle, by the store's clock.
    pub delay: Option<Duration>,
}

/// Longest key of state in bytes; none is empty.
pub const STATE_KEY_BYTES_MAX: usize = 512;

/// One change of state (`ctx.kv`).
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub key: String,
    pub change: Change,
}

/// What happens to a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The key gets this value; without `ttl` it lives for ever.
    Set {
        value: Json,
        ttl: Option<Duration>,
    },
    Delete,
    /// Adds to a number; an absent key counts as 0. Anything but a number in the store: [`Answer::Invalid`].
    ///
    /// [`Answer::Invalid`]: crate::bus::Answer::Invalid
    Add(f64),
}

/// A script's own metric; counted when its run is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub kind: MeasureKind,
    pub name: String,
    pub value: f64,
    pub labels: Vec<(String, String)>,
}

/// How a [`Measure`] is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasureKind {
    Count,
    Gauge,
    Observe,
}

/// Everything a run wants done in the store, in the order it asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Ids of delayed events, emitted by the same group, that are taken back before `events` are stored. None of such an id
    /// may wait any more.
    pub cancels: Vec<String>,
    pub events: Vec<Emit>,
    pub writes: Vec<Write>,
    pub measures: Vec<Measure>,
}

impl Effects {
    /// About how much memory they hold, in bytes.
    pub fn bytes(&self) -> usize {
        let json = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.bytes().len());
        let events = self.events.iter().map(|emit| size_of::<Emit>() + json(&emit.event.data) + json(&emit.event.ext));
        let writes = self.writes.iter().map(|write| {
            let value = if let Change::Set { value, .. } = &write.change { value.bytes().len() } else { 0 };
            size_of::<Write>() + write.key.len() + value
        });
        let cancels = self.cancels.iter().map(|id| size_of::<String>() + id.len());
        events.sum::<usize>() + writes.sum::<usize>() + cancels.sum::<usize>()
    }
}

/// A key that a run read, and what it saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub key: String,
    pub seen: Seen,
}

/// What a read saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Absent,
    Value(Bytes),
}

impl Seen {
    /// What seeing `value` (or its absence) is remembered as.
    pub fn of(value: Option<&Bytes>) -> Self {
        value.map_or(Self::Absent, |value| Self::Value(value.clone()))
    }

    /// Whether the store still holds what was seen.
    pub fn is_still(&self, now: Option<&[u8]>) -> bool {
        match (self, now) {
            (Self::Absent, None) => true,
            (Self::Value(seen), Some(now)) => seen == now,
            _ => false,
        }
    }
}

/// Names the idempotency record of a delivery: group, type and key, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordKey(pub [u8; 16]);

impl RecordKey {
    /// The record of `key` for events of type `kind` in `group`.
    pub fn new(group: &str, kind: &str, key: &str) -> Self {
        Self::of(&[group, kind, key])
    }

    /// What stands for the record where a handler keeps none: names the entry at which its event was first delivered to `group`.
    pub fn of_entry(group: &str, stream: &str, entry: EntryId) -> Self {
        Self::of(&[group, "entry", stream, &entry.to_string()])
    }

    fn of(parts: &[&str]) -> Self {
        let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        Self(xxh3_128(&text).to_le_bytes())
    }
}

/// The idempotency record that a settle has to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub key: RecordKey,
    /// The key as the script sees it (`ctx.idempotency_key`), kept with a dead letter.
    pub text: String,
    /// Counted from the commit.
    pub window: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `handle` returned nothing: commit.
    Done(Effects),
    /// The script called `ctx:retry(after?, reason?)`.
    Retry { after: Duration, reason: String },
    /// The script called `ctx:snooze(after, reason?)`.
    Snooze { after: Duration, reason: String },
    /// The script called `ctx:reject(reason)`.
    Reject { reason: String },
    /// Thrown, timed out, over a limit, or a wrong return value.
    Failed(Failure),
    /// The payload is not what its layout promises.
    Undecodable { reason: String },
    /// The idempotency key is missing or not a scalar; the reason names the path.
    Invalid { reason: String },
    /// The chain of emits that led to the event is too deep; the reason shows it.
    Cycle { reason: String },
    /// Another delivery holds the record already: nothing was run.
    Duplicate { by: String },
    /// The same, but what it became may just be taken away, so that this delivery can be run after all.
    Contested { by: String },
    /// Not the run's fault: the host stops, or the VM died because of a neighbour.
    Released(Release),
}

/// Why a delivery is given back uncharged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The host is stopping.
    Stopping,
    /// The VM died while several runs were in it; each is repeated alone.
    Neighbour,
    /// The store could not be read; says nothing about the script.
    StoreAway,
    /// Its thread was lost to another run.
    Moved,
    /// State moved since it was read, which was noticed before a step was run.
    Stale,
    /// It is not ours any more, which was noticed when a step was to be recorded. Settling it says how that came.
    Lost,
    /// It held its thread although it should have ended, and the thread was given up: as bad as a death of the process, and
    /// counted like one.
    Stuck,
}

/// What kind of failure it was; the names appear in dead letters and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// `error(...)`, or an error of the language.
    Error,
    /// The wall-clock deadline of the attempt.
    Timeout,
    /// The processor budget of the attempt.
    Cpu,
    /// The memory limit of the handler's VM.
    Memory,
    /// `handle` returned something.
    Return,
    /// Effects over a limit, or not representable.
    Effects,
    /// The script asked for a retry or a snooze.
    Asked,
    /// The process died while this ran alone.
    Crash,
    /// The store refused the effects.
    Refused,
    /// The event itself: undecodable or invalid.
    Event,
    /// A defect of the host.
    Host,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Error,
        Self::Timeout,
        Self::Cpu,
        Self::Memory,
        Self::Return,
        Self::Effects,
        Self::Asked,
        Self::Crash,
        Self::Refused,
        Self::Event,
        Self::Host,
    ];

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name in dead letters, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Return => "return",
            Self::Effects => "effects",
            Self::Asked => "asked",
            Self::Crash => "crash",
            Self::Refused => "refused",
            Self::Event => "event",
            Self::Host => "host",
        }
    }
}

/// One failed attempt, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub kind: FailureKind,
    /// At most 4 KiB.
    pub message: String,
    /// Path below the handlers folder.
    pub file: Option<String>,
    pub line: Option<u32>,
    /// A short trace, innermost first, at most 2 KiB.
    pub trace: Option<String>,
}

/// Longest kept error message in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;

impl Failure {
    /// A failure with a message and no place; longer messages are cut.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
            // What was cut off does not stay in memory as long as the run does.
            message.shrink_to_fit();
        }
        Self { kind, message, file: None, line: None, trace: None }
    }
}
