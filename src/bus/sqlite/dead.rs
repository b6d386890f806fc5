//! Dead letters: events given up, with all that is known about why, and the way back.
//!
//! A replay is a new delivery in the group's own stream that names its dead letter. The letter stays until the replay has
//! ended: a commit removes it, a second death replaces it, a replay that was skipped leaves it as it was.

use rusqlite::{Connection, OptionalExtension, Row};

use super::fault::Fault;
use super::settle::Settler;
use super::tx::Tx;
use super::{group, row};
use crate::bus::past as stored;
use crate::bus::{DeadFilter, DeadId, DeadLetter, DeadReason, Delivery, Past, PastFailure, Replayed, Run, Undecodable};
use crate::event::{EntryId, Event};
use crate::judge::DeathReason;
use crate::outcome::RecordKey;

const SELECT: &str = "SELECT d.id, d.handler, c.name, d.version, d.reason, d.stream, d.seq, d.sub, d.attempts, d.failed_at, \
     d.failures, d.undecodable, d.idempotency_key, d.replayed_at, d.event_id, d.source, d.type, d.subject, d.time, \
     d.dataschema, d.correlation_id, d.causation_id, d.traceparent, d.ext, d.data \
     FROM dead_letter d LEFT JOIN consumer c ON c.id = d.group_id";
/// Where the event's columns begin in [`SELECT`].
const EVENT: usize = 14;
const INSERT: &str = "INSERT INTO dead_letter(group_id, handler, version, reason, stream, seq, sub, attempts, failed_at, failures, \
     undecodable, idempotency_key, event_id, source, type, subject, time, dataschema, correlation_id, causation_id, \
     traceparent, ext, data, steps) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

/// What becomes a dead letter.
pub(super) struct Letter<'a> {
    pub(super) settler: &'a Settler<'a>,
    pub(super) run: &'a Run,
    pub(super) delivery: &'a Delivery,
    pub(super) reason: DeathReason,
    pub(super) failures: &'a [PastFailure],
}

/// Keeps a dead letter; one that it replaces goes, and what is recorded of their event's steps stays.
pub(super) fn bury(tx: &Tx<'_>, letter: &Letter<'_>) -> Result<DeadId, Fault> {
    let (stream, entry) = letter.delivery.origin();
    let undecodable = letter.delivery.event.as_ref().err().map(|raw| raw.reason.as_str());
    let mut insert = tx.conn.prepare_cached(INSERT)?;
    insert.raw_bind_parameter(1, letter.settler.group.id)?;
    insert.raw_bind_parameter(2, &*letter.settler.subscription.handler)?;
    insert.raw_bind_parameter(3, &*letter.run.version)?;
    insert.raw_bind_parameter(4, letter.reason.as_str())?;
    insert.raw_bind_parameter(5, stream)?;
    insert.raw_bind_parameter(6, entry.0 as i64)?;
    insert.raw_bind_parameter(7, entry.1 as i64)?;
    insert.raw_bind_parameter(8, letter.delivery.attempt())?;
    insert.raw_bind_parameter(9, tx.now)?;
    insert.raw_bind_parameter(10, stored::write_failures(letter.failures))?;
    insert.raw_bind_parameter(11, undecodable)?;
    insert.raw_bind_parameter(12, letter.run.record.as_ref().map(|record| record.text.as_str()))?;
    row::bind(&mut insert, 13, &letter.delivery.event)?;
    insert.raw_bind_parameter(13 + row::WIDTH, letter.run.steps.as_ref().map(|event| &event.0[..]))?;
    insert.raw_execute()?;
    let id = DeadId(tx.conn.last_insert_rowid() as u64);
    replay_done(tx, letter.delivery)?;
    Ok(id)
}

fn replay_of(delivery: &Delivery) -> Option<i64> {
    delivery.past.as_ref().and_then(|past| past.replay_of).map(|id| id.0 as i64)
}

/// A replay ended: its dead letter goes.
pub(super) fn replay_done(tx: &Tx<'_>, delivery: &Delivery) -> Result<(), Fault> {
    if let Some(id) = replay_of(delivery) {
        tx.conn.prepare_cached("DELETE FROM dead_letter WHERE id = ?")?.execute([id])?;
    }
    Ok(())
}

/// A replay was skipped because its key is taken: its dead letter stays, and can be replayed or discarded.
pub(super) fn replay_skipped(tx: &Tx<'_>, delivery: &Delivery) -> Result<(), Fault> {
    if let Some(id) = replay_of(delivery) {
        tx.conn.prepare_cached("UPDATE dead_letter SET replayed_at = NULL WHERE id = ?")?.execute([id])?;
    }
    Ok(())
}

