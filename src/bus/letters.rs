//! The seam to dead letters: events that were given up, with all that is known about why, and what operators do with them.
//!
//! A store may keep them where other services keep theirs. What those put there is a letter too: it can be looked at,
//! discarded, and put back where it came from.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

use super::{BusError, PastFailure, Undecodable};
use crate::clock::Millis;
use crate::event::{EntryId, Event};
use crate::judge::DeathReason;

/// Number of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeadId(pub u64);

/// How much of a number says where in its millisecond a letter lies.
const SEQUENCE_BITS: u32 = 20;

impl DeadId {
    /// The number of the letter that lies at `entry`. `None`: so many lie in no millisecond, or it is no time of these
    /// millennia; whoever chose that id chose it by hand.
    pub fn at(entry: EntryId) -> Option<Self> {
        let id = Self(entry.0 << SEQUENCE_BITS | entry.1 & ((1 << SEQUENCE_BITS) - 1));
        (id.entry() == entry).then_some(id)
    }

    /// Where it lies, if it lies in a stream.
    pub fn entry(self) -> EntryId {
        EntryId(self.0 >> SEQUENCE_BITS, self.0 & ((1 << SEQUENCE_BITS) - 1))
    }
}

impl fmt::Display for DeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A text that names no dead letter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter is named by its number, or by its entry: 17, 1705319400000-0")]
pub struct NoDeadId;

impl FromStr for DeadId {
    type Err = NoDeadId;

    /// Reads a number, or the id of the entry that the letter is.
    fn from_str(text: &str) -> Result<Self, NoDeadId> {
        match text.split_once('-') {
            None => text.parse().ok().map(Self),
            Some((ms, sequence)) => {
                let entry = ms.parse().ok().zip(sequence.parse().ok());
                entry.and_then(|(ms, sequence)| Self::at(EntryId(ms, sequence)))
            }
        }
        .ok_or(NoDeadId)
    }
}

/// Why a letter lies where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// A handler gave the event up.
    Death(DeathReason),
    /// Another service put it there.
    Foreign,
}

impl DeadReason {
    const FOREIGN: &str = "foreign";

    /// The names of all of them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        DeathReason::ALL.into_iter().map(DeathReason::as_str).chain([Self::FOREIGN])
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Death(reason) => reason.as_str(),
            Self::Foreign => Self::FOREIGN,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            Self::FOREIGN => Some(Self::Foreign),
            text => DeathReason::parse(text).map(Self::Death),
        }
    }
}

impl From<DeathReason> for DeadReason {
    fn from(reason: DeathReason) -> Self {
        Self::Death(reason)
    }
}

/// An event that was given up, with all that is known about why. Of a foreign one that may be little: texts are empty
/// then.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub id: DeadId,
    pub handler: String,
    pub group: String,
    pub version: String,
    pub reason: DeadReason,
    /// Origin.
    pub stream: String,
    /// `None`: whoever put it there does not say.
    pub entry: Option<EntryId>,
    pub event: Result<Event, Undecodable>,
    /// 0: unknown.
    pub attempts: u32,
    pub failed_at: Millis,
    /// Oldest first; the last one is why it was given up. None of a foreign one.
    pub failures: Vec<PastFailure>,
    /// What a foreign one says of why.
    pub foreign_error: Option<String>,
    pub idempotency_key: Option<String>,
    /// When it was replayed, if it was and the replay has not ended yet.
    pub replayed_at: Option<Millis>,
}

impl DeadLetter {
    /// The entry that its event was, and where nobody knows, the one that it is now.
    pub fn origin(&self) -> EntryId {
        self.entry.unwrap_or_else(|| self.id.entry())
    }

    /// Why it was given up, in the words of whoever did.
    pub fn error(&self) -> Option<&str> {
        let last = self.failures.last().map(|last| last.failure.message.as_str());
        last.or(self.foreign_error.as_deref())
    }
}

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    pub handler: Option<String>,
    pub reason: Option<DeadReason>,
    /// Only numbers above this one; for paging.
    pub after: Option<DeadId>,
    pub limit: usize,
}

/// What became of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// A new delivery is on its way.
    Queued,
    /// It was foreign: it lies in this stream again, as it did, and is no dead letter any more.
    PutBack {
        stream: String,
    },
    /// One is on its way already, since then.
    Underway(Millis),
    Missing,
}

/// Dead letters, for operators.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// By number, ascending.
    async fn list(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, BusError>;
    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>, BusError>;
    /// Gives the event to its handler once more, with all its attempts; a foreign one goes back to its stream.
    async fn replay(&self, id: DeadId) -> Result<Replayed, BusError>;
    /// Removes dead letters; the count says how many there were. Their idempotency records stay.
    async fn discard(&self, ids: &[DeadId]) -> Result<u64, BusError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_a_number_unless_its_entry_was_chosen_by_hand() {
        for entry in [EntryId(1_705_319_400_000, 0), EntryId(0, 1), EntryId((1 << 44) - 1, (1 << 20) - 1)] {
            let id = DeadId::at(entry).expect("it has a number");
            assert_eq!(id.entry(), entry);
            assert_eq!((id.to_string().parse(), entry.to_string().parse()), (Ok(id), Ok(id)));
        }
        for entry in [EntryId(1, 1 << 20), EntryId(1 << 44, 0), EntryId(u64::MAX, u64::MAX)] {
            assert_eq!((DeadId::at(entry), entry.to_string().parse::<DeadId>()), (None, Err(NoDeadId)), "{entry}");
        }
        for text in ["", "-", "1-", "-1", "error-1", "1-1-1", "18446744073709551616"] {
            assert_eq!(text.parse::<DeadId>(), Err(NoDeadId), "{text}");
        }
    }

    #[test]
    fn every_reason_is_read_by_its_name() {
        for name in DeadReason::names() {
            assert_eq!(DeadReason::parse(name).map(DeadReason::as_str), Some(name));
        }
        assert_eq!(DeadReason::parse("theirs"), None);
    }
}
