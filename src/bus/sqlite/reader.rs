//! Connections that only read, so that a read never waits for the writer.
//!
//! A small pool: a reader takes one, or opens one, and puts it back. A connection that failed is dropped.

use std::path::PathBuf;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::fault::Fault;
use super::look::Access;
use super::schema;

/// Idle connections kept.
const IDLE_MAX: usize = 8;

/// The pool.
pub(super) struct Readers {
    path: PathBuf,
    access: Access,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, access: Access) -> Self {
        Self { path, access, idle: Mutex::default() }
    }

    /// Reads on a connection of the pool; all that `work` sees is of one moment.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = self.idle.lock().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => schema::open_reader(&self.path, self.access)?,
        };
        conn.prepare_cached("BEGIN")?.execute([])?;
        let result = work(&conn)?;
        conn.prepare_cached("COMMIT")?.execute([])?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(conn);
        }
        Ok(result)
    }
}
