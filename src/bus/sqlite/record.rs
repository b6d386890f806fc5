//! Idempotency records: who committed a key, or gave it up.
//!
//! A record is compact (numbers instead of names) and expires by the store's clock; an expired one is as good as absent.

use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::tx::Tx;
use crate::bus::{DeadId, Delivery, Recorded};
use crate::clock::Millis;
use crate::event::EntryId;
use crate::outcome::{Record, RecordKey};

/// A record that has not expired.
pub(super) struct Found {
    pub(super) stream: i64,
    pub(super) entry: EntryId,
    pub(super) attempt: i64,
    pub(super) dead: Option<DeadId>,
}

/// The record of `key` at `now`.
pub(super) fn find(conn: &Connection, key: RecordKey, now: Millis) -> Result<Option<Found>, Fault> {
    let mut find =
        conn.prepare_cached("SELECT stream_id, seq, sub, attempt, dead FROM record WHERE key = ? AND expires > ?")?;
    let found = find.query_row((&key.0[..], now), |row| {
        let dead: Option<i64> = row.get(4)?;
        let dead = dead.map(|id| DeadId(id as u64));
        let (seq, sub): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(Found { stream: row.get(0)?, entry: EntryId(seq as u64, sub as u64), attempt: row.get(3)?, dead })
    });
    Ok(found.optional()?)
}

/// The token of the delivery that wrote it, as [`Delivery::token`] writes it.
pub(super) fn by(conn: &Connection, found: &Found) -> Result<String, Fault> {
    let mut find = conn.prepare_cached("SELECT name FROM stream WHERE id = ?")?;
    let name: Option<String> = find.query_row([found.stream], |row| row.get(0)).optional()?;
    let name = name.unwrap_or_else(|| format!("stream {}", found.stream));
    Ok(format!("{name}/{}#{}", found.entry, found.attempt))
}

/// Origin and attempt of a delivery: stream, entry, attempt.
pub(super) fn origin(tx: &mut Tx<'_>, delivery: &Delivery) -> Result<(i64, EntryId, i64), Fault> {
    let (stream, entry) = delivery.origin();
    Ok((tx.stream(stream)?, entry, i64::from(delivery.attempt())))
}

/// Writes the record of a run that ended; its window begins now.
pub(super) fn write(
    tx: &Tx<'_>,
    record: &Record,
    origin: (i64, EntryId, i64),
    dead: Option<DeadId>,
) -> Result<(), Fault> {
    let window = i64::try_from(record.window.as_millis()).unwrap_or(i64::MAX);
    let dead = dead.map(|id| id.0 as i64);
    let mut write = tx.conn.prepare_cached(
        "INSERT OR REPLACE INTO record(key, stream_id, seq, sub, attempt, dead, expires) VALUES(?,?,?,?,?,?,?)",
    )?;
    let (stream, entry, attempt) = origin;
    let (seq, sub) = (entry.0 as i64, entry.1 as i64);
    write.execute((&record.key.0[..], stream, seq, sub, attempt, dead, tx.now.saturating_add(window)))?;
    Ok(())
}

/// Who holds each of `keys`.
pub(super) fn recorded(conn: &Connection, keys: &[RecordKey], now: Millis) -> Result<Vec<Option<Recorded>>, Fault> {
    keys.iter()
        .map(|key| {
            let Some(found) = find(conn, *key, now)? else { return Ok(None) };
            Ok(Some(Recorded { by: by(conn, &found)?, dead: found.dead, contested: false }))
        })
        .collect()
}

/// Removes expired records among the next `limit` after `after`, in the order of keys; answers where to go on (`None`:
/// from the start) and how many were removed.
pub(super) fn sweep(tx: &Tx<'_>, after: &[u8], limit: usize) -> Result<(Option<Vec<u8>>, usize), Fault> {
    let mut list = tx.conn.prepare_cached("SELECT key, expires FROM record WHERE key > ? ORDER BY key LIMIT ?")?;
    let seen: Vec<(Vec<u8>, Millis)> =
        list.query_map((after, limit as i64), |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut delete = tx.conn.prepare_cached("DELETE FROM record WHERE key = ?")?;
    let mut removed = 0;
    for (key, _) in seen.iter().filter(|(_, expires)| *expires <= tx.now) {
        removed += delete.execute([&key[..]])?;
    }
    let next = if seen.len() < limit { None } else { seen.into_iter().next_back().map(|(key, _)| key) };
    Ok((next, removed))
}
