//! Groups: which streams a handler reads, and where it stands in each.
//!
//! Decides where a group begins on a stream that is new to it: where the handler says, unless the stream appeared while the
//! group was already asking for such streams; then at its first entry, so that nothing published in between is lost.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::fault::Fault;
use super::tx::{RETRY_PREFIX, Tx, position, seq_of};
use crate::bus::selection::{Selection, discovers};
use crate::bus::{Began, Start, Subscription};

/// A group as it stands in the store.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: i64,
    /// Its own stream of retries and replays.
    pub(super) retry: i64,
    /// What it reads, its own stream first.
    pub(super) sources: Vec<Source>,
    /// Newest stream that was looked at.
    pub(super) seen_stream: i64,
}

/// A stream that a group reads.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) id: i64,
    pub(super) name: Arc<str>,
}

/// The name of a group's own stream.
pub(super) fn retry_stream(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

struct Known {
    id: i64,
    selection: Selection,
    seen_stream: i64,
}

/// Opens the group of `subscription`, and creates it and its streams where they are new.
pub(super) fn open(tx: &mut Tx<'_>, subscription: &Subscription) -> Result<(Group, Vec<Began>), Fault> {
    for name in &subscription.streams {
        if name.starts_with(RETRY_PREFIX) {
            return Err(Fault::Refused(format!("stream {name:?} belongs to the host; read another one")));
        }
    }
    let known = known(tx.conn, &subscription.group)?;
    let retry_name = retry_stream(&subscription.group);
    let retry = tx.stream(&retry_name)?;
    for name in &subscription.streams {
        tx.stream(name)?;
    }
    let id = match &known {
        Some(known) => known.id,
        None => create(tx, subscription, retry)?,
    };
    let mut group = Group { id, retry, sources: Vec::new(), seen_stream: 0 };
    ensure_cursor(tx.conn, id, retry, 0)?;
    group.sources.push(Source { id: retry, name: retry_name.into() });
    let began = enter_streams(tx, subscription, &mut group, known.as_ref())?;
    set_unused(tx, &group)?;
    let selection = Selection::of(subscription).text();
    tx.conn.execute(
        "UPDATE consumer SET handler = ?2, selection = ?3, seen_stream = ?4, seen_at = ?5, retry_stream = ?6 WHERE id = ?1",
        (id, &*subscription.handler, selection, group.seen_stream, tx.now, retry),
    )?;
    Ok((group, began))
}

fn known(conn: &Connection, group: &str) -> Result<Option<Known>, Fault> {
    let mut find = conn.prepare_cached("SELECT id, selection, seen_stream FROM consumer WHERE name = ?")?;
    let found = find.query_row([group], |row| {
        let selection: String = row.get(1)?;
        let selection = Selection::read(selection.as_bytes());
        Ok(Known { id: row.get(0)?, selection, seen_stream: row.get(2)? })
    });
    Ok(found.optional()?)
}

/// The number and the own stream of the group called `name`.
pub(super) fn find(conn: &Connection, id: i64) -> Result<Option<(String, i64)>, Fault> {
    let mut find = conn.prepare_cached("SELECT name, retry_stream FROM consumer WHERE id = ?")?;
    Ok(find.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn create(tx: &Tx<'_>, subscription: &Subscription, retry: i64) -> Result<i64, Fault> {
    let mut create = tx.conn.prepare_cached(
        "INSERT INTO consumer(name, handler, retry_stream, selection, seen_stream, seen_at) VALUES(?,?,?,'{}',0,?)",
    )?;
    Ok(create.insert((&*subscription.group, &*subscription.handler, retry, tx.now))?)
}

fn enter_streams(
    tx: &Tx<'_>,
    subscription: &Subscription,
    group: &mut Group,
    known: Option<&Known>,
) -> Result<Vec<Began>, Fault> {
    let mut began = Vec::new();
    group.seen_stream = newest(tx.conn)?;
    for Standing { id, name, first, last } in asked_for(tx.conn, subscription)? {
        let missed = known.is_some_and(|known| id > known.seen_stream && known.selection.selects(&name));
        let position = if missed { first - 1 } else { beginning(tx.conn, subscription.start, id, first, last)? };
        let is_new = ensure_cursor(tx.conn, group.id, id, position)? || missed;
        if is_new && (known.is_none() || last >= first) {
            let (skipped, taken_in) = ((position - first + 1) as u64, (last - position) as u64);
            began.push(Began { stream: name.clone(), skipped, taken_in });
        }
        group.sources.push(Source { id, name: name.into() });
    }
    Ok(began)
}

/// A stream, and the entries that it keeps.
struct Standing {
    id: i64,
    name: String,
    first: i64,
    last: i64,
}

/// The streams that `subscription` reads now, in the order in which they appeared. Whoever names them all pays for those
/// alone, however many there are.
fn asked_for(conn: &Connection, subscription: &Subscription) -> Result<Vec<Standing>, Fault> {
    let read =
        |row: &Row<'_>| Ok(Standing { id: row.get(0)?, name: row.get(1)?, first: row.get(2)?, last: row.get(3)? });
    if !subscription.discover.is_empty() {
        let mut list =
            conn.prepare_cached("SELECT id, name, first_seq, last_seq FROM stream WHERE hidden = 0 ORDER BY id")?;
        let all: Vec<Standing> = list.query_map([], read)?.collect::<Result<_, _>>()?;
        let asked = |name: &String| subscription.streams.contains(name) || discovers(subscription, name);
        return Ok(all.into_iter().filter(|stream| asked(&stream.name)).collect());
    }
    let mut find =
        conn.prepare_cached("SELECT id, name, first_seq, last_seq FROM stream WHERE name = ? AND hidden = 0")?;
    let found = subscription.streams.iter().map(|name| find.query_row([name], read).optional());
    let mut found: Vec<Standing> = found.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    found.sort_by_key(|stream| stream.id);
    found.dedup_by_key(|stream| stream.id);
    Ok(found)
}

/// The newest stream of events; 0: there is none.
fn newest(conn: &Connection) -> Result<i64, Fault> {
    let mut newest = conn.prepare_cached("SELECT id FROM stream WHERE hidden = 0 ORDER BY id DESC LIMIT 1")?;
    Ok(newest.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Looks at streams that appeared since; answers whether there was one to read. They are read from their first entry.
pub(super) fn discover(tx: &Tx<'_>, subscription: &Subscription, group: &mut Group) -> Result<bool, Fault> {
    let mut list =
        tx.conn.prepare_cached("SELECT id, name, first_seq FROM stream WHERE id > ? AND hidden = 0 ORDER BY id")?;
    let new: Vec<(i64, String, i64)> = list
        .query_map([group.seen_stream], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let before = group.sources.len();
    for (id, name, first) in new {
        group.seen_stream = id;
        let reads = discovers(subscription, &name) && group.sources.iter().all(|source| source.id != id);
        if reads {
            ensure_cursor(tx.conn, group.id, id, first - 1)?;
            group.sources.push(Source { id, name: name.into() });
        }
    }
    Ok(group.sources.len() > before)
}

/// A stream appeared: every group that asks for such streams stands at its beginning, so that nothing in it is trimmed
/// before a group that is away has come back. A stream that a group names is made before the group is.
pub(super) fn welcome(conn: &Connection, stream: i64, name: &str) -> Result<(), Fault> {
    let sql = r#"SELECT id, selection FROM consumer WHERE substr(selection, -14) <> '"discover":[]}'"#;
    let mut list = conn.prepare_cached(sql)?;
    let groups: Vec<(i64, String)> =
        list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (group, selection) in groups {
        if Selection::read(selection.as_bytes()).selects(name) {
            ensure_cursor(conn, group, stream, 0)?;
        }
    }
    Ok(())
}

/// True: the cursor is new.
fn ensure_cursor(conn: &Connection, group: i64, stream: i64, position: i64) -> Result<bool, Fault> {
    let mut insert =
        conn.prepare_cached("INSERT OR IGNORE INTO cursor(group_id, stream_id, position, began) VALUES(?1,?2,?3,?3)")?;
    Ok(insert.execute((group, stream, position))? == 1)
}

/// Notes since when the group does not read a stream that it once read.
fn set_unused(tx: &Tx<'_>, group: &Group) -> Result<(), Fault> {
    let mut list = tx.conn.prepare_cached("SELECT stream_id FROM cursor WHERE group_id = ?")?;
    let cursors: Vec<i64> = list.query_map([group.id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for stream in cursors {
        let used = group.sources.iter().any(|source| source.id == stream);
        let sql = "UPDATE cursor SET unused_since = CASE WHEN ?3 THEN NULL ELSE coalesce(unused_since, ?4) END \
                   WHERE group_id = ?1 AND stream_id = ?2";
        tx.conn.prepare_cached(sql)?.execute((group.id, stream, used, tx.now))?;
    }
    Ok(())
}

/// The position after which a new group reads.
fn beginning(conn: &Connection, start: Start, stream: i64, first: i64, last: i64) -> Result<i64, Fault> {
    match start {
        Start::Latest => Ok(last),
        Start::Earliest => Ok(first - 1),
        Start::At(time) => before(conn, stream, first, last, time),
    }
}

/// The last entry stored before `time`: entries lie in the order in which they were stored, so it is found by halving.
fn before(conn: &Connection, stream: i64, first: i64, last: i64, time: i64) -> Result<i64, Fault> {
    let mut find =
        conn.prepare_cached("SELECT pos, stored_at FROM event WHERE pos >= ? AND pos <= ? ORDER BY pos LIMIT 1")?;
    let (mut low, mut high) = (first - 1, last);
    while low < high {
        let middle = low + (high - low) / 2 + 1;
        let found: Option<(i64, i64)> = find
            .query_row((position(stream, middle), position(stream, high)), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((at, stored)) if stored < time => low = seq_of(at),
            _ => high = middle - 1,
        }
    }
    Ok(low)
}
