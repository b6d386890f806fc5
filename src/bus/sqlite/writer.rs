//! The one thread that writes.
//!
//! Takes everything that waits into one transaction, so that a sync of the disk is shared by all who wait for it, and answers
//! after the commit. A piece of work that fails is rolled back alone. Knows nothing of what the work is.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;

use super::fault::Fault;
use super::locks::Turns;
use super::store::Store;
use super::tx::{News, Tx};
use crate::bus::BusError;

/// Pieces of work in one transaction.
const BATCH_MAX: usize = 256;

/// A piece of work for the writer.
pub(super) trait Job: Send {
    /// Does the work; on `Err` its changes are rolled back.
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), Fault>;
    /// Learns what became of it.
    fn answer(self: Box<Self>, end: Result<(), BusError>);
}

/// A [`Job`] made of the work and of what is done with its result, on the writer's thread.
pub(super) struct Call<W, T, D> {
    pub(super) work: Option<W>,
    pub(super) result: Option<T>,
    pub(super) done: D,
}

impl<W, T, D> Job for Call<W, T, D>
where
    W: FnOnce(&mut Tx<'_>) -> Result<T, Fault> + Send,
    T: Send,
    D: FnOnce(Result<T, BusError>) + Send,
{
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), Fault> {
        let work = self.work.take().ok_or_else(|| Fault::Refused("work is done once".into()))?;
        self.result = Some(work(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, end: Result<(), BusError>) {
        let Self { result, done, .. } = *self;
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
        let (ends, news) = match self.transact(&mut jobs) {
            Ok(done) => done,
            Err(fault) => {
                self.roll_back();
                let error = fault.told(self.store.name());
                (vec![Err(error); jobs.len()], News::default())
            }
        };
        for (job, end) in jobs.into_iter().zip(ends) {
            job.answer(end);
        }
        self.store.ring(&news);
    }

    /// One transaction; the outer error undid everything.
    fn transact(&self, jobs: &mut [Box<dyn Job>]) -> Result<(Vec<Result<(), BusError>>, News), Fault> {
        let _turn = self.turns.as_ref().map(Turns::take).transpose()?;
        self.store.check_file()?;
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut news = News::default();
        let mut ends = Vec::with_capacity(jobs.len());
        for job in jobs {
            ends.push(match self.apply(&mut **job) {
                Ok(told) => {
                    news.merge(told);
                    Ok(())
                }
                Err(fault) if self.conn.is_autocommit() => return Err(fault),
                Err(fault) => {
                    self.conn.execute_batch("ROLLBACK TO job; RELEASE job")?;
                    Err(fault.told(self.store.name()))
                }
            });
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok((ends, news))
    }

    fn apply(&self, job: &mut dyn Job) -> Result<News, Fault> {
        self.conn.prepare_cached("SAVEPOINT job")?.execute([])?;
        let mut tx = Tx::new(&self.conn, self.store.now(), self.store.me());
        job.apply(&mut tx)?;
        let news = tx.finish()?;
        self.conn.prepare_cached("RELEASE job")?.execute([])?;
        Ok(news)
    }

    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, store = self.store.name(), "could not roll back");
        }
    }
}
