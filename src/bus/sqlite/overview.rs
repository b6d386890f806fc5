//! How things stand, for operators: groups, handlers, history.
//!
//! Only reads (but for the reports that hosts leave), and is asked rarely.

use rusqlite::Connection;

use super::fault::Fault;
use super::tx::{Tx, entry_id, position, seq_of};
use super::{Place, process, row};
use crate::bus::{GroupStatus, HandlerReport, Undecodable};
use crate::event::{EntryId, Event};

/// Every group, by name. What it costs depends on how many groups and streams there are, not on how much waits.
pub(super) fn groups(conn: &Connection) -> Result<Vec<GroupStatus>, Fault> {
    let mut list = conn.prepare_cached(
        "SELECT g.name, g.handler, \
             (SELECT coalesce(sum(s.last_seq - max(c.position, s.first_seq - 1)), 0) FROM cursor c \
                JOIN stream s ON s.id = c.stream_id WHERE c.group_id = g.id AND c.unused_since IS NULL), \
             (SELECT coalesce(sum(left), 0) FROM span WHERE group_id = g.id AND owner = 0), \
             (SELECT coalesce(sum(left), 0) FROM span WHERE group_id = g.id AND owner <> 0), \
             (SELECT coalesce(sum(s.delayed), 0) FROM cursor c JOIN stream s ON s.id = c.stream_id \
                WHERE c.group_id = g.id AND c.unused_since IS NULL), \
             (SELECT s.last_seq - max(c.position, s.first_seq - 1) FROM cursor c JOIN stream s ON s.id = c.stream_id \
                WHERE c.group_id = g.id AND c.stream_id = g.retry_stream), \
             g.dead, g.lost, \
             (SELECT min((SELECT e.stored_at FROM event e \
                    WHERE e.pos >= (c.stream_id << 40 | coalesce((SELECT min(p.first) FROM span p WHERE p.group_id = g.id \
                        AND p.stream_id = c.stream_id AND p.owner = 0 AND p.left > 0), c.position + 1)) \
                    AND e.pos <= (c.stream_id << 40 | s.last_seq) ORDER BY e.pos LIMIT 1)) \
                FROM cursor c JOIN stream s ON s.id = c.stream_id WHERE c.group_id = g.id AND c.unused_since IS NULL) \
         FROM consumer g ORDER BY g.name",
    )?;
    let groups = list.query_map([], |row| {
        let count = |at: usize| -> rusqlite::Result<u64> {
            let found: Option<i64> = row.get(at)?;
            Ok(u64::try_from(found.unwrap_or(0)).unwrap_or(0))
        };
        let waiting = count(5)?;
        Ok(GroupStatus {
            group: row.get(0)?,
            handler: row.get(1)?,
            lag: count(2)? + count(3)? + waiting,
            in_flight: count(4)?,
            delayed: waiting + count(6)?,
            dead: count(7)?,
            lost: count(8)?,
            oldest: row.get(9)?,
        })
    })?;
    Ok(groups.collect::<Result<_, _>>()?)
}

/// Keeps what a host says about its handlers; what it said before, and what hosts that are gone said of them, is replaced.
pub(super) fn report(tx: &Tx<'_>, reports: &[HandlerReport]) -> Result<(), Fault> {
    let mut forget = tx.conn.prepare_cached("DELETE FROM report WHERE instance = ?")?;
    let mut forget_gone = tx
        .conn
        .prepare_cached("DELETE FROM report WHERE handler = ? AND instance NOT IN (SELECT name FROM process)")?;
    for report in reports {
        forget.execute([&report.instance])?;
        forget_gone.execute([&report.handler])?;
    }
    // Nor is there anything to say for processes that are gone for good.
    tx.conn.prepare_cached("DELETE FROM report WHERE instance NOT IN (SELECT name FROM process)")?.execute([])?;
    let mut insert = tx.conn.prepare_cached(
        "INSERT OR REPLACE INTO report(instance, handler, group_name, version, since, state, last_error, at) \
         VALUES(?,?,?,?,?,?,?,?)",
    )?;
    for r in reports {
        insert.execute((&r.instance, &r.handler, &r.group, &r.version, r.since, &r.state, &r.last_error, r.at))?;
    }
    Ok(())
}

/// What hosts said about their handlers; of a host that is gone, that it is not running.
pub(super) fn reports(conn: &Connection, place: &Place) -> Result<Vec<HandlerReport>, Fault> {
    let alive = process::alive(conn, place)?;
    let mut list = conn.prepare_cached(
        "SELECT handler, group_name, version, state, last_error, instance, at, since FROM report ORDER BY handler, instance",
    )?;
    let reports = list.query_map([], |row| {
        let (state, instance): (String, String) = (row.get(3)?, row.get(5)?);
        Ok(HandlerReport {
            handler: row.get(0)?,
            group: row.get(1)?,
            version: row.get(2)?,
            state: if alive.contains(&instance) { state } else { HandlerReport::NOT_RUNNING.to_owned() },
            last_error: row.get(4)?,
            instance,
            at: row.get(6)?,
            since: row.get(7)?,
        })
    })?;
    Ok(reports.collect::<Result<_, _>>()?)
}

/// A past entry, event or not.
pub(super) type Entry = (EntryId, Result<Event, Undecodable>);

/// Retained entries of a stream after `after`, oldest first.
pub(super) fn history(
    conn: &Connection,
    stream: &str,
    after: Option<EntryId>,
    limit: usize,
) -> Result<Vec<Entry>, Fault> {
    let mut find = conn.prepare_cached("SELECT id, last_seq FROM stream WHERE name = ?")?;
    let mut rows = find.query([stream])?;
    let Some(found) = rows.next()? else { return Ok(Vec::new()) };
    let (id, last): (i64, i64) = (found.get(0)?, found.get(1)?);
    let from = after.map_or(0, |entry| i64::try_from(entry.0).unwrap_or(i64::MAX - 1)).min(last) + 1;
    let mut list = conn.prepare_cached(
        "SELECT pos, id, source, type, subject, time, dataschema, correlation_id, causation_id, traceparent, ext, data \
         FROM event WHERE pos >= ? AND pos <= ? ORDER BY pos LIMIT ?",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let entries = list.query_map((position(id, from), position(id, last), limit), |found| {
        Ok((entry_id(seq_of(found.get(0)?)), row::read(found, 1)?))
    })?;
    Ok(entries.collect::<Result<_, _>>()?)
}
