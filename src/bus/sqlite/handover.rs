//! A group's things go to another group, or are forgotten.
//!
//! Owns what belongs to a group: cursors, claims, marks, retries, dead letters. What the new group has seen by itself is not
//! handed over a second time. Numbers of streams are never given out again, so the old stream of retries stays, empty.

use rusqlite::OptionalExtension;

use super::fault::Fault;
use super::group;
use super::span::{self, Span};
use super::tx::{Tx, position, seq_of};
use super::{due, row};
use crate::bus::Moved;

/// Entries in one span: bounds what a claim has to read and write.
const SPAN_MAX: i64 = 4096;

struct Place {
    id: i64,
    retry: i64,
}

struct Cursor {
    stream: i64,
    position: i64,
    began: Option<i64>,
}

/// Hands everything of `from` over to `to`.
pub(super) fn hand_over(tx: &mut Tx<'_>, from: &str, to: &str) -> Result<Moved, Fault> {
    if from == to {
        return Err(Fault::Refused(format!("{from} and {to} are the same group")));
    }
    let old = find(tx, from)?.ok_or_else(|| {
        Fault::Refused(format!("there is no group {from}; `moontide groups list` shows those that there are"))
    })?;
    let new = match find(tx, to)? {
        Some(new) => new,
        None => create_like(tx, old.id, to)?,
    };
    let mut moved = Moved { delayed: delayed(tx, &old, &new)?, ..Moved::default() };
    for cursor in cursors(tx, old.id)?.into_iter().filter(|cursor| cursor.stream != old.retry) {
        moved.taken_in += stream(tx, &old, &new, &cursor)?;
        moved.streams += 1;
    }
    tx.conn.execute("UPDATE OR IGNORE mark SET group_id = ?2 WHERE group_id = ?1", (old.id, new.id))?;
    moved.dead = tx.conn.execute("UPDATE dead_letter SET group_id = ?2 WHERE group_id = ?1", (old.id, new.id))? as u64;
    let lost =
        "UPDATE consumer SET seen_at = ?3, lost = lost + (SELECT lost FROM consumer WHERE id = ?1) WHERE id = ?2";
    tx.conn.execute(lost, (old.id, new.id, tx.now))?;
    remove(tx, &old)?;
    Ok(moved)
}

/// Forgets a group; its dead letters stay, without a group.
pub(super) fn forget(tx: &Tx<'_>, name: &str) -> Result<bool, Fault> {
    let Some(old) = find(tx, name)? else { return Ok(false) };
    tx.conn.execute("UPDATE dead_letter SET group_id = 0, replayed_at = NULL WHERE group_id = ?", [old.id])?;
    tx.conn.execute("DELETE FROM delayed WHERE stream_id = ?", [old.retry])?;
    empty(tx, old.retry)?;
    remove(tx, &old)?;
    Ok(true)
}

fn find(tx: &Tx<'_>, name: &str) -> Result<Option<Place>, Fault> {
    let mut find = tx.conn.prepare_cached("SELECT id, retry_stream FROM consumer WHERE name = ?")?;
    Ok(find.query_row([name], |row| Ok(Place { id: row.get(0)?, retry: row.get(1)? })).optional()?)
}

/// A new group that reads what group `like` reads, and stands nowhere yet.
fn create_like(tx: &mut Tx<'_>, like: i64, name: &str) -> Result<Place, Fault> {
    let retry = tx.stream(&group::retry_stream(name))?;
    let sql = "INSERT INTO consumer(name, handler, retry_stream, selection, seen_stream, seen_at) \
               SELECT ?2, handler, ?3, selection, seen_stream, ?4 FROM consumer WHERE id = ?1";
    tx.conn.execute(sql, (like, name, retry, tx.now))?;
    let id = tx.conn.last_insert_rowid();
    tx.conn.execute("INSERT INTO cursor(group_id, stream_id, position, began) VALUES(?,?,0,0)", (id, retry))?;
    Ok(Place { id, retry })
}

fn cursors(tx: &Tx<'_>, group: i64) -> Result<Vec<Cursor>, Fault> {
    let mut list = tx.conn.prepare_cached("SELECT stream_id, position, began FROM cursor WHERE group_id = ?")?;
    let read = |row: &rusqlite::Row<'_>| Ok(Cursor { stream: row.get(0)?, position: row.get(1)?, began: row.get(2)? });
    Ok(list.query_map([group], read)?.collect::<Result<_, _>>()?)
}

