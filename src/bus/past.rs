//! What a delivery went through, as the JSON text that stores keep.
//!
//! The stored form is separate from the types of the core, so that they can change without changing what lies in stores.
//! Unknown fields are ignored: a newer version may share the store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{DeadId, Past, PastFailure};
use crate::event::EntryId;
use crate::outcome::{Failure, FailureKind, RecordKey};

#[derive(Serialize, Deserialize)]
struct StoredPast {
    attempts: u32,
    snoozes: u32,
    stream: String,
    entry: (u64, u64),
    first_received: i64,
    #[serde(default)]
    failures: Vec<StoredFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replay_of: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<[u8; 16]>,
}

#[derive(Serialize, Deserialize)]
struct StoredFailure {
    attempt: u32,
    at: i64,
    version: String,
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

/// `past` as it is stored.
pub(super) fn write(past: &Past) -> String {
    let stored = StoredPast {
        attempts: past.attempts,
        snoozes: past.snoozes,
        stream: past.stream.to_string(),
        entry: (past.entry.0, past.entry.1),
        first_received: past.first_received,
        failures: past.failures.iter().map(StoredFailure::of).collect(),
        replay_of: past.replay_of.map(|id| id.0),
        steps: past.steps.map(|key| key.0),
    };
    text(&stored)
}

/// The stored form, read back.
pub(super) fn read(bytes: &[u8]) -> Result<Past, serde_json::Error> {
    let stored: StoredPast = serde_json::from_slice(bytes)?;
    Ok(Past {
        attempts: stored.attempts,
        snoozes: stored.snoozes,
        stream: stored.stream.into(),
        entry: EntryId(stored.entry.0, stored.entry.1),
        first_received: stored.first_received,
        failures: stored.failures.into_iter().map(StoredFailure::back).collect(),
        replay_of: stored.replay_of.map(DeadId),
        steps: stored.steps.map(RecordKey),
    })
}

/// Failures as they are stored with a dead letter.
pub(super) fn write_failures(failures: &[PastFailure]) -> String {
    text(&failures.iter().map(StoredFailure::of).collect::<Vec<_>>())
}

/// The failures of a dead letter, read back.
pub(super) fn read_failures(bytes: &[u8]) -> Result<Vec<PastFailure>, serde_json::Error> {
    let stored: Vec<StoredFailure> = serde_json::from_slice(bytes)?;
    Ok(stored.into_iter().map(StoredFailure::back).collect())
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers, texts and lists of them are always JSON")
}

impl StoredFailure {
    fn of(past: &PastFailure) -> Self {
        let failure = &past.failure;
        Self {
            attempt: past.attempt,
            at: past.at,
            version: past.version.to_string(),
            kind: failure.kind.as_str().to_owned(),
            message: failure.message.clone(),
            file: failure.file.clone(),
            line: failure.line,
            trace: failure.trace.clone(),
        }
    }

    fn back(self) -> PastFailure {
        let failure = Failure {
            kind: FailureKind::parse(&self.kind).unwrap_or(FailureKind::Host),
            message: self.message,
            file: self.file,
            line: self.line,
            trace: self.trace,
        };
        PastFailure { attempt: self.attempt, at: self.at, version: Arc::from(self.version), failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let failure = Failure { line: Some(3), trace: Some("in f".into()), ..Failure::new(FailureKind::Cpu, "slow") };
        let past = Past {
            attempts: 2,
            snoozes: 1,
            stream: "orders".into(),
            entry: EntryId(7, 0),
            first_received: 5,
            failures: vec![PastFailure { attempt: 1, at: 9, version: "v1".into(), failure }],
            replay_of: Some(DeadId(4)),
            steps: Some(RecordKey([9; 16])),
        };
        assert_eq!(read(write(&past).as_bytes()).expect("our own text is readable"), past);
        assert!(read(b"{}").is_err());
    }
}
