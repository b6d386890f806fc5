//! The threads that scripts run on.
//!
//! Owns how a job's deliveries are spread over the threads. Never blocks but in its end; never looks into a run.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::post::Post;
use super::thread::Message;
use super::watchdog::{Patience, Shared};
use super::{Job, Services};

/// Deliveries of one job that stay together, so that they share a warm VM and a question to the ledger.
const PIECE_MIN: usize = 16;
/// As how many deliveries a run counts that keeps its thread busy: most others only wait, or end at once.
const BUSY_COUNTS: usize = 16;
/// How often an ending pool looks whether a thread has left, or was given up.
const LEAVING: Duration = Duration::from_millis(1);

/// Script threads. Dropping it ends what runs, as [`Pool::release_all`] does, and joins the threads; one that hangs is left
/// behind.
pub struct Pool {
    shared: Arc<Shared>,
    watchdog: Option<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` script threads (at least one) and the watchdog.
    ///
    /// # Errors
    /// Where the operating system gives no thread or timer.
    pub fn start(threads: usize, services: Services) -> std::io::Result<Self> {
        Self::start_with(threads, services, Patience::with(threads))
    }

    pub(super) fn start_with(threads: usize, services: Services, patience: Patience) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::start(threads.max(1), services, patience)?);
        let watch = shared.clone();
        let watchdog = std::thread::Builder::new().name("script-watchdog".into()).spawn(move || watch.run())?;
        Ok(Self { shared, watchdog: Some(watchdog) })
    }

    /// Takes a job; what finished comes back through its `reply`.
    pub fn submit(&self, mut job: Job) {
        let seats = self.shared.seats.read().len();
        let pieces = job.deliveries.len().div_ceil(PIECE_MIN).min(seats).max(1);
        let piece = job.deliveries.len().div_ceil(pieces);
        while job.deliveries.len() > piece {
            let rest = job.deliveries.split_off(piece);
            let first = std::mem::replace(&mut job.deliveries, rest);
            self.place(Job { deliveries: first, ..job.part() });
        }
        self.place(job);
        self.wake_watchdog();
    }

    /// Gives a piece to the thread that has the least to do. The seats stay as they are meanwhile: whoever replaces one
    /// finds all that its thread was given.
    fn place(&self, job: Job) {
        let seats = self.shared.seats.read();
        let seat = seats.iter().min_by_key(|seat| seat.post.weight());
        let Some(seat) = seat.filter(|_| !job.deliveries.is_empty()) else { return };
        // A thread is gone only while the pool is dropped; nobody waits for an answer then.
        drop(seat.inbox.send(Message::Piece(seat.post.take_in(job))));
        seat.post.signal.call();
    }

    fn wake_watchdog(&self) {
        if self.shared.resting.swap(false, Ordering::SeqCst)
            && let Some(watchdog) = &self.watchdog
        {
            watchdog.thread().unpark();
        }
    }

    /// Ends every run, in flight or queued, as released; jobs submitted later end so too.
    pub fn release_all(&self) {
        self.shared.releasing.store(true, Ordering::SeqCst);
        for seat in &*self.shared.seats.read() {
            seat.post.signal.releasing.store(true, Ordering::Relaxed);
            drop(seat.inbox.send(Message::Release));
        }
    }
}

impl Post {
    /// How much the thread has to do.
    fn weight(&self) -> usize {
        self.load.load(Ordering::Relaxed) + BUSY_COUNTS * self.busy.load(Ordering::Relaxed)
    }
}

impl Job {
    /// A job over other deliveries, otherwise the same.
    fn part(&self) -> Self {
        Self {
            program: self.program.clone(),
            deliveries: Vec::new(),
            mode: self.mode,
            alone: self.alone,
            hot: self.hot.clone(),
            steps: self.steps.clone(),
            reply: self.reply.clone(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.release_all();
        for (post, thread) in self.shared.leaving() {
            while !thread.is_finished() && !post.is_abandoned() {
                std::thread::sleep(LEAVING);
            }
            if thread.is_finished() {
                join(thread);
            }
        }
        // Only now: a busy run ends at a tick.
        self.shared.stopped.store(true, Ordering::Release);
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.thread().unpark();
            join(watchdog);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a script thread had panicked");
    }
}
