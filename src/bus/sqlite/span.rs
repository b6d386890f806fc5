//! A claim in the store: a stretch of one stream, who holds it, and which of its entries are done.
//!
//! Owns the layout of the bitmap and every statement that writes a span. Claiming and settling a thousand entries costs one
//! row, not a thousand. Decides nothing about who may hold what.

use rusqlite::{Connection, OptionalExtension, Row};

/// Owner of a span that anybody in its group may take.
pub(super) const FREE: i64 = 0;

const COLUMNS: &str = "id, group_id, stream_id, first, last, done, left, owner, epoch, orphaned";

/// One claim.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) id: i64,
    pub(super) group: i64,
    pub(super) stream: i64,
    pub(super) first: i64,
    pub(super) last: i64,
    done: Vec<u8>,
    /// Entries not done.
    pub(super) left: i64,
    pub(super) owner: i64,
    pub(super) epoch: i64,
    pub(super) orphaned: i64,
}

impl Span {
    /// A claim of all entries from `first` to `last`, not yet stored.
    pub(super) fn new(group: i64, stream: i64, first: i64, last: i64, owner: i64) -> Self {
        let entries = last - first + 1;
        let done = vec![0; (entries as usize).div_ceil(8)];
        Self { id: 0, group, stream, first, last, done, left: entries, owner, epoch: 1, orphaned: 0 }
    }

    pub(super) fn contains(&self, seq: i64) -> bool {
        (self.first..=self.last).contains(&seq)
    }

    /// Whether entry `seq` is done; an entry outside is.
    pub(super) fn is_done(&self, seq: i64) -> bool {
        let bit = (seq - self.first) as usize;
        self.done.get(bit / 8).is_none_or(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Sets entry `seq` done, once.
    pub(super) fn set_done(&mut self, seq: i64) {
        if self.contains(seq) && !self.is_done(seq) {
            let bit = (seq - self.first) as usize;
            if let Some(byte) = self.done.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
            self.left -= 1;
        }
    }

    /// The entries still to do, in order.
    pub(super) fn undone(&self) -> impl Iterator<Item = i64> + '_ {
        (self.first..=self.last).filter(|seq| !self.is_done(*seq))
    }

    /// The part from `first` to `last`, which both lie inside, as a span of its own.
    pub(super) fn part(&self, first: i64, last: i64) -> Span {
        let mut part = Span { id: 0, ..Span::new(self.group, self.stream, first, last, self.owner) };
        (part.epoch, part.orphaned) = (self.epoch, self.orphaned);
        (first..=last).filter(|seq| self.is_done(*seq)).for_each(|seq| part.set_done(seq));
        part
    }

    /// Stores a new span and takes its number.
    pub(super) fn insert(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut insert = conn.prepare_cached(
            "INSERT INTO span(group_id, stream_id, first, last, done, left, owner, epoch, orphaned) \
             VALUES(?,?,?,?,?,?,?,?,?)",
        )?;
        let (a, b) = ((self.group, self.stream, self.first, self.last), (self.left, self.owner));
        self.id = insert.insert((a.0, a.1, a.2, a.3, &self.done[..], b.0, b.1, self.epoch, self.orphaned))?;
        Ok(())
    }

    /// Writes everything that can change.
    pub(super) fn update(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut update = conn.prepare_cached(
            "UPDATE span SET first = ?, last = ?, done = ?, left = ?, owner = ?, epoch = ?, orphaned = ? WHERE id = ?",
        )?;
        let end = (self.owner, self.epoch, self.orphaned, self.id);
        update.execute((self.first, self.last, &self.done[..], self.left, end.0, end.1, end.2, end.3))?;
        Ok(())
    }

    /// Writes only what settling changes.
    pub(super) fn update_done(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut update = conn.prepare_cached("UPDATE span SET done = ?, left = ? WHERE id = ?")?;
        update.execute((&self.done[..], self.left, self.id))?;
        Ok(())
    }

    /// Entry `seq` has ended: what was noted of deaths under it goes.
    pub(super) fn unmark(&self, conn: &Connection, seq: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM mark WHERE group_id = ? AND stream_id = ? AND seq = ?";
        conn.prepare_cached(sql)?.execute((self.group, self.stream, seq))?;
        Ok(())
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            group: row.get(1)?,
            stream: row.get(2)?,
            first: row.get(3)?,
            last: row.get(4)?,
            done: row.get(5)?,
            left: row.get(6)?,
            owner: row.get(7)?,
            epoch: row.get(8)?,
            orphaned: row.get(9)?,
        })
    }
}

/// The span of that number.
pub(super) fn find(conn: &Connection, id: i64) -> rusqlite::Result<Option<Span>> {
    let mut find = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM span WHERE id = ?"))?;
    find.query_row([id], Span::read).optional()
}

/// The spans of a group that are not `me`'s, oldest first.
pub(super) fn others(conn: &Connection, group: i64, me: i64) -> rusqlite::Result<Vec<Span>> {
    let sql = format!("SELECT {COLUMNS} FROM span WHERE group_id = ? AND owner <> ? ORDER BY stream_id, first");
    let mut find = conn.prepare_cached(&sql)?;
    find.query_map((group, me), Span::read)?.collect()
}

/// The spans of a group on one stream, whoever holds them, oldest first.
pub(super) fn on_stream(conn: &Connection, group: i64, stream: i64) -> rusqlite::Result<Vec<Span>> {
    let sql = format!("SELECT {COLUMNS} FROM span WHERE group_id = ? AND stream_id = ? ORDER BY first");
    conn.prepare_cached(&sql)?.query_map((group, stream), Span::read)?.collect()
}

/// Gives the span of that number back, if `owner` still holds it.
pub(super) fn free(conn: &Connection, id: i64, owner: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE span SET owner = 0, epoch = epoch + 1 WHERE id = ? AND owner = ?";
    conn.prepare_cached(sql)?.execute((id, owner))?;
    Ok(())
}

/// Removes the span of that number.
pub(super) fn delete(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM span WHERE id = ?")?.execute([id])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_once_and_survive_a_cut() {
        let mut span = Span::new(1, 1, 100, 119, 7);
        for seq in [100, 105, 119, 105, 99, 120] {
            span.set_done(seq);
        }
        assert_eq!(span.left, 17);
        assert!(span.is_done(105) && !span.is_done(106));
        let part = span.part(104, 110);
        assert_eq!(part.undone().collect::<Vec<_>>(), [104, 106, 107, 108, 109, 110]);
        assert_eq!(part.left, 6);
    }
}
