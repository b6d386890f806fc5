//! The one thread that looks around: other processes' commits, due work, the dead, and upkeep.
//!
//! Polls a counter of SQLite's that costs no transaction; only when it moved does it look which streams grew, and wakes only
//! whom that concerns. Writes nothing itself: what it finds to do goes to the writer like any other work.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::fault::Fault;
use super::retention::Memory;
use super::store::Store;
use super::tx::News;
use super::{due, locks, process, retention};
use crate::clock::Millis;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(10);
/// How long, at most, until it notices that a process died.
const WATCH_EVERY_MAX: Duration = Duration::from_millis(200);

/// What the looking thread keeps.
pub(super) struct Doorbell {
    store: Arc<Store>,
    /// `None`: the store lies in memory, and nobody else writes.
    conn: Option<Connection>,
    version: i64,
    /// Newest entry per stream, as last seen.
    known: HashMap<i64, i64>,
    newest_stream: i64,
    due: Arc<AtomicBool>,
    beat: Rhythm,
    watch: Rhythm,
    upkeep: Rhythm,
    memory: Arc<Mutex<Memory>>,
}

/// Something to do every so often, and never twice at a time.
struct Rhythm {
    every: Duration,
    last: Option<Instant>,
    busy: Arc<AtomicBool>,
    /// Do it again at once.
    again: Arc<AtomicBool>,
}

impl Rhythm {
    fn new(every: Duration) -> Self {
        Self { every, last: None, busy: Arc::default(), again: Arc::default() }
    }

    fn is_time(&mut self) -> bool {
        let time = self.last.is_none_or(|last| last.elapsed() >= self.every) || self.again.load(Ordering::Acquire);
        if !time || self.busy.load(Ordering::Acquire) {
            return false;
        }
        self.last = Some(Instant::now());
        self.again.store(false, Ordering::Release);
        true
    }
}

impl Doorbell {
    pub(super) fn new(store: Arc<Store>, conn: Option<Connection>) -> Self {
        let recovery = store.options.recovery_time;
        Self {
            conn,
            version: -1,
            known: HashMap::new(),
            newest_stream: 0,
            due: Arc::default(),
            beat: Rhythm::new(recovery / 5),
            watch: Rhythm::new((recovery / 5).min(WATCH_EVERY_MAX)),
            upkeep: Rhythm::new(store.options.upkeep_every),
            memory: Arc::default(),
            store,
        }
    }

    /// Looks until the other end of `stop` is gone.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        loop {
            if let Err(fault) = self.look() {
                tracing::warn!(store = self.store.name(), %fault, "could not look for news");
            }
            match stop.recv_timeout(EVERY) {
                Err(RecvTimeoutError::Timeout) if !self.store.is_stopped() => {}
                _ => return,
            }
        }
    }

    fn look(&mut self) -> Result<(), Fault> {
        self.look_for_commits()?;
        if self.store.is_due() {
            self.move_due();
        }
        if self.beat.is_time() {
            self.beat();
        }
        if self.watch.is_time()
            && let Some(conn) = &self.conn
            && self.store.peers.watch(conn, &self.store.options, self.store.me())?
        {
            self.store.ring_death();
        }
        if self.upkeep.is_time() {
            self.keep_up();
        }
        Ok(())
    }

    fn look_for_commits(&mut self) -> Result<(), Fault> {
        let Some(conn) = &self.conn else { return Ok(()) };
        let version: i64 = conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if version == self.version {
            return Ok(());
        }
        let mut news = News { due: due::next(conn)?, ..News::default() };
        let mut list = conn.prepare_cached("SELECT id, last_seq FROM stream")?;
        let streams: Vec<(i64, i64)> =
            list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let mut free = conn.prepare_cached("SELECT DISTINCT group_id FROM span WHERE owner = 0")?;
        news.freed = free.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        // From here on nothing fails: what is noted as seen is told.
        for (id, last) in streams {
            news.created |= id > self.newest_stream;
            self.newest_stream = self.newest_stream.max(id);
            if self.known.insert(id, last).unwrap_or(0) < last {
                news.grown.push(id);
            }
        }
        self.version = version;
        self.store.ring(&news);
        Ok(())
    }

    fn move_due(&self) {
        if self.due.swap(true, Ordering::AcqRel) {
            return;
        }
        self.store.forget_due();
        let (store, busy) = (self.store.clone(), self.due.clone());
        let submitted = self.store.submit(due::move_due, move |end| {
            match end {
                Ok(next) => store.due_at(next.unwrap_or(Millis::MAX)),
                Err(error) => {
                    tracing::warn!(%error, "could not move due work; it is tried again");
                    store.due_at(Millis::MIN);
                }
            }
            busy.store(false, Ordering::Release);
        });
        drop(submitted);
    }

    fn beat(&self) {
        let (store, busy) = (self.store.clone(), self.beat.busy.clone());
        busy.store(true, Ordering::Release);
        let work = move |tx: &mut super::tx::Tx<'_>| process::beat(tx, &store.options.instance, &store.groups());
        let submitted = self.store.submit(work, move |end| {
            if let Err(error) = end {
                tracing::warn!(%error, "could not raise the heartbeat");
            }
            busy.store(false, Ordering::Release);
        });
        drop(submitted);
    }

    fn keep_up(&self) {
        let (store, memory) = (self.store.clone(), self.memory.clone());
        let (busy, again) = (self.upkeep.busy.clone(), self.upkeep.again.clone());
        busy.store(true, Ordering::Release);
        let gone = self.store.peers.gone();
        let path = self.store.path().cloned();
        let kept = memory.clone();
        let work = move |tx: &mut super::tx::Tx<'_>| retention::step(tx, &store.options, &mut kept.lock(), &gone);
        let submitted = self.store.submit(work, move |end| {
            match end {
                Ok(step) => {
                    memory.lock().records_after = step.records_after;
                    again.store(step.more, Ordering::Release);
                    path.iter().for_each(|path| step.buried.iter().for_each(|id| locks::bury(path, *id)));
                }
                Err(error) => tracing::warn!(%error, "upkeep failed; it is tried again"),
            }
            busy.store(false, Ordering::Release);
        });
        drop(submitted);
    }
}
