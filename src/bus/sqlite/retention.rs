//! Upkeep in the background: trims history, removes what expired, and buries the dead.
//!
//! Never trims what a living group still needs; a group without a living handler stops counting after a stated time. Every
//! step is bounded, whatever the amount of history.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rusqlite::OptionalExtension;

use super::Options;
use super::carried;
use super::dead;
use super::fault::Fault;
use super::intake;
use super::process;
use super::record;
use super::state;
use super::step;
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
/// Expired claims of senders removed in one step.
const CLAIMS_MAX: usize = 2000;
/// Expired keys of state removed in one step.
const KEYS_MAX: usize = 500;
/// Expired records of steps removed in one step.
const STEPS_MAX: usize = 2000;
/// Dead letters looked at in one step.
const LETTERS_MAX: usize = 500;

/// What a step did, and where the next one goes on.
pub(super) struct Step {
    /// Where the sweep over the records goes on.
    pub(super) records_after: Vec<u8>,
    /// There is more to do at once.
    pub(super) more: bool,
    /// Dead processes that left nothing in the store.
    pub(super) buried: Vec<i64>,
}

/// What upkeep remembers from step to step.
#[derive(Default)]
pub(super) struct Memory {
    /// Where the sweep over the records goes on.
    pub(super) records_after: Vec<u8>,
    /// Groups that seem forgotten: when they were last seen, and since when that has not moved.
    quiet: HashMap<i64, (Millis, Instant)>,
}

/// One step.
pub(super) fn step(tx: &mut Tx<'_>, options: &Options, memory: &mut Memory, gone: &[i64]) -> Result<Step, Fault> {
    let forgotten = forgotten(tx, options, memory)?;
    let trimmed = trim(tx, options, &forgotten)?;
    let (after, swept) = record::sweep(tx, &memory.records_after, RECORDS_MAX)?;
    let keys = state::sweep(tx, KEYS_MAX)?;
    let fences = carried::sweep(tx, FENCES_MAX)?;
    let letters = options.dead_letters_retain.map_or(Ok(0), |age| dead::sweep(tx, before(tx, age), LETTERS_MAX))?;
    let claims = intake::sweep(tx, CLAIMS_MAX)?;
    let steps = step::sweep(tx, STEPS_MAX)?;
    let mut buried = Vec::new();
    for id in gone {
        if process::leave(tx, *id)? {
            buried.push(*id);
        }
    }
    // Where a quarter of what was looked at had expired, much of the rest has too.
    let swept_full = letters >= LETTERS_MAX || fences >= FENCES_MAX || claims >= CLAIMS_MAX || steps >= STEPS_MAX;
    let full = trimmed >= TRIMMED_MAX || keys >= KEYS_MAX || swept_full;
    let more = full || (after.is_some() && swept >= RECORDS_MAX / 4);
    Ok(Step { records_after: after.unwrap_or_default(), more, buried })
}

