//! The one thread that writes.
//!
//! Takes everything that waits into one transaction, so that a sync of the disk is shared by all who wait for it, and answers
//! after the commit. Savepoints cost a copy of every page that is touched, and work hardly ever fails: so the batch is tried
//! without any, and only where a piece fails it is done again, with one savepoint each, so that it fails alone. Knows
//! nothing of what the work is.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;

use super::fault::Fault;
use super::locks::Turns;
use super::store::Store;
use super::tx::{News, Tx};
use crate::bus::BusError;
use crate::failpoint;

/// Pieces of work in one transaction.
const BATCH_MAX: usize = 256;

/// A piece of work for the writer.
pub(super) trait Job: Send {
    /// Does the work, possibly for the second time after a rollback; on `Err` its changes are rolled back.
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), Fault>;
    /// Learns what became of it.
    fn answer(self: Box<Self>, end: Result<(), BusError>);
}

/// A [`Job`] made of the work and of what is done with its result, on the writer's thread.
pub(super) struct Call<W, T, D> {
    pub(super) work: W,
    pub(super) result: Option<T>,
    pub(super) done: D,
}

impl<W, T, D> Job for Call<W, T, D>
where
    W: FnMut(&mut Tx<'_>) -> Result<T, Fault> + Send,
    T: Send,
    D: FnOnce(Result<T, BusError>) + Send,
{
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), Fault> {
        self.result = Some((self.work)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, end: Result<(), BusError>) {
        let Self { work, result, done } = *self;
        // First: what it holds is then freed by whoever waits for the answer, if that one holds it too.
        drop(work);
        done(end.and_then(|()| result.ok_or(BusError::Closed)));
    }
}

/// What the writer is told.
pub(super) enum Message {
    Do(Box<dyn Job>),
    /// Stop; what waits is answered with [`BusError::Closed`].
    Stop,
}

/// The writing thread's own.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) turns: Option<Turns>,
    pub(super) store: Arc<Store>,
    pub(super) queue: Receiver<Message>,
}

/// Tells everybody that the writer is gone, however it went.
struct Farewell<'a>(&'a Store);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.0.closed();
    }
}

impl Writer {
    /// Works until it is told to stop.
    pub(super) fn run(self) {
        let _farewell = Farewell(&self.store);
        while let Some(jobs) = self.next() {
            if self.store.is_stopped() {
                jobs.into_iter().for_each(|job| job.answer(Err(BusError::Closed)));
                break;
            }
            self.work(jobs);
            if self.store.is_stopped() {
                break;
            }
        }
    }

    /// Waits for work and takes all there is; `None`: stop.
    fn next(&self) -> Option<Vec<Box<dyn Job>>> {
        let Ok(Message::Do(first)) = self.queue.recv() else { return None };
        let mut jobs = vec![first];
        while jobs.len() < BATCH_MAX
            && let Ok(message) = self.queue.try_recv()
        {
            match message {
                Message::Do(job) => jobs.push(job),
                // The flag that is set with it ends the loop when these are answered.
                Message::Stop => break,
            }
        }
        Some(jobs)
    }

    fn work(&self, mut jobs: Vec<Box<dyn Job>>) {
        let before = self.conn.total_changes();
        let (ends, news) = match self.transact(&mut jobs) {
            Ok(done) => {
                if self.conn.total_changes() != before {
                    self.store.wrote(None);
                }
                done
            }
            Err(fault) => {
                self.roll_back();
                if fault.shows_in_writing() {
                    self.store.wrote(Some(&fault));
                }
                let error = fault.told(self.store.name());
                (vec![Err(error); jobs.len()], News::default())
            }
        };
        for (job, end) in jobs.into_iter().zip(ends) {
            job.answer(end);
        }
        self.store.ring(&news);
    }

    /// One transaction; an error undid everything.
    fn transact(&self, jobs: &mut [Box<dyn Job>]) -> Result<(Vec<Result<(), BusError>>, News), Fault> {
        let _turn = self.turns.as_ref().map(Turns::take).transpose()?;
        self.store.check_file()?;
        self.begin()?;
        let mut news = News::default();
        let smooth = jobs.iter_mut().try_for_each(|job| self.apply(&mut **job, false).map(|told| news.merge(told)));
        let mut ends = vec![Ok(()); jobs.len()];
        if smooth.is_err() {
            self.roll_back();
            self.begin()?;
            (ends, news) = self.apply_apart(jobs)?;
        }
        failpoint::reached("commit.before");
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        failpoint::reached("commit.after");
        Ok((ends, news))
    }

    fn begin(&self) -> Result<(), Fault> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Does each piece under a savepoint of its own.
    fn apply_apart(&self, jobs: &mut [Box<dyn Job>]) -> Result<(Vec<Result<(), BusError>>, News), Fault> {
        let mut news = News::default();
        let mut ends = Vec::with_capacity(jobs.len());
        for job in jobs {
            self.conn.prepare_cached("SAVEPOINT job")?.execute([])?;
            ends.push(match self.apply(&mut **job, true) {
                Ok(told) => {
                    news.merge(told);
                    Ok(())
                }
                // SQLite has rolled back everything by itself.
                Err(fault) if self.conn.is_autocommit() => return Err(fault),
                Err(fault) => {
                    self.conn.execute_batch("ROLLBACK TO job")?;
                    Err(fault.told(self.store.name()))
                }
            });
            self.conn.prepare_cached("RELEASE job")?.execute([])?;
        }
        Ok((ends, news))
    }

    fn apply(&self, job: &mut dyn Job, apart: bool) -> Result<News, Fault> {
        let mut tx = Tx::new(&self.conn, self.store.now(), self.store.me(), apart);
        job.apply(&mut tx)?;
        tx.finish()
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, store = self.store.name(), "could not roll back");
        }
    }
}
