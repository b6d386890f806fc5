//! What durable steps came to: recorded by whoever owns the delivery, first write wins.
//!
//! Owns the table `step`: records of an event go when it is committed, stay as long as its dead letter (a trigger sees to it), and
//! expire where it is never settled. An expired one is as good as absent.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::tx::Tx;
use super::{carried, group, span};
use crate::bus::{Delivery, Step, StepAnswer};
use crate::clock::Millis;
use crate::outcome::RecordKey;

/// The steps recorded for `event`.
pub(super) fn recall(conn: &Connection, event: RecordKey, now: Millis) -> Result<Vec<(String, Bytes)>, Fault> {
    let mut list =
        conn.prepare_cached("SELECT name, result FROM step WHERE event = ?1 AND coalesce(expires > ?2, 1)")?;
    let steps = list.query_map((&event.0[..], now), |row| {
        let result: String = row.get(1)?;
        Ok((row.get(0)?, Bytes::from(result)))
    })?;
    Ok(steps.collect::<Result<_, _>>()?)
}

/// Records a step of a run over `delivery` in group number `group`.
pub(super) fn record(tx: &mut Tx<'_>, group: i64, delivery: &Delivery, step: &Step) -> Result<StepAnswer, Fault> {
    if let Some(answer) = fenced(tx, group, delivery)? {
        return Ok(answer);
    }
    let kept = i64::try_from(step.kept.as_millis()).unwrap_or(i64::MAX);
    let (event, expires) = (&step.event.0[..], tx.now.saturating_add(kept));
    tx.conn.prepare_cached("DELETE FROM step WHERE event = ? AND expires <= ?")?.execute((event, tx.now))?;
    let mut find = tx.conn.prepare_cached("SELECT result FROM step WHERE event = ? AND name = ?")?;
    let known: Option<String> = find.query_row((event, &*step.name), |row| row.get(0)).optional()?;
    if let Some(known) = known {
        return Ok(StepAnswer::Known(known.into()));
    }
    // JSON is text, and so is nothing.
    let result = String::from_utf8_lossy(&step.result);
    let mut insert = tx.conn.prepare_cached("INSERT INTO step(event, name, result, expires) VALUES(?,?,?,?)")?;
    insert.execute((event, &*step.name, result, expires))?;
    let mut refresh = tx.conn.prepare_cached("UPDATE step SET expires = ?2 WHERE event = ?1 AND expires < ?2")?;
    refresh.execute((event, expires))?;
    Ok(StepAnswer::Recorded)
}

/// Why nothing may be recorded for the delivery; `None`: it is ours, and not settled.
fn fenced(tx: &mut Tx<'_>, group: i64, delivery: &Delivery) -> Result<Option<StepAnswer>, Fault> {
    if carried::is_at_carrier(delivery) {
        return Ok(match carried::is_settled(tx, group, delivery)? {
            None => Some(StepAnswer::StoreReset),
            Some(settled) => settled.then_some(StepAnswer::Fenced),
        });
    }
    let (id, seq) = (delivery.lease.claim as i64, delivery.entry.0 as i64);
    let Some(span) = span::find(tx.conn, id)? else {
        let exists = group::find(tx.conn, group)?.is_some();
        return Ok(Some(if exists { StepAnswer::Fenced } else { StepAnswer::StoreReset }));
    };
    let ours = span.owner == tx.me && span.epoch as u64 == delivery.lease.epoch && !span.is_done(seq);
    Ok(if ours { None } else { Some(StepAnswer::Fenced) })
}

/// The event is committed: its steps are forgotten.
pub(super) fn forget(tx: &Tx<'_>, event: RecordKey) -> Result<(), Fault> {
    tx.conn.prepare_cached("DELETE FROM step WHERE event = ?")?.execute([&event.0[..]])?;
    Ok(())
}

/// The event's key is taken: steps are forgotten that no dead letter has.
pub(super) fn forget_unlettered(tx: &Tx<'_>, event: RecordKey) -> Result<(), Fault> {
    let mut delete = tx.conn.prepare_cached("DELETE FROM step WHERE event = ? AND expires IS NOT NULL")?;
    delete.execute([&event.0[..]])?;
    Ok(())
}

/// The event has a dead letter, as long as which its steps stay.
pub(super) fn keep(tx: &Tx<'_>, event: RecordKey) -> Result<(), Fault> {
    tx.conn.prepare_cached("UPDATE step SET expires = NULL WHERE event = ?")?.execute([&event.0[..]])?;
    Ok(())
}

/// Removes at most `limit` expired records; answers how many.
pub(super) fn sweep(tx: &Tx<'_>, limit: usize) -> Result<usize, Fault> {
    let mut delete = tx.conn.prepare_cached(
        "DELETE FROM step WHERE (event, name) IN (SELECT event, name FROM step WHERE expires <= ? LIMIT ?)",
    )?;
    Ok(delete.execute((tx.now, limit as i64))?)
}
