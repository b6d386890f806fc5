//! Upkeep in the background: trims history, removes what expired, and buries the dead.
//!
//! Never trims what a living group still needs; a group without a living handler stops counting after a stated time. Every
//! step is bounded, whatever the amount of history.

use rusqlite::OptionalExtension;

use super::Options;
use super::carried;
use super::fault::Fault;
use super::process;
use super::record;
use super::state;
use super::tx::{Tx, position, seq_of};
use crate::bus::relay::OUTBOX_PREFIX;
use crate::clock::Millis;
use crate::streams::Retain;

/// Entries trimmed in one step.
const TRIMMED_MAX: usize = 2000;
/// Records looked at in one step.
const RECORDS_MAX: usize = 4000;
/// Fences that were lifted long ago removed in one step.
const FENCES_MAX: usize = 4000;
/// Expired keys of state removed in one step.
const KEYS_MAX: usize = 500;

/// What a step did, and where the next one goes on.
pub(super) struct Step {
    /// Where the sweep over the records goes on.
    pub(super) records_after: Vec<u8>,
    /// There is more to do at once.
    pub(super) more: bool,
    /// Dead processes that left nothing in the store.
    pub(super) buried: Vec<i64>,
}

/// One step.
pub(super) fn step(tx: &mut Tx<'_>, options: &Options, records_after: &[u8], gone: &[i64]) -> Result<Step, Fault> {
    let trimmed = trim(tx, options)?;
    let (after, swept) = record::sweep(tx, records_after, RECORDS_MAX)?;
    let keys = state::sweep(tx, KEYS_MAX)?;
    let fences = carried::sweep(tx, FENCES_MAX)?;
    let mut buried = Vec::new();
    for id in gone {
        if process::leave(tx, *id)? {
            buried.push(*id);
        }
    }
    // Where a quarter of what was looked at had expired, much of the rest has too.
    let full = trimmed >= TRIMMED_MAX || keys >= KEYS_MAX || fences >= FENCES_MAX;
    let more = full || (after.is_some() && swept >= RECORDS_MAX / 4);
    Ok(Step { records_after: after.unwrap_or_default(), more, buried })
}

struct Trimmed {
    id: i64,
    first: i64,
    last: i64,
    retain: Retain,
    /// Groups not seen since hold nothing back.
    forgotten_before: Millis,
    /// As long as no group reads it, nothing goes.
    waits_for_reader: bool,
}

/// Trims streams; answers how many entries went.
fn trim(tx: &Tx<'_>, options: &Options) -> Result<usize, Fault> {
    let mut list = tx.conn.prepare_cached(
        "SELECT id, name, hidden, first_seq, last_seq FROM stream WHERE first_seq <= last_seq ORDER BY random()",
    )?;
    let streams: Vec<(i64, String, bool, i64, i64)> = list
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
        .collect::<Result<_, _>>()?;
    let forget = i64::try_from(options.forget_group_after.as_millis()).unwrap_or(i64::MAX);
    let forgotten_before = tx.now.saturating_sub(forget);
    let mut trimmed = 0;
    for (id, name, hidden, first, last) in streams {
        // What is on its way to a carrier is history there, not here; until it is there, nobody's absence lets it go.
        let outbox = name.starts_with(OUTBOX_PREFIX);
        let forgotten_before = if outbox { Millis::MIN } else { forgotten_before };
        let retain =
            if hidden || outbox { Retain { age: None, length: Some(0) } } else { options.streams.retain(&name) };
        let stream = Trimmed { id, first, last, retain, forgotten_before, waits_for_reader: outbox };
        if trimmed < TRIMMED_MAX && (retain.age.is_some() || retain.length.is_some()) {
            trimmed += trim_stream(tx, &stream, TRIMMED_MAX - trimmed)?;
        }
    }
    Ok(trimmed)
}

fn trim_stream(tx: &Tx<'_>, stream: &Trimmed, budget: usize) -> Result<usize, Fault> {
    let needed = needed_from(tx, stream.id, stream.forgotten_before)?;
    let needed = needed.unwrap_or(if stream.waits_for_reader { stream.first } else { i64::MAX });
    let age = stream.retain.age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let stored_before = age.map_or(Millis::MIN, |age| tx.now.saturating_sub(age));
    let length = stream.retain.length.map_or(i64::MAX, |length| i64::try_from(length).unwrap_or(i64::MAX));
    let too_long_to = stream.last.saturating_sub(length);
    let mut select =
        tx.conn.prepare_cached("SELECT pos, stored_at FROM event WHERE pos >= ? AND pos <= ? ORDER BY pos LIMIT ?")?;
    let end = position(stream.id, stream.last);
    let mut rows = select.query((position(stream.id, stream.first), end, budget as i64))?;
    let (mut trimmed, mut keep_from) = (0, stream.first);
    while let Some(row) = rows.next()? {
        let (seq, stored): (i64, Millis) = (seq_of(row.get(0)?), row.get(1)?);
        if seq >= needed || (stored >= stored_before && seq > too_long_to) {
            break;
        }
        (trimmed, keep_from) = (trimmed + 1, seq + 1);
    }
    drop(rows);
    if trimmed > 0 {
        let mut delete = tx.conn.prepare_cached("DELETE FROM event WHERE pos >= ? AND pos < ?")?;
        delete.execute((position(stream.id, stream.first), position(stream.id, keep_from)))?;
        let mut first = tx.conn.prepare_cached("UPDATE stream SET first_seq = ?2 WHERE id = ?1")?;
        first.execute((stream.id, keep_from))?;
    }
    Ok(trimmed)
}

/// The first entry of a stream that some living group has not settled yet; `None`: no group reads it.
fn needed_from(tx: &Tx<'_>, stream: i64, forgotten_before: Millis) -> Result<Option<i64>, Fault> {
    let mut find = tx.conn.prepare_cached(
        "SELECT min(coalesce((SELECT min(s.first) FROM span s \
                 WHERE s.group_id = c.group_id AND s.stream_id = c.stream_id AND s.left > 0), c.position + 1)) \
         FROM cursor c JOIN consumer g ON g.id = c.group_id \
         WHERE c.stream_id = ?1 AND g.seen_at > ?2 AND coalesce(c.unused_since > ?2, 1)",
    )?;
    let needed: Option<Option<i64>> = find.query_row((stream, forgotten_before), |row| row.get(0)).optional()?;
    Ok(needed.flatten())
}
