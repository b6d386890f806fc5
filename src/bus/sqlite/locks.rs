//! Locks between processes that share one file: whose turn it is to write, and who is alive.
//!
//! SQLite's own busy handler is unfair (single waits of a second between two equals), so writers queue at two file locks:
//! whoever holds the gate waits for the turn, everybody else waits at the gate. A process that lives holds a lock of its
//! own; the kernel drops it when the process dies, however that happens. The queue is for fairness only, and SQLite's own lock
//! for safety: a process that is stopped (SIGSTOP, a debugger) while it queues does not hold up the others for long.

use std::cell::Cell;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock that another process holds is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// After this long its holder is taken for stopped, and the lock is passed by.
const HELD_MAX: Duration = Duration::from_millis(500);

/// The right to write, taken in turn.
pub(super) struct Turns {
    gate: Queue,
    write: Queue,
}

/// A turn; ends when it is dropped.
pub(super) struct Turn<'a>(Option<&'a File>);

/// One of the two locks.
struct Queue {
    file: File,
    /// Its holder seems stopped: it is not waited for again until it has let go.
    stuck: Cell<bool>,
}

impl Queue {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: lock_file(path)?, stuck: Cell::new(false) })
    }

    /// Takes the lock, or passes it by.
    fn take(&self) -> io::Result<Turn<'_>> {
        let began = Instant::now();
        loop {
            match self.file.try_lock() {
                Ok(()) => {
                    self.stuck.set(false);
                    return Ok(Turn(Some(&self.file)));
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if self.stuck.get() || began.elapsed() >= HELD_MAX => {
                    self.stuck.set(true);
                    return Ok(Turn(None));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }
}

impl Turns {
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        Ok(Self { gate: Queue::open(&beside(database, "gate"))?, write: Queue::open(&beside(database, "write"))? })
    }

    /// Waits for our turn.
    pub(super) fn take(&self) -> io::Result<Turn<'_>> {
        let _gate = self.gate.take()?;
        self.write.take()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.map(File::unlock) {
            tracing::warn!(%error, "could not give up the turn to write");
        }
    }
}

/// Proof that a process lives.
pub(super) struct Alive {
    path: PathBuf,
    _held: File,
}

impl Alive {
    /// Shows that process `id` lives, until it is dropped.
    pub(super) fn show(database: &Path, id: i64) -> io::Result<Self> {
        let path = alive_path(database, id);
        let held = lock_file(&path)?;
        held.lock()?;
        Ok(Self { path, _held: held })
    }

    /// Removes the file of a process that ends in order.
    pub(super) fn remove(self) {
        forget(&self.path);
    }
}

/// Whether process `id` is certainly dead: its lock is free. False says nothing: it may also be stopped.
pub(super) fn is_dead(database: &Path, id: i64) -> bool {
    match File::open(alive_path(database, id)) {
        Ok(file) => !matches!(file.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
        Err(_) => false,
    }
}

/// Whether process `id` is certainly alive, if only stopped: its lock is held.
pub(super) fn is_alive(database: &Path, id: i64) -> bool {
    File::open(alive_path(database, id)).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Removes what a dead process left beside the file.
pub(super) fn bury(database: &Path, id: i64) {
    forget(&alive_path(database, id));
}

fn forget(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, path = %path.display(), "could not remove a lock file");
    }
}

fn alive_path(database: &Path, id: i64) -> PathBuf {
    beside(database, &format!("alive-{id}"))
}

fn beside(database: &Path, what: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-");
    name.push(what);
    PathBuf::from(name)
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}
