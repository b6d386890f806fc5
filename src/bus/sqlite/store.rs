//! What the parts of one open store share: the way to the writer, the doors of its inboxes, and what time it is.
//!
//! Owns how work reaches the writer and how news reach the inboxes. Holds no event and decides nothing about any.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::Options;
use super::fault::Fault;
use super::inbox::Door;
use super::locks::Alive;
use super::look::Access;
use super::lost::Lost;
use super::process::Peers;
use super::reader::Readers;
use super::tx::{News, Tx};
use super::writer::{Call, Message};
use crate::bus::BusError;
use crate::clock::Millis;

/// The number of no process: SQLite counts from 1.
const NOBODY: i64 = 0;

/// An open store.
pub(super) struct Store {
    pub(super) options: Options,
    pub(super) peers: Peers,
    pub(super) alive: Mutex<Option<Alive>>,
    pub(super) lost: Lost,
    name: String,
    identity: Option<Identity>,
    me: i64,
    /// The way to the writer; `None`: the store is only looked at.
    queue: Option<Sender<Message>>,
    access: Access,
    stopped: AtomicBool,
    readers: Option<Readers>,
    doors: Mutex<Vec<Weak<Door>>>,
    next_due: AtomicI64,
    unwritable: Mutex<Option<BusError>>,
}

/// Tells a file from another one that later has its name.
#[derive(PartialEq)]
struct Identity(u64, u64);

impl Identity {
    fn of(path: &PathBuf) -> std::io::Result<Self> {
        let found = std::fs::metadata(path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Ok(Self(found.dev(), found.ino()))
        }
        #[cfg(not(unix))]
        {
            let _ = found;
            Ok(Self(0, 0))
        }
    }
}

impl Store {
    pub(super) fn new(options: Options, me: i64, alive: Option<Alive>, queue: Sender<Message>) -> Result<Self, Fault> {
        Self::with(options, me, alive, Some(queue), Access::Shared)
    }

    /// One that has no writer and is no process.
    pub(super) fn looking(options: Options, access: Access) -> Result<Self, Fault> {
        Self::with(options, NOBODY, None, None, access)
    }

    fn with(
        options: Options,
        me: i64,
        alive: Option<Alive>,
        queue: Option<Sender<Message>>,
        access: Access,
    ) -> Result<Self, Fault> {
        let identity = options.place.path().map(Identity::of).transpose()?;
        let readers = options.place.path().map(|path| Readers::new(path.clone(), access));
        Ok(Self {
            name: options.place.to_string(),
            peers: Peers::default(),
            alive: Mutex::new(alive),
            lost: Lost::default(),
            identity,
            me,
            queue,
            access,
            stopped: AtomicBool::new(false),
            readers,
            doors: Mutex::default(),
            next_due: AtomicI64::new(Millis::MIN),
            unwritable: Mutex::default(),
            options,
        })
    }

    /// How the file is read.
    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// What messages call the store.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The number of our process.
    pub(super) fn me(&self) -> i64 {
        self.me
    }

    /// The store's time.
    pub(super) fn now(&self) -> Millis {
        self.options.clock.now()
    }

    /// The database file, if there is one.
    pub(super) fn path(&self) -> Option<&PathBuf> {
        self.options.place.path()
    }

    /// Fails if the file is no longer the one that was opened: what is written to it would be lost.
    pub(super) fn check_file(&self) -> Result<(), Fault> {
        let (Some(identity), Some(path)) = (&self.identity, self.path()) else { return Ok(()) };
        let is_there = Identity::of(path).is_ok_and(|found| found == *identity);
        self.lost.saw_file(is_there, self.options.recovery_time);
        match is_there {
            true => Ok(()),
            false => {
                Err(Fault::Unusable("the file was deleted or replaced; stop, put it back, and start again".into()))
            }
        }
    }

    /// Hands work to the writer; `done` learns its result on the writer's thread, unless the store is stopped before.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx<'_>) -> Result<T, Fault> + Send + 'static,
        done: impl FnOnce(Result<T, BusError>) + Send + 'static,
    ) -> Result<(), BusError> {
        if self.is_stopped() {
            return Err(BusError::Closed);
        }
        let Some(queue) = &self.queue else {
            let cause = "it was opened for reading only".into();
            return Err(BusError::Unusable { store: self.name.clone(), cause });
        };
        let job = Box::new(Call { work, result: None, done });
        queue.send(Message::Do(job)).map_err(|_| BusError::Closed)
    }

    /// Hands work to the writer and waits for its result.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, BusError> {
        let (reply, result) = oneshot::channel();
        // A caller that no longer waits has dropped its end.
        self.submit(work, move |end| drop(reply.send(end)))?;
        result.await.unwrap_or(Err(BusError::Closed))
    }

    /// Reads: at once on a connection of its own, or through the writer where the store lies in memory.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&Connection, Millis) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, BusError> {
        if self.is_stopped() {
            return Err(BusError::Closed);
        }
        match &self.readers {
            Some(readers) => {
                let now = self.now();
                readers.with(|conn| work(conn, now)).map_err(|fault| fault.told(&self.name))
            }
            None => self.call(move |tx| work(tx.conn, tx.now)).await,
        }
    }

    /// Why the last write failed, if only another write can tell whether it still would: no room, or a failing disk. The
    /// heartbeat is one, every so often.
    pub(super) fn unwritable(&self) -> Option<BusError> {
        self.unwritable.lock().clone()
    }

    /// Something was written, or could not be.
    pub(super) fn wrote(&self, end: Option<&Fault>) {
        *self.unwritable.lock() = end.map(|fault| fault.told(&self.name));
    }

    /// Makes a door known, so that news reach it.
    pub(super) fn add_door(&self, door: &Arc<Door>) {
        let mut doors = self.doors.lock();
        doors.retain(|door| door.strong_count() > 0);
        doors.push(Arc::downgrade(door));
    }

    fn doors(&self) -> Vec<Arc<Door>> {
        self.doors.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The groups that are open here.
    pub(super) fn groups(&self) -> Vec<i64> {
        self.doors().iter().map(|door| door.group()).collect()
    }

    /// Wakes those whom news concern.
    pub(super) fn ring(&self, news: &News) {
        if let Some(due) = news.due {
            self.next_due.fetch_min(due, Ordering::AcqRel);
        }
        if news.created || !news.grown.is_empty() || !news.freed.is_empty() {
            self.doors().iter().for_each(|door| door.ring(news));
        }
    }

    /// Somebody died: all doors look for what it left.
    pub(super) fn ring_death(&self) {
        self.doors().iter().for_each(|door| door.ring_left());
    }

    /// Whether delayed work is due.
    pub(super) fn is_due(&self) -> bool {
        self.next_due.load(Ordering::Acquire) <= self.now()
    }

    /// Notes when delayed work is due next, before anything else can be known of it.
    pub(super) fn forget_due(&self) {
        self.next_due.store(Millis::MAX, Ordering::Release);
    }

    /// Notes that delayed work is due at `at`, or before.
    pub(super) fn due_at(&self, at: Millis) {
        self.next_due.fetch_min(at, Ordering::AcqRel);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Stops the writer; what waits is answered with [`BusError::Closed`].
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // A writer that is gone has no need to be told.
        drop(self.queue.as_ref().map(|queue| queue.send(Message::Stop)));
    }

    /// The writer is gone: nobody may wait for it.
    pub(super) fn closed(&self) {
        self.stopped.store(true, Ordering::Release);
        self.alive.lock().take();
        self.doors().iter().for_each(|door| door.wake());
    }
}