/// Dead letters by number.
pub(super) fn list(conn: &Connection, filter: &DeadFilter) -> Result<Vec<DeadLetter>, Fault> {
    let sql = format!(
        "{SELECT} WHERE d.id > ?1 AND (?2 IS NULL OR d.handler = ?2) AND (?3 IS NULL OR d.reason = ?3) \
         ORDER BY d.id LIMIT ?4"
    );
    let mut list = conn.prepare_cached(&sql)?;
    let after = filter.after.map_or(0, |id| id.0 as i64);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let letters = list.query_map((after, &filter.handler, filter.reason.map(DeadReason::as_str), limit), letter)?;
    letters.map(|letter| letter?).collect()
}

/// One dead letter.
pub(super) fn get(conn: &Connection, id: DeadId) -> Result<Option<DeadLetter>, Fault> {
    let mut find = conn.prepare_cached(&format!("{SELECT} WHERE d.id = ?"))?;
    find.query_row([id.0 as i64], letter).optional()?.transpose()
}

fn letter(row: &Row<'_>) -> rusqlite::Result<Result<DeadLetter, Fault>> {
    let (id, reason): (i64, String) = (row.get(0)?, row.get(4)?);
    let (seq, sub): (i64, i64) = (row.get(6)?, row.get(7)?);
    let group: Option<String> = row.get(2)?;
    let failures: String = row.get(10)?;
    let (Some(reason), Ok(failures)) = (DeathReason::parse(&reason), stored::read_failures(failures.as_bytes())) else {
        return Ok(Err(Fault::Unusable(format!("dead letter {id} is not readable by this version of moontide"))));
    };
    Ok(Ok(DeadLetter {
        id: DeadId(id as u64),
        handler: row.get(1)?,
        group: group.unwrap_or_default(),
        version: row.get(3)?,
        reason: reason.into(),
        stream: row.get(5)?,
        entry: Some(EntryId(seq as u64, sub as u64)),
        event: event(row)?,
        attempts: row.get(8)?,
        failed_at: row.get(9)?,
        failures,
        foreign_error: None,
        idempotency_key: row.get(12)?,
        replayed_at: row.get(13)?,
    }))
}

fn event(row: &Row<'_>) -> rusqlite::Result<Result<Event, Undecodable>> {
    match row.get::<_, Option<String>>(11)? {
        None => row::read(row, EVENT),
        Some(reason) => Ok(Err(Undecodable { reason, fields: row::fields(row, EVENT)? })),
    }
}

/// Gives the event of a dead letter to its group once more.
pub(super) fn replay(tx: &mut Tx<'_>, id: DeadId) -> Result<Replayed, Fault> {
    let Some(letter) = get(tx.conn, id)? else { return Ok(Replayed::Missing) };
    if let Some(since) = letter.replayed_at {
        return Ok(Replayed::Underway(since));
    }
    if letter.group.is_empty() {
        return Err(Fault::Refused(format!("dead letter {id}: its group no longer exists; start its handler first")));
    }
    let past = Past {
        attempts: 0,
        snoozes: 0,
        entry: letter.origin(),
        stream: letter.stream.into(),
        first_received: tx.now,
        failures: letter.failures,
        replay_of: Some(id),
        steps: steps(tx, id)?,
    };
    tx.append_any(&group::retry_stream(&letter.group), &letter.event, Some(&stored::write(&past)))?;
    let mut note = tx.conn.prepare_cached("UPDATE dead_letter SET replayed_at = ?2 WHERE id = ?1")?;
    note.execute((id.0 as i64, tx.now))?;
    Ok(Replayed::Queued)
}

/// Where the steps of a dead letter's event are recorded.
fn steps(tx: &Tx<'_>, id: DeadId) -> Result<Option<RecordKey>, Fault> {
    let mut find = tx.conn.prepare_cached("SELECT steps FROM dead_letter WHERE id = ?")?;
    let event: Option<[u8; 16]> = find.query_row([id.0 as i64], |row| row.get(0))?;
    Ok(event.map(RecordKey))
}

/// Removes those of the `limit` oldest dead letters that were given up, and last replayed, at `before` or earlier; answers
/// how many.
pub(super) fn sweep(tx: &Tx<'_>, before: i64, limit: usize) -> Result<usize, Fault> {
    let mut delete = tx.conn.prepare_cached(
        "DELETE FROM dead_letter WHERE failed_at <= ?1 AND coalesce(replayed_at <= ?1, 1) \
         AND id IN (SELECT id FROM dead_letter ORDER BY id LIMIT ?2)",
    )?;
    Ok(delete.execute((before, limit as i64))?)
}

/// Removes dead letters; answers how many there were.
pub(super) fn discard(tx: &Tx<'_>, ids: &[DeadId]) -> Result<u64, Fault> {
    let mut delete = tx.conn.prepare_cached("DELETE FROM dead_letter WHERE id = ?")?;
    ids.iter().try_fold(0, |removed, id| Ok(removed + delete.execute([id.0 as i64])? as u64))
}
