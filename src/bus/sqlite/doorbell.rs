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
use super::trouble::Trouble;
use super::tx::{News, Tx};
use super::{due, locks, process, retention};
use crate::clock::Millis;
use crate::failpoint;

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
    troubles: Troubles,
    memory: Arc<Mutex<Memory>>,
}

/// What may fail for long, while a disk is full or a file is locked.
struct Troubles {
    look: Trouble,
    due: Arc<Trouble>,
    beat: Arc<Trouble>,
    upkeep: Arc<Trouble>,
}

impl Troubles {
    fn new() -> Self {
        Self {
            look: Trouble::new("look for news"),
            due: Arc::new(Trouble::new("move due work")),
            beat: Arc::new(Trouble::new("raise the heartbeat")),
            upkeep: Arc::new(Trouble::new("trim what is kept")),
        }
    }
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
            troubles: Troubles::new(),
            memory: Arc::default(),
            store,
        }
    }

    /// Looks until the other end of `stop` is gone.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        loop {
            match self.look() {
                Ok(()) => self.troubles.look.over(),
                Err(fault) => self.troubles.look.failed(&fault.told(self.store.name())),
            }
            match stop.recv_timeout(EVERY) {
                Err(RecvTimeoutError::Timeout) if !self.store.is_stopped() => {}
                _ => return,
            }
        }
    }

    /// What cannot be looked at holds up nothing else: only the writer finds out that its file is gone for good.
    fn look(&mut self) -> Result<(), Fault> {
        let looked = self.look_for_commits();
        if self.store.is_due() && !self.troubles.due.rests() {
            self.move_due();
        }
        if self.beat.is_time() {
            self.beat();
        }
        if self.upkeep.is_time() {
            self.keep_up();
        }
        looked.and(self.look_for_deaths())
    }

    fn look_for_deaths(&mut self) -> Result<(), Fault> {
        if self.watch.is_time()
            && let Some(conn) = &self.conn
            && self.store.peers.watch(conn, &self.store.options, self.store.me())?
        {
            self.store.ring_death();
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
        let (store, busy, trouble) = (self.store.clone(), self.due.clone(), self.troubles.due.clone());
        failpoint::reached("due.before");
        let work = |tx: &mut Tx<'_>| failpoint::after("due.sent", due::move_due(tx));
        let submitted = self.store.submit(work, move |end| {
            failpoint::reached("due.after");
            match end {
                Ok(next) => {
                    trouble.over();
                    store.due_at(next.unwrap_or(Millis::MAX));
                }
                Err(error) => {
                    trouble.failed(&error);
                    store.due_at(Millis::MIN);
                }
            }
            busy.store(false, Ordering::Release);
        });
        drop(submitted);
    }

    fn beat(&self) {
        let (store, busy, trouble) = (self.store.clone(), self.beat.busy.clone(), self.troubles.beat.clone());
        busy.store(true, Ordering::Release);
        failpoint::reached("beat.before");
        let work = move |tx: &mut Tx<'_>| {
            failpoint::after("beat.sent", process::beat(tx, &store.options.instance, &store.groups()))
        };
        let submitted = self.store.submit(work, move |end| {
            failpoint::reached("beat.after");
            match end {
                Ok(()) => trouble.over(),
                Err(error) => trouble.failed(&error),
            }
            busy.store(false, Ordering::Release);
        });
        drop(submitted);
    }

    fn keep_up(&self) {
        let (store, memory) = (self.store.clone(), self.memory.clone());
        let (busy, again, trouble) =
            (self.upkeep.busy.clone(), self.upkeep.again.clone(), self.troubles.upkeep.clone());
        busy.store(true, Ordering::Release);
        let gone = self.store.peers.gone();
        let path = self.store.path().cloned();
        let kept = memory.clone();
        failpoint::reached("upkeep.before");
        let work = move |tx: &mut Tx<'_>| {
            failpoint::after("upkeep.sent", retention::step(tx, &store.options, &mut kept.lock(), &gone))
        };
        let submitted = self.store.submit(work, move |end| {
            failpoint::reached("upkeep.after");
            match end {
                Ok(step) => {
                    trouble.over();
                    memory.lock().records_after = step.records_after;
                    again.store(step.more, Ordering::Release);
                    path.iter().for_each(|path| step.buried.iter().for_each(|id| locks::bury(path, *id)));
                }
                Err(error) => trouble.failed(&error),
            }
            busy.store(false, Ordering::Release);
        });
        drop(submitted);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::bus::sqlite::{Options, Place};

    /// As where the file was moved away: the writer must be given something to do, to notice it.
    #[test]
    fn who_cannot_look_for_news_keeps_its_heart_beating() {
        let (queue, work) = mpsc::channel();
        let store = Arc::new(Store::new(Options::at(Place::Memory), 1, None, queue).expect("it opens"));
        let unreadable = Connection::open_in_memory().expect("memory opens");
        let mut doorbell = Doorbell::new(store, Some(unreadable));
        assert!(doorbell.look().is_err());
        assert!(work.try_recv().is_ok(), "the heartbeat is on its way");
    }
}
