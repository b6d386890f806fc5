//! The names of our keys on the server.
//!
//! All of them begin with the prefix, which scripts cannot reach; streams of events and keys of state have names of their
//! own and may belong to others, and so may the stream of dead letters.

use crate::outcome::RecordKey;

/// Consumers of ours begin so; all others are somebody else's, and not robbed unless the operator says so (`adopt`).
pub(super) const CONSUMER: &str = "moontide:";
/// Owner of what was given back.
pub(super) const FREE: &str = "moontide:free";

/// In front of a channel's name, where others have that of a stream.
const CHANNEL: &str = "channel:";

/// Makes the names.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    state_prefix: String,
    dead: String,
}

impl Keys {
    /// `dead`: the stream of dead letters, where it has a name of its own.
    pub fn new(prefix: &str, state_prefix: &str, dead: Option<&str>) -> Self {
        let dead = dead.map_or_else(|| format!("{prefix}dead"), str::to_owned);
        Self { prefix: prefix.to_owned(), state_prefix: state_prefix.to_owned(), dead }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn state_prefix(&self) -> &str {
        &self.state_prefix
    }

    /// The stream of dead letters.
    pub fn dead(&self) -> &str {
        &self.dead
    }

    /// One of the keys that exist once: `beats`, `due`, `parked`, …
    pub fn own(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether `key` is one of ours, and nobody else's concern.
    pub fn is_own(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) || key == self.dead
    }

    /// What stands for a stream where messages of `channel` come from; there is none of that name.
    pub fn channel(&self, channel: &str) -> String {
        format!("{}{CHANNEL}{channel}", self.prefix)
    }

    /// Whether `stream` stands for a channel, and is none.
    pub fn is_channel(&self, stream: &str) -> bool {
        stream.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with(CHANNEL))
    }

    /// The stream of a group's retries and replays.
    pub fn retry(&self, group: &str) -> String {
        format!("{}retry:{group}", self.prefix)
    }

    /// The hash in which a group's standing is kept.
    pub fn group(&self, group: &str) -> String {
        format!("{}group:{group}", self.prefix)
    }

    /// The hash in which a process finds what its settles were answered.
    pub fn receipts(&self, process: &str) -> String {
        format!("{}receipts:{process}", self.prefix)
    }

    /// The key of an idempotency record.
    pub fn record(&self, key: &RecordKey) -> String {
        format!("{}record:{}", self.prefix, hex(key))
    }

    /// The hash of what an event's steps came to.
    pub fn steps(&self, event: &RecordKey) -> String {
        format!("{}steps:{}", self.prefix, hex(event))
    }

    /// The key under which events from outside were taken in.
    pub fn intake(&self, key: &RecordKey) -> String {
        format!("{}intake:{}", self.prefix, hex(key))
    }

    /// The key of state that scripts call `key`.
    pub fn state(&self, key: &str) -> String {
        format!("{}{key}", self.state_prefix)
    }
}

/// The event whose steps lie under `key`, if it is a key of steps.
pub(super) fn steps_of(key: &[u8]) -> Option<RecordKey> {
    let hex = std::str::from_utf8(key).ok()?.rsplit(':').next()?;
    u128::from_str_radix(hex, 16).ok().map(|event| RecordKey(event.to_be_bytes()))
}

fn hex(key: &RecordKey) -> String {
    format!("{:032x}", u128::from_be_bytes(key.0))
}

/// The consumer of a process.
pub(super) fn consumer(process: &str) -> String {
    format!("{CONSUMER}{process}")
}
