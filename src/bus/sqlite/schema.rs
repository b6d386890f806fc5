//! Opens the file: who it belongs to, which version it has, and what every connection is set to.
//!
//! Owns the list of migrations. A file that is not ours, newer than we are or damaged is refused before anything is written.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::fault::Fault;
use super::look::Access;
use super::{Place, Synchronous};

/// Each brings the schema from its index to the next version.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
    include_str!("schema-7.sql"),
];
/// `PRAGMA application_id`: "moon".
const APPLICATION: i64 = 0x6d6f_6f6e;
/// Files up to this size are checked as a whole when opened; larger ones where SQLite reads them.
const CHECKED_BYTES_MAX: u64 = 64 << 20;
/// How long a program outside (a SQL shell) may hold the write lock before we call the store away, unless somebody says
/// otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The log is moved into the file when it has this many pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 8192;
const CACHED_STATEMENTS: usize = 96;
/// What the writer keeps of the file: resident memory grows to it as the file grows, and stays.
const CACHE_KIB: i64 = 65_536;

/// The connection that writes. A file that is not ours is refused; nothing is written yet.
pub(super) fn open_writer(place: &Place, patience: Duration) -> Result<Connection, Fault> {
    let conn = match place {
        Place::Memory => Connection::open_in_memory()?,
        Place::File(path) => open_file(path)?,
    };
    conn.busy_timeout(patience)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    refuse_foreign(&conn)?;
    Ok(conn)
}

/// Makes the writer's connection ready; creates or migrates the schema. Only one process at a time may do this.
pub(super) fn prepare(conn: &mut Connection, synchronous: Synchronous) -> Result<(), Fault> {
    refuse_foreign(conn)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", synchronous.pragma())?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", CHECKPOINT_PAGES * 4096 * 2)?;
    migrate(conn, MIGRATIONS)
}

/// A connection that can only read.
pub(super) fn open_reader(path: &Path, access: Access) -> Result<Connection, Fault> {
    let conn = match access {
        Access::Shared => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(path, flags)?
        }
        Access::Frozen => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let path = percent_encode(path.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC);
            Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?
        }
    };
    conn.busy_timeout(PATIENCE)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn open_file(path: &Path) -> Result<Connection, Fault> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                Fault::Unusable(format!("{} is no folder; move it away, or name another file", folder.display()))
            }
            _ => error.into(),
        })?;
    }
    refuse_no_file(path)?;
    refuse_lost_file(path)?;
    if std::fs::metadata(path).is_ok_and(|found| found.permissions().readonly()) {
        return Err(Fault::Unusable("the file is read-only; make it and its folder writable".into()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

pub(super) fn refuse_no_file(path: &Path) -> Result<(), Fault> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Fault::Unusable("it is a folder; name a file in it".into())),
        Ok(found) if !found.is_file() => Err(Fault::Unusable("it is no regular file; name another".into())),
        _ => Ok(()),
    }
}

/// Where the file is away and its log is not, SQLite would make a new file and remove the log, with all that was committed
/// there.
fn refuse_lost_file(path: &Path) -> Result<(), Fault> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    // The log first: a store that is being made just now has a file before it has a log.
    if length(log.as_ref()) > 0 && length(path) == 0 {
        let log = log.display();
        return Err(Fault::Unusable(format!(
            "the file is gone, and its log {log} is not; put the file back, or move the log away"
        )));
    }
    Ok(())
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

/// Whether the schema is that of this version.
pub(super) fn is_current(conn: &Connection) -> Result<bool, Fault> {
    Ok(pragma(conn, "user_version")? == MIGRATIONS.len() as i64)
}

pub(super) fn refuse_foreign(conn: &Connection) -> Result<(), Fault> {
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

/// Refuses a damaged file. Only reads, but all of it: nobody should have to wait for his turn meanwhile.
pub(super) fn check(conn: &Connection, place: &Place) -> Result<(), Fault> {
    let Place::File(path) = place else { return Ok(()) };
    if std::fs::metadata(path)?.len() > CHECKED_BYTES_MAX {
        return Ok(());
    }
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        damage => Err(Fault::Unusable(format!(
            "it is damaged ({}); restore a backup, or save what is readable with `sqlite3 FILE .recover`",
            damage.replace('\n', " ")
        ))),
    }
}

