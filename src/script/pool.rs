//! The threads that scripts run on, and the watchdog that ticks them.
//!
//! Owns how a job's deliveries are spread over the threads. Never blocks; never looks into a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::meter::Signal;
use super::thread::{Message, serve};
use super::{Job, Services};

/// Luau's C stack needs less than 2 MiB in every case that was tried.
const STACK_BYTES: usize = 8 << 20;
/// Between two ticks: how long a busy run holds up its neighbours.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without any run after which the watchdog rests.
const IDLE_TICKS_MAX: u32 = 100;
/// Deliveries of one job that stay together, so that they share a warm VM and a question to the ledger.
const PIECE_MIN: usize = 16;

/// Script threads. Dropping it ends what runs, as [`Pool::release_all`] does, and joins the threads.
pub struct Pool {
    seats: Vec<Seat>,
    watchdog: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Seat {
    inbox: UnboundedSender<Message>,
    /// Deliveries given to the thread and not finished yet.
    load: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    watched: Vec<(Arc<Signal>, Arc<AtomicUsize>)>,
    resting: AtomicBool,
    stopped: AtomicBool,
}

impl Pool {
    /// Starts `threads` script threads (at least one) and the watchdog.
    ///
    /// # Errors
    /// Where the operating system gives no thread or timer.
    pub fn start(threads: usize, services: Services) -> std::io::Result<Self> {
        let services = Arc::new(services);
        let (mut seats, mut watched) = (Vec::new(), Vec::new());
        for number in 0..threads.max(1) {
            let (signal, load) = (Arc::<Signal>::default(), Arc::<AtomicUsize>::default());
            seats.push(Seat::start(number, services.clone(), signal.clone(), load.clone())?);
            watched.push((signal, load));
        }
        let shared = Arc::new(Shared { watched, resting: AtomicBool::new(false), stopped: AtomicBool::new(false) });
        let watch = shared.clone();
        let watchdog = std::thread::Builder::new().name("script-watchdog".into()).spawn(move || watch.run())?;
        Ok(Self { seats, watchdog: Some(watchdog), shared })
    }

    /// Takes a job; what finished comes back through its `reply`.
    pub fn submit(&self, mut job: Job) {
        let pieces = job.deliveries.len().div_ceil(PIECE_MIN).min(self.seats.len()).max(1);
        let piece = job.deliveries.len().div_ceil(pieces);
        while job.deliveries.len() > piece {
            let rest = job.deliveries.split_off(piece);
            let first = std::mem::replace(&mut job.deliveries, rest);
            self.place(Job { deliveries: first, ..job.part() });
        }
        self.place(job);
        self.wake_watchdog();
    }

    /// Gives a piece to the thread that has the least to do.
    fn place(&self, job: Job) {
        let seat = self.seats.iter().min_by_key(|seat| seat.load.load(Ordering::Relaxed));
        let Some(seat) = seat.filter(|_| !job.deliveries.is_empty()) else { return };
        seat.load.fetch_add(job.deliveries.len(), Ordering::SeqCst);
        // A thread is gone only while the pool is dropped; nobody waits for an answer then.
        drop(seat.inbox.send(Message::Job(job)));
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
        for ((signal, _), seat) in self.shared.watched.iter().zip(&self.seats) {
            signal.releasing.store(true, Ordering::Relaxed);
            drop(seat.inbox.send(Message::Release));
        }
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
            reply: self.reply.clone(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.release_all();
        for seat in &mut self.seats {
            drop(seat.inbox.send(Message::Stop));
            join(seat.thread.take());
        }
        // Only now: a busy run ends at a tick.
        self.shared.stopped.store(true, Ordering::Release);
        if let Some(watchdog) = &self.watchdog {
            watchdog.thread().unpark();
        }
        join(self.watchdog.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a script thread had panicked");
    }
}

impl Seat {
    fn start(
        number: usize,
        services: Arc<Services>,
        signal: Arc<Signal>,
        load: Arc<AtomicUsize>,
    ) -> std::io::Result<Self> {
        let (inbox, jobs): (_, UnboundedReceiver<Message>) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let done = load.clone();
        let body = move || runtime.block_on(serve(jobs, services, signal, done));
        let thread =
            std::thread::Builder::new().name(format!("script-{number}")).stack_size(STACK_BYTES).spawn(body)?;
        Ok(Self { inbox, load, thread: Some(thread) })
    }
}

impl Shared {
    /// The watchdog: ticks every thread that has something to run, and rests while none has.
    fn run(&self) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::Acquire) {
            std::thread::sleep(TICK);
            let mut busy = false;
            for (signal, load) in &self.watched {
                if load.load(Ordering::Relaxed) > 0 {
                    busy = true;
                    signal.tick();
                }
            }
            idle = if busy { 0 } else { idle + 1 };
            if idle >= IDLE_TICKS_MAX {
                self.rest();
                idle = 0;
            }
        }
    }

    /// Parks until something is submitted. Submitting raises the load before it looks at `resting`, so one of the two
    /// always sees the other.
    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        let idle = self.watched.iter().all(|(_, load)| load.load(Ordering::SeqCst) == 0);
        while idle && self.resting.load(Ordering::SeqCst) && !self.stopped.load(Ordering::Acquire) {
            std::thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}
