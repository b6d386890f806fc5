//! Opens the file: who it belongs to, which version it has, and what every connection is set to.
//!
//! Owns the list of migrations. A file that is not ours, newer than we are or damaged is refused before anything is written.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::fault::Fault;
use super::{Place, Synchronous};

/// Each brings the schema from its index to the next version.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("schema-4.sql")];
/// `PRAGMA application_id`: "moon".
const APPLICATION: i64 = 0x6d6f_6f6e;
/// Files up to this size are checked as a whole when opened; larger ones where SQLite reads them.
const CHECKED_BYTES_MAX: u64 = 64 << 20;
/// How long a program outside (a SQL shell) may hold the write lock before we call the store away.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The log is moved into the file when it has this many pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 8192;
const CACHED_STATEMENTS: usize = 96;

/// The connection that writes. A file that is not ours is refused; nothing is written yet.
pub(super) fn open_writer(place: &Place) -> Result<Connection, Fault> {
    let conn = match place {
        Place::Memory => Connection::open_in_memory()?,
        Place::File(path) => open_file(path)?,
    };
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    refuse_foreign(&conn)?;
    Ok(conn)
}

/// Makes the writer's connection ready; creates or migrates the schema. Only one process at a time may do this.
pub(super) fn prepare(conn: &mut Connection, place: &Place, synchronous: Synchronous) -> Result<(), Fault> {
    refuse_foreign(conn)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", synchronous.pragma())?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "cache_size", -65_536)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", CHECKPOINT_PAGES * 4096 * 2)?;
    check(conn, place)?;
    migrate(conn)
}

/// A connection that can only read.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Fault> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn open_file(path: &Path) -> Result<Connection, Fault> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(Fault::Unusable("it is a folder; name a file in it".into())),
        Ok(found) if found.permissions().readonly() => {
            return Err(Fault::Unusable("the file is read-only; make it and its folder writable".into()));
        }
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

fn refuse_foreign(conn: &Connection) -> Result<(), Fault> {
    // Of one moment: another process may be creating the schema just now.
    let moment = conn.unchecked_transaction()?;
    let (application, version) = (pragma(conn, "application_id")?, pragma(conn, "user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    moment.commit()?;
    let empty = application == 0 && version == 0 && tables == 0;
    if application != APPLICATION && !empty {
        return Err(Fault::Unusable("it is another program's database; name another file".into()));
    }
    if version > MIGRATIONS.len() as i64 {
        return Err(Fault::Unusable(format!(
            "its format is {version}, and this version of moontide knows formats up to {}; use a newer moontide",
            MIGRATIONS.len()
        )));
    }
    Ok(())
}

fn check(conn: &Connection, place: &Place) -> Result<(), Fault> {
    let Place::File(path) = place else { return Ok(()) };
    if std::fs::metadata(path)?.len() > CHECKED_BYTES_MAX {
        return Ok(());
    }
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        damage => Err(Fault::Unusable(format!(
            "it is damaged ({damage}); restore a backup, or save what is readable with `sqlite3 FILE .recover`"
        ))),
    }
}

fn migrate(conn: &mut Connection) -> Result<(), Fault> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = usize::try_from(pragma(&tx, "user_version")?).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(version) {
        tx.execute_batch(migration)?;
    }
    if version < MIGRATIONS.len() {
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    }
    Ok(tx.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_wrong_file_is_refused_with_a_cure() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("shop.db");
        let place = Place::File(path.clone());
        let open = || {
            let mut conn = open_writer(&place).map_err(|fault| fault.to_string())?;
            prepare(&mut conn, &place, Synchronous::Normal).map_err(|fault| fault.to_string())
        };
        open().expect("a new file is created");
        open().expect("and opened again");
        let conn = Connection::open(&path).expect("the file opens");
        conn.pragma_update(None, "user_version", 99).expect("the version is written");
        let error = open().expect_err("a newer format is refused");
        assert!(error.contains("99") && error.contains("newer moontide"), "{error}");
        conn.pragma_update(None, "user_version", 1).expect("the version is written");
        conn.pragma_update(None, "application_id", 7).expect("the id is written");
        let error = open().expect_err("another program's file is refused");
        assert!(error.contains("another program"), "{error}");
    }
}