/// Does what is missing of `migrations`, all of it or nothing.
fn migrate(conn: &mut Connection, migrations: &[&str]) -> Result<(), Fault> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = usize::try_from(pragma(&tx, "user_version")?).unwrap_or(0);
    for migration in migrations.iter().skip(version) {
        tx.execute_batch(migration)?;
    }
    if version < migrations.len() {
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", migrations.len() as i64)?;
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
            let mut conn = open_writer(&place, PATIENCE).map_err(|fault| fault.to_string())?;
            prepare(&mut conn, Synchronous::Normal).map_err(|fault| fault.to_string())
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

    #[test]
    fn a_log_whose_file_is_away_is_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, away) = (folder.path().join("shop.db"), folder.path().join("away.db"));
        let place = Place::File(path.clone());
        let mut conn = open_writer(&place, PATIENCE).expect("a new file is created");
        prepare(&mut conn, Synchronous::Normal).expect("the schema is written");
        std::fs::rename(&path, &away).expect("it is there");
        let error = open_writer(&place, PATIENCE).expect_err("its file is away").to_string();
        assert!(error.contains("shop.db-wal") && error.contains("put the file back"), "{error}");
        std::fs::rename(&away, &path).expect("it is there");
        let conn = open_writer(&place, PATIENCE).expect("it is back");
        assert_eq!(pragma(&conn, "user_version").ok(), Some(MIGRATIONS.len() as i64), "with what is in its log");
    }

    #[test]
    fn a_lock_of_others_is_waited_for_as_long_as_was_said() {
        for patience in [20, 70_000] {
            let conn = open_writer(&Place::Memory, Duration::from_millis(patience)).expect("memory opens");
            assert_eq!(pragma(&conn, "busy_timeout").expect("it is readable"), patience as i64);
        }
    }

    #[test]
    fn an_older_schema_is_brought_forward_step_by_step_and_as_a_whole() {
        let first = "CREATE TABLE shelf(name TEXT); INSERT INTO shelf VALUES('kept')";
        let second = "ALTER TABLE shelf ADD COLUMN height INTEGER; UPDATE shelf SET height = 7";
        let third = "ALTER TABLE shelf RENAME COLUMN height TO depth";
        let broken = "INSERT INTO shelf VALUES('half', 1); INSERT INTO nowhere VALUES(1)";
        let mut conn = Connection::open_in_memory().expect("memory opens");
        let version = |conn: &Connection| pragma(conn, "user_version").expect("it is readable");
        let shelf = |conn: &Connection, column: &str| -> Vec<(String, i64)> {
            let mut rows = conn.prepare(&format!("SELECT name, {column} FROM shelf")).expect("the column is there");
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows are readable");
            rows.collect::<Result<_, _>>().expect("rows are readable")
        };
        migrate(&mut conn, &[first]).expect("a new file");
        assert_eq!((version(&conn), pragma(&conn, "application_id").expect("it is readable")), (1, APPLICATION));
        migrate(&mut conn, &[first, second, broken]).expect_err("the third step fails");
        assert_eq!(version(&conn), 1, "all steps or none");
        conn.prepare("SELECT height FROM shelf").expect_err("the second step went with the third");
        migrate(&mut conn, &[first, second, third]).expect("two steps at once");
        migrate(&mut conn, &[first, second, third]).expect("and never again");
        assert_eq!((version(&conn), shelf(&conn, "depth")), (3, vec![("kept".to_owned(), 7)]));
    }

    #[test]
    fn a_file_of_the_first_version_keeps_what_it_holds() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = Place::File(folder.path().join("shop.db"));
        let mut conn = open_writer(&place, PATIENCE).expect("the file opens");
        conn.execute_batch(MIGRATIONS[0]).expect("the first version is SQL");
        conn.execute_batch(
            "INSERT INTO record(key, stream_id, seq, attempt, expires) VALUES(x'01', 1, 7, 1, 9);
             INSERT INTO dead_letter(group_id, handler, version, reason, stream, seq, attempts, failed_at, failures)
                VALUES(1, 'h', 'v', 'rejected', 'orders', 7, 1, 0, '[]');",
        )
        .expect("rows are written");
        conn.pragma_update(None, "application_id", APPLICATION).expect("the id is written");
        conn.pragma_update(None, "user_version", 1).expect("the version is written");
        prepare(&mut conn, Synchronous::Normal).expect("it is migrated");
        assert_eq!(pragma(&conn, "user_version").ok(), Some(MIGRATIONS.len() as i64));
        let text = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).expect("it is readable");
        assert_eq!(text("SELECT entry FROM dead_letters"), "orders/7-0");
        assert_eq!(text("SELECT seq || '-' || sub FROM record"), "7-0");
    }
}
