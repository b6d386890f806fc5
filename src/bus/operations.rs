//! What operators do with groups and with the store as a whole.
//!
//! Nothing here is needed to handle an event; a bus that cannot do it leaves it out.

use std::path::Path;

use async_trait::async_trait;

use super::{BusError, Undecodable};
use crate::clock::Millis;
use crate::event::{EntryId, Event};

/// How a group stands.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStatus {
    pub group: String,
    pub handler: String,
    /// Entries not yet received, delayed work included.
    pub lag: u64,
    /// Received, not yet settled.
    pub in_flight: u64,
    /// Of `lag`: retries, and delayed events on their way to a stream that the group reads.
    pub delayed: u64,
    pub dead: u64,
    /// Entries trimmed before they were settled, since the group exists.
    pub lost: u64,
    /// When the oldest entry that waits to be received was stored, work that is not due yet left aside.
    pub oldest: Option<Millis>,
}

/// What a host says about one of its handlers; kept in the store so that other processes can show it.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerReport {
    pub handler: String,
    pub group: String,
    pub version: String,
    /// Since when that version serves there; 0: none does.
    pub since: Millis,
    /// `live`, `broken` (an older version serves or none), or, when it is read, [`HandlerReport::NOT_RUNNING`].
    pub state: String,
    pub last_error: Option<String>,
    pub instance: String,
    pub at: Millis,
}

impl HandlerReport {
    /// State of a handler whose host has ended since it reported.
    pub const NOT_RUNNING: &str = "not running";
}

/// What became of the messages of a channel, in this process since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelStatus {
    /// As it is configured: a channel or a pattern.
    pub channel: String,
    pub heard: u64,
    /// Stored, or handed to a handler.
    pub taken: u64,
    /// Taken by another process, or sent twice.
    pub duplicates: u64,
    /// No events; they are dead letters.
    pub undecodable: u64,
    /// Lost, because there were too many or the store did not take them.
    pub dropped: u64,
    /// Times in which nobody listened here.
    pub gaps: u64,
}

/// How things stand, for operators.
#[async_trait]
pub trait Overview: Send + Sync {
    async fn groups(&self) -> Result<Vec<GroupStatus>, BusError>;
    /// What became of messages of channels, where this process listens to any.
    fn channels(&self) -> Vec<ChannelStatus> {
        Vec::new()
    }
    async fn report(&self, reports: Vec<HandlerReport>) -> Result<(), BusError>;
    async fn reports(&self) -> Result<Vec<HandlerReport>, BusError>;
    /// Past entries of a stream, oldest first, from `after` on: what retention has kept.
    async fn history(
        &self,
        stream: &str,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Result<Event, Undecodable>)>, BusError>;
}

/// A group and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupDetail {
    pub group: String,
    /// Which handler opened it last.
    pub handler: String,
    /// What it reads, its own stream of retries left out.
    pub positions: Vec<GroupPosition>,
    /// Entries not yet received, delayed work included.
    pub lag: u64,
    /// Received, not yet settled.
    pub in_flight: u64,
    /// Of `lag`: retries and delayed events.
    pub delayed: u64,
    pub dead: u64,
    /// Entries trimmed before they were settled.
    pub lost: u64,
    /// Consumers in the group that are not Moontide's and hold something.
    pub foreign_consumers: u64,
    /// Of what is in flight: what those hold.
    pub foreign_pending: u64,
    /// When it last had a handler.
    pub seen_at: Millis,
    /// Some process serves it now, or did so within the recovery time.
    pub live: bool,
}

/// Where a group stands in one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    pub stream: String,
    /// Last entry that was received.
    pub position: EntryId,
    /// Entries after it.
    pub lag: u64,
}

/// What moved from one group to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Streams on which the new group goes on where the old one stood.
    pub streams: u64,
    /// Entries that the new group had skipped and gets now.
    pub taken_in: u64,
    /// Retries, replays and delayed work.
    pub delayed: u64,
    pub dead: u64,
}

/// Groups, for operators.
#[async_trait]
pub trait Groups: Send + Sync {
    /// Every group, by name.
    async fn all(&self) -> Result<Vec<GroupDetail>, BusError>;

    /// Hands everything of group `from` over to group `to`, which is created where it is missing. Refused while either is
    /// live. What both have handled stays handled; idempotency records stay with the old name until they expire.
    async fn hand_over(&self, from: &str, to: &str) -> Result<Moved, BusError>;

    /// Forgets a group's positions and what waits for it, retries included; its dead letters stay. Refused while it is live.
    /// False: there was none.
    async fn forget(&self, group: &str) -> Result<bool, BusError>;
}

/// A process that has the store open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub instance: String,
    pub started_at: Millis,
}

/// The store as a whole, for operators.
#[async_trait]
pub trait Housekeeping: Send + Sync {
    /// Processes that are alive, without this one; oldest first.
    async fn processes(&self) -> Result<Vec<Process>, BusError>;

    /// Bytes that the store takes up.
    async fn size_bytes(&self) -> Result<u64, BusError>;

    /// Copies the store, as it is at one moment, to a new file; writers go on meanwhile.
    async fn backup(&self, to: &Path) -> Result<(), BusError>;
}
