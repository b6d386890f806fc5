//! Work for later: retries and delayed events, one table ordered by when they are due.
//!
//! What is due moves into its stream in one step, by whichever process comes first, and is read from there like any entry:
//! there is no second kind of lease. Due times are the store's; nothing here sleeps. Where the store's clock is set back, what
//! waits does not wait for as long once more.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::fault::Fault;
use super::group::Group;
use super::row;
use super::tx::{RETRY_PREFIX, Tx};
use crate::bus::past as stored;
use crate::bus::{Delivery, Past};
use crate::clock::Millis;
use crate::event::{EntryId, Event};
use crate::outcome::Emit;

/// Entries moved in one transaction.
const MOVED_MAX: usize = 512;
/// A clock that goes back by less is not worth a change.
const BACK_MIN: Millis = 1000;

const INSERT: &str = "INSERT OR IGNORE INTO delayed(due, stream_id, member, event_id, source, type, subject, time, dataschema, \
     correlation_id, causation_id, traceparent, ext, data, past, owner) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

/// Publishes events, now or later, and says where each lies now. The group `owner` can take back what is delayed.
pub(super) fn publish(tx: &mut Tx<'_>, emits: &[Emit], owner: Option<i64>) -> Result<Vec<Option<EntryId>>, Fault> {
    let mut entries = Vec::with_capacity(emits.len());
    for emit in emits {
        if emit.stream.starts_with(RETRY_PREFIX) {
            return Err(Fault::Refused(format!(
                "stream {:?} belongs to the host; publish to another one",
                emit.stream
            )));
        }
        entries.push(match emit.delay {
            None => Some(tx.append(&emit.stream, &emit.event, None)?),
            Some(delay) => {
                let stream = tx.stream(&emit.stream)?;
                later(tx, stream, &emit.event, delay, owner)?;
                None
            }
        });
    }
    Ok(entries)
}

fn later(tx: &mut Tx<'_>, stream: i64, event: &Event, delay: Duration, owner: Option<i64>) -> Result<(), Fault> {
    let due = due_in(tx, delay)?;
    let mut insert = tx.conn.prepare_cached(INSERT)?;
    insert.raw_bind_parameter(1, due)?;
    insert.raw_bind_parameter(2, stream)?;
    insert.raw_bind_parameter(3, None::<&str>)?;
    row::bind_event(&mut insert, 4, event)?;
    insert.raw_bind_parameter(4 + row::WIDTH, None::<&str>)?;
    insert.raw_bind_parameter(5 + row::WIDTH, owner)?;
    insert.raw_execute()?;
    Ok(())
}

/// Takes back what the group `owner` emitted under these ids and is not due yet.
pub(super) fn take_back(tx: &Tx<'_>, owner: i64, ids: &[String]) -> Result<(), Fault> {
    for id in ids {
        tx.conn.prepare_cached("DELETE FROM delayed WHERE owner = ? AND event_id = ?")?.execute((owner, id))?;
    }
    Ok(())
}

/// Gives a delivery another try, after `delay`, with its body and all it went through.
pub(super) fn retry(
    tx: &mut Tx<'_>,
    group: &Group,
    delivery: &Delivery,
    past: &Past,
    delay: Duration,
) -> Result<(), Fault> {
    let origin = tx.stream(&past.stream)?;
    let member = format!("{}/{origin}/{}/{}/{}", group.id, past.entry, past.attempts, past.snoozes);
    let due = due_in(tx, delay)?;
    let mut insert = tx.conn.prepare_cached(INSERT)?;
    insert.raw_bind_parameter(1, due)?;
    insert.raw_bind_parameter(2, group.retry)?;
    insert.raw_bind_parameter(3, member)?;
    row::bind(&mut insert, 4, &delivery.event)?;
    insert.raw_bind_parameter(4 + row::WIDTH, stored::write(past))?;
    insert.raw_bind_parameter(5 + row::WIDTH, None::<i64>)?;
    insert.raw_execute()?;
    Ok(())
}

/// Notices where the clock was set back since somebody last looked: all that waits is due so much earlier.
pub(super) fn keep_time(tx: &mut Tx<'_>) -> Result<(), Fault> {
    let seen: Millis = tx.conn.prepare_cached("SELECT seen FROM clock")?.query_row([], |row| row.get(0))?;
    let back = seen.saturating_sub(tx.now);
    if back.abs() < BACK_MIN {
        return Ok(());
    }
    tx.conn.prepare_cached("UPDATE clock SET seen = ?")?.execute([tx.now])?;
    if back > 0 {
        tracing::warn!(seconds = back / 1000, "the clock was set back; what waits for its time is due as much earlier");
        tx.conn.execute("UPDATE delayed SET due = due - ?", [back])?;
        tx.news.due = next(tx.conn)?;
    }
    Ok(())
}

fn due_in(tx: &mut Tx<'_>, delay: Duration) -> Result<Millis, Fault> {
    keep_time(tx)?;
    let due = tx.now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
    tx.news.due = Some(tx.news.due.map_or(due, |other| other.min(due)));
    Ok(due)
}

/// When the next work is due.
pub(super) fn next(conn: &Connection) -> Result<Option<Millis>, Fault> {
    Ok(conn.prepare_cached("SELECT min(due) FROM delayed")?.query_row([], |row| row.get(0))?)
}

/// Moves what is due into its streams; answers when the next is due.
pub(super) fn move_due(tx: &mut Tx<'_>) -> Result<Option<Millis>, Fault> {
    let mut list = tx.conn.prepare_cached(
        "SELECT d.id, s.name, d.past, d.event_id, d.source, d.type, d.subject, d.time, d.dataschema, d.correlation_id, \
         d.causation_id, d.traceparent, d.ext, d.data \
         FROM delayed d JOIN stream s ON s.id = d.stream_id WHERE d.due <= ? ORDER BY d.due, d.id LIMIT ?",
    )?;
    let mut rows = list.query((tx.now, MOVED_MAX as i64))?;
    let mut moved = Vec::new();
    while let Some(found) = rows.next()? {
        let (id, stream): (i64, String) = (found.get(0)?, found.get(1)?);
        // Whatever lies there goes along: what is not readable becomes a dead letter and holds up nobody.
        let past = match found.get_ref(2)? {
            ValueRef::Null => None,
            ValueRef::Text(text) | ValueRef::Blob(text) => Some(String::from_utf8_lossy(text).into_owned()),
            other => Some(other.data_type().to_string()),
        };
        let event = row::read(found, 3)?;
        tx.append_any(&stream, &event, past.as_deref())?;
        moved.push(id);
    }
    drop(rows);
    let mut delete = tx.conn.prepare_cached("DELETE FROM delayed WHERE id = ?")?;
    for id in moved {
        delete.execute([id])?;
    }
    next(tx.conn)
}
