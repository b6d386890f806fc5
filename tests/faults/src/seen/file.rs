//! Looks at a file.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use serde_json::Value;

use super::{Copy, Seen, Standing, Unit};

const ENTRIES: &str = "
    SELECT s.hidden, coalesce(c.name, substr(s.name, 8)), coalesce(e.data, ''), e.pos & 0xffffffffff, coalesce(k.position, 0), p.first, p.done
    FROM event e
    JOIN stream s ON s.id = e.pos >> 40
    LEFT JOIN consumer c ON c.retry_stream = s.id OR 'events:' || c.name = s.name
    LEFT JOIN cursor k ON k.group_id = c.id AND k.stream_id = s.id
    LEFT JOIN span p ON p.group_id = c.id AND p.stream_id = s.id AND e.pos & 0xffffffffff BETWEEN p.first AND p.last";
const LATER: &str = "
    SELECT s.hidden, coalesce(c.name, substr(s.name, 8)), coalesce(d.data, '')
    FROM delayed d
    JOIN stream s ON s.id = d.stream_id
    LEFT JOIN consumer c ON c.retry_stream = s.id OR 'events:' || c.name = s.name";

/// What the file holds that `file` is connected to.
///
/// # Errors
/// Where it cannot be read.
pub fn look(file: &Connection) -> rusqlite::Result<Seen> {
    let moment = file.unchecked_transaction()?;
    let mut seen = Seen { state: pairs(&moment)?, ..Seen::default() };
    seen.records = count(&moment, "SELECT count(*) FROM record")?;
    seen.copies = rows(&moment, ENTRIES, |row| copy(row, standing(row)?))?;
    seen.copies.extend(rows(&moment, LATER, |row| copy(row, Standing::Later))?);
    let dead = "SELECT c.name, coalesce(d.data, '') FROM dead_letter d JOIN consumer c ON c.id = d.group_id";
    seen.dead = rows(&moment, dead, |row| Ok(Unit::of(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?)))?;
    let lost = rows(&moment, "SELECT name, lost FROM consumer", |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    seen.lost = lost.into_iter().map(|(name, lost)| (name, lost.unsigned_abs())).collect();
    Ok(seen)
}

fn pairs(file: &Connection) -> rusqlite::Result<BTreeMap<String, Value>> {
    let value = |text: String| serde_json::from_str(&text).unwrap_or_default();
    let found = rows(file, "SELECT key, value FROM kv", |row| Ok((row.get(0)?, value(row.get(1)?))))?;
    Ok(found.into_iter().collect())
}

fn count(file: &Connection, sql: &str) -> rusqlite::Result<u64> {
    file.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

fn rows<T>(
    file: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    file.prepare(sql)?.query_map([], read)?.collect()
}

fn copy(row: &Row<'_>, standing: Standing) -> rusqlite::Result<Copy> {
    let (retry, group, data): (bool, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Copy { unit: Unit::of(&group, &data), retry, standing })
}

fn standing(row: &Row<'_>) -> rusqlite::Result<Standing> {
    let (seq, position): (i64, i64) = (row.get(3)?, row.get(4)?);
    let (first, done): (Option<i64>, Option<Vec<u8>>) = (row.get(5)?, row.get(6)?);
    let bit = usize::try_from(seq - first.unwrap_or(seq)).unwrap_or(0);
    let is_done = done.is_none_or(|done| done.get(bit / 8).is_none_or(|byte| byte & (1 << (bit % 8)) != 0));
    Ok(match (seq > position, is_done) {
        (_, false) => Standing::Pending,
        (true, true) => Standing::Unread,
        (false, true) => Standing::Settled,
    })
}
