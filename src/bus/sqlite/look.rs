//! Opening a store only to look at it: nothing is written, so that it works on a full disk, from a read-only folder, and
//! while somebody else holds the write lock.
//!
//! Owns how a file can be read when SQLite cannot put its shared memory beside it.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use super::fault::Fault;
use super::store::Store;
use super::{Options, schema};

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// As everybody does who may write.
    Shared,
    /// As it stands: nobody can write it, or nobody does just now. All that is in the log must be in the file.
    Frozen,
}

/// The store for reading only; `None`: its schema is not that of this version, and has to be brought forward first.
pub(super) fn open(options: &Options, path: &Path) -> Result<Option<Store>, Fault> {
    schema::refuse_no_file(path)?;
    let (conn, access) = connect(path)?;
    schema::refuse_foreign(&conn)?;
    schema::check(&conn, &options.place)?;
    match schema::is_current(&conn)? {
        true => Store::looking(options.clone(), access).map(Some),
        false => Ok(None),
    }
}

fn connect(path: &Path) -> Result<(Connection, Access), Fault> {
    match open_and_read(path, Access::Shared) {
        Err(fault) if !wants_to_write(&fault) => Err(fault),
        Err(_) if log_bytes(path) > 0 => Err(Fault::Unusable(
            "the folder takes no file, and without one the newest events cannot be read from its log; make room or make \
             it writable, or copy the file and its -wal to another folder and look there"
                .into(),
        )),
        Err(_) => Ok((open_and_read(path, Access::Frozen)?, Access::Frozen)),
        Ok(conn) => Ok((conn, Access::Shared)),
    }
}

/// Only a read shows whether the log can be used.
fn open_and_read(path: &Path, access: Access) -> Result<Connection, Fault> {
    let conn = schema::open_reader(path, access)?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    Ok(conn)
}

/// Whether it may have failed because nothing can be written beside the file.
fn wants_to_write(fault: &Fault) -> bool {
    let Fault::Sql(error) = fault else { return false };
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
        )
    )
}

fn log_bytes(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(PathBuf::from(log)).map_or(0, |log| log.len())
}
