//! One piece of work inside the writer's transaction, and what it does to streams.
//!
//! Owns the numbering of streams: sequence numbers are dense and given out only here. Nothing in it outlives its piece of
//! work, so a rollback leaves nothing behind in memory; what others must hear of is collected as [`News`] and told after
//! the commit.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::{group, row};
use crate::bus::Undecodable;
use crate::clock::Millis;
use crate::event::{EntryId, Event};

/// Streams whose names begin so belong to the host: publishing there is refused.
pub(super) const RETRY_PREFIX: &str = "moontide:retry:";
/// Bits of a position that count entries; the rest is the stream.
const SEQ_BITS: u32 = 40;

/// Where entry `seq` of `stream` lies in the table of events.
pub(super) fn position(stream: i64, seq: i64) -> i64 {
    stream << SEQ_BITS | seq
}

/// The entry that lies at `position`, within its stream.
pub(super) fn seq_of(position: i64) -> i64 {
    position & ((1 << SEQ_BITS) - 1)
}

/// The public number of entry `seq`.
pub(super) fn entry_id(seq: i64) -> EntryId {
    EntryId(seq as u64, 0)
}

/// What changed for others.
#[derive(Default)]
pub(super) struct News {
    /// Streams with new entries.
    pub(super) grown: Vec<i64>,
    /// Whether a stream was created.
    pub(super) created: bool,
    /// Groups in which entries became free.
    pub(super) freed: Vec<i64>,
    /// The earliest due time among new delayed work.
    pub(super) due: Option<Millis>,
}

impl News {
    /// Takes up what another piece of work of the same transaction has to tell.
    pub(super) fn merge(&mut self, other: News) {
        self.grown.extend(other.grown);
        self.freed.extend(other.freed);
        self.created |= other.created;
        self.due = self.due.into_iter().chain(other.due).min();
    }
}

#[derive(Clone)]
struct Tail {
    id: i64,
    last: i64,
    grown: bool,
}

/// A piece of work in a transaction.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    /// The store's time of this transaction.
    pub(super) now: Millis,
    /// Our process.
    pub(super) me: i64,
    pub(super) news: News,
    /// Something in the batch failed before: whatever can fail alone has a savepoint now.
    pub(super) apart: bool,
    tails: HashMap<Arc<str>, Tail>,
}

/// Where a partly done piece of work can go back to.
pub(super) struct Mark(HashMap<Arc<str>, Tail>);

impl<'c> Tx<'c> {
    pub(super) fn new(conn: &'c Connection, now: Millis, me: i64, apart: bool) -> Self {
        Self { conn, now, me, news: News::default(), apart, tails: HashMap::new() }
    }

    /// The number of the stream called `name`; creates it where it is missing.
    pub(super) fn stream(&mut self, name: &str) -> Result<i64, Fault> {
        Ok(self.tail(name)?.id)
    }

    /// Appends an event that lies in columns already bound by [`row::bind`]'s rules; `past` as stored.
    pub(super) fn append(&mut self, stream: &str, event: &Event, past: Option<&str>) -> Result<EntryId, Fault> {
        self.append_with(stream, past, |statement| row::bind_event(statement, 2, event))
    }

    /// Appends whatever a delivery held, event or not.
    pub(super) fn append_any(
        &mut self,
        stream: &str,
        event: &Result<Event, Undecodable>,
        past: Option<&str>,
    ) -> Result<EntryId, Fault> {
        self.append_with(stream, past, |statement| row::bind(statement, 2, event))
    }

    fn append_with(
        &mut self,
        stream: &str,
        past: Option<&str>,
        bind: impl FnOnce(&mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<()>,
    ) -> Result<EntryId, Fault> {
        let tail = self.tail(stream)?;
        let (id, seq) = (tail.id, tail.last + 1);
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO event(pos, id, source, type, subject, time, dataschema, correlation_id, causation_id, \
             traceparent, ext, data, stored_at, past) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        )?;
        insert.raw_bind_parameter(1, position(id, seq))?;
        bind(&mut insert)?;
        insert.raw_bind_parameter(2 + row::WIDTH, self.now)?;
        insert.raw_bind_parameter(3 + row::WIDTH, past)?;
        insert.raw_execute()?;
        let tail = self.tail(stream)?;
        (tail.last, tail.grown) = (seq, true);
        Ok(entry_id(seq))
    }

    fn tail(&mut self, name: &str) -> Result<&mut Tail, Fault> {
        if !self.tails.contains_key(name) {
            let tail = self.load(name)?;
            self.tails.insert(Arc::from(name), tail);
        }
        Ok(self.tails.get_mut(name).expect("it was just put there"))
    }

    fn load(&mut self, name: &str) -> Result<Tail, Fault> {
        let mut find = self.conn.prepare_cached("SELECT id, last_seq FROM stream WHERE name = ?")?;
        let found = find.query_row([name], |row| Ok(Tail { id: row.get(0)?, last: row.get(1)?, grown: false }));
        if let Some(tail) = found.optional()? {
            return Ok(tail);
        }
        let hidden = name.starts_with(RETRY_PREFIX);
        let mut create = self.conn.prepare_cached("INSERT INTO stream(name, hidden, created_at) VALUES(?,?,?)")?;
        let id = create.insert((name, hidden, self.now))?;
        self.news.created = true;
        if !hidden {
            group::welcome(self.conn, id, name)?;
        }
        Ok(Tail { id, last: 0, grown: false })
    }

    /// Writes what was only counted in memory so far; the work is complete.
    pub(super) fn finish(mut self) -> Result<News, Fault> {
        for tail in self.tails.values().filter(|tail| tail.grown) {
            let mut grow = self.conn.prepare_cached("UPDATE stream SET last_seq = ?2 WHERE id = ?1")?;
            grow.execute((tail.id, tail.last))?;
            self.news.grown.push(tail.id);
        }
        Ok(self.news)
    }

    /// Opens a savepoint.
    pub(super) fn save(&self) -> Result<Mark, Fault> {
        self.conn.prepare_cached("SAVEPOINT part")?.execute([])?;
        Ok(Mark(self.tails.clone()))
    }

    /// Keeps what was done since the savepoint.
    pub(super) fn keep(&self) -> Result<(), Fault> {
        self.conn.prepare_cached("RELEASE part")?.execute([])?;
        Ok(())
    }

    /// Undoes everything since the savepoint.
    pub(super) fn undo(&mut self, mark: Mark) -> Result<(), Fault> {
        self.conn.execute_batch("ROLLBACK TO part; RELEASE part")?;
        self.tails = mark.0;
        Ok(())
    }
}