/// Hands over what the old group has on one stream; answers how many entries the new one had skipped.
fn stream(tx: &mut Tx<'_>, old: &Place, new: &Place, theirs: &Cursor) -> Result<u64, Fault> {
    let Some(ours) = cursors(tx, new.id)?.into_iter().find(|cursor| cursor.stream == theirs.stream) else {
        let both = (old.id, new.id, theirs.stream);
        tx.conn.execute("UPDATE cursor SET group_id = ?2 WHERE group_id = ?1 AND stream_id = ?3", both)?;
        tx.conn.execute("UPDATE span SET group_id = ?2 WHERE group_id = ?1 AND stream_id = ?3", both)?;
        return Ok(0);
    };
    let began = ours.began.ok_or_else(|| {
        Fault::Refused(
            "the new group is of an older version, which did not note where it began; forget it first".into(),
        )
    })?;
    let first: i64 = tx
        .conn
        .prepare_cached("SELECT first_seq FROM stream WHERE id = ?")?
        .query_row([theirs.stream], |row| row.get(0))?;
    for mut span in span::on_stream(tx.conn, old.id, theirs.stream)? {
        // The new group has received these by itself.
        (began + 1..=ours.position).for_each(|seq| span.set_done(seq));
        span.group = new.id;
        span::delete(tx.conn, span.id)?;
        if span.left > 0 {
            span.insert(tx.conn)?;
        }
    }
    let gap = (theirs.position + 1).max(first)..=began;
    give(tx, new.id, theirs.stream, *gap.start(), *gap.end())?;
    let reached = (ours.position.max(theirs.position), began.min(theirs.began.unwrap_or(theirs.position)));
    let sql = "UPDATE cursor SET position = ?3, began = ?4 WHERE group_id = ?1 AND stream_id = ?2";
    tx.conn.execute(sql, (new.id, theirs.stream, reached.0, reached.1))?;
    Ok((gap.end() - gap.start() + 1).max(0) as u64)
}

/// Makes entries free for anybody in the group to take.
fn give(tx: &mut Tx<'_>, group: i64, stream: i64, first: i64, last: i64) -> Result<(), Fault> {
    for from in (first..=last).step_by(SPAN_MAX as usize) {
        Span::new(group, stream, from, last.min(from + SPAN_MAX - 1), span::FREE).insert(tx.conn)?;
        tx.news.freed.push(group);
    }
    Ok(())
}

/// Hands over retries, replays and delayed work; answers how many.
fn delayed(tx: &mut Tx<'_>, old: &Place, new: &Place) -> Result<u64, Fault> {
    let sql = "UPDATE OR IGNORE delayed SET stream_id = ?2, member = ?3 || substr(member, instr(member, '/')) WHERE stream_id = ?1";
    let later = tx.conn.execute(sql, (old.retry, new.retry, new.id))?;
    tx.conn.execute("DELETE FROM delayed WHERE stream_id = ?", [old.retry])?;
    tx.conn.execute("UPDATE delayed SET owner = ?2 WHERE owner = ?1", (old.id, new.id))?;
    tx.news.due = due::next(tx.conn)?;
    Ok(later as u64 + waiting(tx, old, new)?)
}

/// Appends the entries of the old group's own stream that are not done to the new group's.
fn waiting(tx: &mut Tx<'_>, old: &Place, new: &Place) -> Result<u64, Fault> {
    let claimed: i64 =
        cursors(tx, old.id)?.iter().find(|cursor| cursor.stream == old.retry).map_or(0, |at| at.position);
    let spans = span::on_stream(tx.conn, old.id, old.retry)?;
    let undone = |seq: i64| seq > claimed || spans.iter().any(|span| span.contains(seq) && !span.is_done(seq));
    let (name, _) = group::find(tx.conn, new.id)?.ok_or_else(|| Fault::Refused("the new group vanished".into()))?;
    let target = group::retry_stream(&name);
    let sql = format!("SELECT pos, past, {} FROM event WHERE pos >= ? AND pos < ? ORDER BY pos", row::list());
    let mut list = tx.conn.prepare_cached(&sql)?;
    let mut rows = list.query((position(old.retry, 0), position(old.retry + 1, 0)))?;
    let mut moved = 0;
    while let Some(found) = rows.next()? {
        if undone(seq_of(found.get(0)?)) {
            let past: Option<String> = found.get(1)?;
            tx.append_any(&target, &row::read(found, 2)?, past.as_deref())?;
            moved += 1;
        }
    }
    drop(rows);
    empty(tx, old.retry)?;
    Ok(moved)
}

fn empty(tx: &Tx<'_>, stream: i64) -> Result<(), Fault> {
    let range = (position(stream, 0), position(stream + 1, 0));
    tx.conn.execute("DELETE FROM event WHERE pos >= ? AND pos < ?", range)?;
    tx.conn.execute("UPDATE stream SET first_seq = last_seq + 1 WHERE id = ?", [stream])?;
    Ok(())
}

/// Removes a group and all that is its own.
fn remove(tx: &Tx<'_>, old: &Place) -> Result<(), Fault> {
    for table in ["span", "mark", "cursor"] {
        tx.conn.execute(&format!("DELETE FROM {table} WHERE group_id = ?"), [old.id])?;
    }
    // Its number may be another group's one day.
    tx.conn.execute("UPDATE delayed SET owner = NULL WHERE owner = ?", [old.id])?;
    tx.conn.execute("DELETE FROM consumer WHERE id = ?", [old.id])?;
    Ok(())
}