/// The moment that lies `age` back.
fn before(tx: &Tx<'_>, age: Duration) -> Millis {
    tx.now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Groups that hold nothing back any more. A clock that jumps makes every group look forgotten; one whose handler lives is
/// seen again within the recovery time, and only one that is not is forgotten.
fn forgotten(tx: &Tx<'_>, options: &Options, memory: &mut Memory) -> Result<Vec<i64>, Fault> {
    let mut list = tx.conn.prepare_cached("SELECT id, seen_at FROM consumer WHERE seen_at <= ?")?;
    let quiet: Vec<(i64, Millis)> = list
        .query_map([before(tx, options.forget_group_after)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    memory.quiet.retain(|group, (seen, _)| quiet.contains(&(*group, *seen)));
    let is_still = |(group, seen): (i64, Millis)| {
        let (_, since) = memory.quiet.entry(group).or_insert_with(|| (seen, Instant::now()));
        (since.elapsed() >= options.recovery_time).then_some(group)
    };
    Ok(quiet.into_iter().filter_map(is_still).collect())
}

struct Trimmed {
    id: i64,
    first: i64,
    last: i64,
    retain: Retain,
}

/// Trims streams; answers how many entries went.
fn trim(tx: &Tx<'_>, options: &Options, forgotten: &[i64]) -> Result<usize, Fault> {
    let mut list = tx.conn.prepare_cached(
        "SELECT id, name, hidden, first_seq, last_seq FROM stream WHERE first_seq <= last_seq ORDER BY random()",
    )?;
    let streams: Vec<(i64, String, bool, i64, i64)> = list
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
        .collect::<Result<_, _>>()?;
    let unused_before = before(tx, options.forget_group_after);
    let mut trimmed = 0;
    for (id, name, hidden, first, last) in streams {
        // What is on its way to a carrier is history there, not here; until it is there, nobody's absence lets it go.
        let outbox = name.starts_with(OUTBOX_PREFIX);
        let passing = hidden || outbox;
        let retain = if passing { Retain { age: None, length: Some(0) } } else { options.streams.retain(&name) };
        let stream = Trimmed { id, first, last, retain };
        if trimmed < TRIMMED_MAX && is_long(tx, &stream)? {
            // Retries and replays lie in no history either: they wait for their group, however long it is away.
            let forgotten = if passing { &[] } else { forgotten };
            let unread = if outbox { first } else { i64::MAX };
            let needed = needed_from(tx, id, forgotten, unused_before)?.unwrap_or(unread);
            trimmed += trim_stream(tx, &stream, needed, TRIMMED_MAX - trimmed)?;
        }
    }
    Ok(trimmed)
}

impl Trimmed {
    /// Whether retention lets go of entry `seq`, stored at `stored`.
    fn lets_go(&self, tx: &Tx<'_>, seq: i64, stored: Millis) -> bool {
        let too_old = self.retain.age.is_some_and(|age| stored < before(tx, age));
        let length = self.retain.length.map(|length| i64::try_from(length).unwrap_or(i64::MAX));
        too_old || length.is_some_and(|length| seq <= self.last.saturating_sub(length))
    }
}

/// Whether retention lets go of the first entry: if not, nobody needs to be asked who reads the stream.
fn is_long(tx: &Tx<'_>, stream: &Trimmed) -> Result<bool, Fault> {
    let mut find =
        tx.conn.prepare_cached("SELECT pos, stored_at FROM event WHERE pos >= ? AND pos <= ? ORDER BY pos LIMIT 1")?;
    let range = (position(stream.id, stream.first), position(stream.id, stream.last));
    let first: Option<(i64, Millis)> = find.query_row(range, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(first.is_some_and(|(pos, stored)| stream.lets_go(tx, seq_of(pos), stored)))
}

fn trim_stream(tx: &Tx<'_>, stream: &Trimmed, needed: i64, budget: usize) -> Result<usize, Fault> {
    let mut select =
        tx.conn.prepare_cached("SELECT pos, stored_at FROM event WHERE pos >= ? AND pos <= ? ORDER BY pos LIMIT ?")?;
    let end = position(stream.id, stream.last);
    let mut rows = select.query((position(stream.id, stream.first), end, budget as i64))?;
    let (mut trimmed, mut keep_from) = (0, stream.first);
    while let Some(row) = rows.next()? {
        let (seq, stored): (i64, Millis) = (seq_of(row.get(0)?), row.get(1)?);
        if seq >= needed || !stream.lets_go(tx, seq, stored) {
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

/// The first entry of a stream that some group which is not forgotten has not settled yet; `None`: no group reads it.
fn needed_from(tx: &Tx<'_>, stream: i64, forgotten: &[i64], unused_before: Millis) -> Result<Option<i64>, Fault> {
    let mut find = tx.conn.prepare_cached(
        "SELECT c.group_id, coalesce((SELECT min(s.first) FROM span s \
                 WHERE s.group_id = c.group_id AND s.stream_id = c.stream_id AND s.left > 0), c.position + 1) \
         FROM cursor c JOIN consumer g ON g.id = c.group_id \
         WHERE c.stream_id = ?1 AND coalesce(c.unused_since > ?2, 1)",
    )?;
    let mut rows = find.query((stream, unused_before))?;
    let mut needed = None;
    while let Some(row) = rows.next()? {
        let (group, from): (i64, i64) = (row.get(0)?, row.get(1)?);
        if !forgotten.contains(&group) {
            needed = Some(needed.map_or(from, |needed: i64| needed.min(from)));
        }
    }
    Ok(needed)
}
