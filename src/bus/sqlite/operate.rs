//! What operators ask of the store: groups in detail, who is alive, how large it is, a copy.
//!
//! Owns who counts as living for an operator: whoever holds its lock, or served a group within the recovery time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::look::Access;
use super::store::Store;
use super::tx::entry_id;
use super::{SqliteStore, handover, locks, overview, schema};
use crate::bus::{BusError, GroupDetail, GroupPosition, GroupStatus, Groups, Housekeeping, Moved, Process};
use crate::clock::Millis;

#[async_trait]
impl Groups for SqliteStore {
    async fn all(&self) -> Result<Vec<GroupDetail>, BusError> {
        let store = self.store.clone();
        self.store.read(move |conn, now| details(conn, &store, now)).await
    }

    async fn hand_over(&self, from: &str, to: &str) -> Result<Moved, BusError> {
        let (from, to, store) = (from.to_owned(), to.to_owned(), self.store.clone());
        let work = move |tx: &mut super::tx::Tx<'_>| {
            [&from, &to].into_iter().try_for_each(|group| refuse_living(tx.conn, &store, group, tx.now))?;
            handover::hand_over(tx, &from, &to)
        };
        self.store.call(work).await
    }

    async fn forget(&self, group: &str) -> Result<bool, BusError> {
        let (group, store) = (group.to_owned(), self.store.clone());
        let work = move |tx: &mut super::tx::Tx<'_>| {
            refuse_living(tx.conn, &store, &group, tx.now)?;
            handover::forget(tx, &group)
        };
        self.store.call(work).await
    }
}

fn details(conn: &Connection, store: &Store, now: Millis) -> Result<Vec<GroupDetail>, Fault> {
    let mut find = conn.prepare_cached("SELECT id, lost, seen_at FROM consumer WHERE name = ?")?;
    let detail = |status: GroupStatus| -> Result<GroupDetail, Fault> {
        let (id, lost, seen_at): (i64, i64, Millis) =
            find.query_row([&status.group], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(GroupDetail {
            positions: positions(conn, id)?,
            live: is_living(conn, store, id, seen_at, now)?,
            group: status.group,
            handler: status.handler,
            lag: status.lag,
            in_flight: status.in_flight,
            delayed: status.delayed,
            dead: status.dead,
            lost: u64::try_from(lost).unwrap_or(0),
            foreign_consumers: 0,
            foreign_pending: 0,
            seen_at,
        })
    };
    overview::groups(conn)?.into_iter().map(detail).collect()
}

fn positions(conn: &Connection, group: i64) -> Result<Vec<GroupPosition>, Fault> {
    let mut list = conn.prepare_cached(
        "SELECT s.name, c.position, s.last_seq - max(c.position, s.first_seq - 1) FROM cursor c \
         JOIN stream s ON s.id = c.stream_id WHERE c.group_id = ? AND s.hidden = 0 ORDER BY s.name",
    )?;
    let positions = list.query_map([group], |row| {
        let lag: i64 = row.get(2)?;
        let lag = u64::try_from(lag).unwrap_or(0);
        Ok(GroupPosition { stream: row.get(0)?, position: entry_id(row.get(1)?), lag })
    })?;
    Ok(positions.collect::<Result<_, _>>()?)
}

fn refuse_living(conn: &Connection, store: &Store, group: &str, now: Millis) -> Result<(), Fault> {
    let mut find = conn.prepare_cached("SELECT id, seen_at FROM consumer WHERE name = ?")?;
    let found: Option<(i64, Millis)> = find.query_row([group], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((id, seen_at)) = found else { return Ok(()) };
    if !is_living(conn, store, id, seen_at, now)? {
        return Ok(());
    }
    let seconds = store.options.recovery_time.as_secs_f64();
    Err(Fault::Refused(format!(
        "group {group} is being served, or was until a moment ago; stop its host (or take its file away and wait {seconds} s) \
         and try again"
    )))
}

/// Whether some process serves the group now, or did within the recovery time and lives.
fn is_living(conn: &Connection, store: &Store, id: i64, seen_at: Millis, now: Millis) -> Result<bool, Fault> {
    if store.groups().contains(&id) {
        return Ok(true);
    }
    let recovery = i64::try_from(store.options.recovery_time.as_millis()).unwrap_or(i64::MAX);
    Ok(now.saturating_sub(seen_at) < recovery && !living(conn, store)?.is_empty())
}

/// Processes that hold their locks, without ours; oldest first.
fn living(conn: &Connection, store: &Store) -> Result<Vec<Process>, Fault> {
    let Some(path) = store.path() else { return Ok(Vec::new()) };
    let mut list = conn.prepare_cached("SELECT id, name, started_at FROM process WHERE id <> ? ORDER BY id")?;
    let mut living = Vec::new();
    let mut rows = list.query([store.me()])?;
    while let Some(row) = rows.next()? {
        if locks::is_alive(path, row.get(0)?) {
            living.push(Process { instance: row.get(1)?, started_at: row.get(2)? });
        }
    }
    Ok(living)
}

#[async_trait]
impl Housekeeping for SqliteStore {
    async fn processes(&self) -> Result<Vec<Process>, BusError> {
        let store = self.store.clone();
        self.store.read(move |conn, _| living(conn, &store)).await
    }

    async fn size_bytes(&self) -> Result<u64, BusError> {
        let path = self.store.path().cloned();
        self.store.read(move |conn, _| size(conn, path.as_deref())).await
    }

    async fn backup(&self, to: &Path) -> Result<(), BusError> {
        let access = self.store.access();
        let Some(path) = self.store.path().cloned() else {
            return Err(BusError::Refused("a store in memory cannot be copied; run with --bus sqlite:PATH".into()));
        };
        let (to, name) = (to.to_owned(), self.store.name().to_owned());
        let copied = tokio::task::spawn_blocking(move || copy(&path, access, &to)).await;
        copied.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(|fault| fault.told(&name))
    }
}

/// The file and its log, or the pages in memory.
fn size(conn: &Connection, path: Option<&Path>) -> Result<u64, Fault> {
    let Some(path) = path else {
        let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        return Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)?);
    };
    let log = with_ending(path, "-wal");
    Ok(fs::metadata(path)?.len() + fs::metadata(log).map_or(0, |log| log.len()))
}

/// Copies the database of one moment to a new file, which has its name only when it is whole.
fn copy(from: &Path, access: Access, to: &Path) -> Result<(), Fault> {
    let exists = || Fault::Refused(format!("{} exists already; name another file", to.display()));
    if to.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let partial = with_ending(to, ".partial");
    let refused = |error: &dyn std::fmt::Display| Fault::Refused(format!("cannot write {}: {error}", to.display()));
    let text = partial.to_str().ok_or_else(|| refused(&"its name is not UTF-8"))?;
    File::create(&partial).map_err(|error| refused(&error))?;
    let conn = schema::open_reader(from, access)?;
    // It only reads the store, and that it writes another file counts as writing.
    conn.pragma_update(None, "query_only", false)?;
    let copied = conn.execute("VACUUM INTO ?", [text]).map_err(|error| refused(&error)).and_then(|_| {
        File::open(&partial).and_then(|file| file.sync_all()).map_err(|error| refused(&error))?;
        // Unlike a rename it does not replace what came in the meantime.
        fs::hard_link(&partial, to).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(),
            _ => refused(&error),
        })
    });
    let removed = fs::remove_file(&partial).map_err(|error| refused(&error));
    copied.and(removed)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
