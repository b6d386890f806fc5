//! The watchdog: ticks the script threads, and replaces one that does not come back.
//!
//! Owns when a thread is lost: the run it polls should have been ended long ago by its interrupt, so it hangs where Luau asks none. The
//! thread is left behind, its run is reported as stuck, the others as to be repeated; where too many are lost, the process
//! is ended. Never waits for anything but its own timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Services;
use super::post::Post;
use super::thread::{Message, serve};

/// Luau's C stack needs less than 2 MiB in every case that was tried.
const STACK_BYTES: usize = 8 << 20;
/// Between two ticks: the turn of a busy run ends with one, or as soon as somebody else on its thread is called.
const TICK: Duration = Duration::from_millis(1);
/// Counted for one tick at most: while the whole process stood still, its threads did too.
const TICK_COUNTED_MAX: Duration = Duration::from_millis(50);
/// Ticks without any run after which the watchdog rests.
const IDLE_TICKS_MAX: u32 = 100;
/// How much longer than its budgets a run may hold its thread.
const GRACE: Duration = Duration::from_secs(3);

/// So many lost threads any machine can bear.
const LOST_FEW: usize = 4;

/// Exit code of a process that lost too many script threads.
pub const EXIT_STUCK: i32 = 4;

/// How long threads are waited for, and how many may be lost.
pub(super) struct Patience {
    pub grace: Duration,
    /// Lost threads that still hang, at which `give_up` is called.
    pub lost_max: usize,
    /// Ends the process for a reason.
    pub give_up: Box<dyn Fn(&str) + Send + Sync>,
}

impl Patience {
    /// That of a host: two threads lost for each that it has, and at least four, are too many: they may keep the
    /// processor busy.
    pub fn with(threads: usize) -> Self {
        let give_up = |reason: &str| {
            tracing::error!("the process ends: {reason}");
            std::process::exit(EXIT_STUCK);
        };
        Self { grace: GRACE, lost_max: (2 * threads).max(LOST_FEW), give_up: Box::new(give_up) }
    }
}

/// What the pool and its watchdog share.
pub(super) struct Shared {
    pub seats: RwLock<Vec<Seat>>,
    services: Arc<Services>,
    patience: Patience,
    pub resting: AtomicBool,
    /// Runs end as released.
    pub releasing: AtomicBool,
    /// The pool is being dropped: no thread is replaced.
    pub closing: AtomicBool,
    /// The watchdog is to leave.
    pub stopped: AtomicBool,
}

/// A script thread's place.
pub(super) struct Seat {
    number: usize,
    pub inbox: UnboundedSender<Message>,
    pub post: Arc<Post>,
    thread: Option<JoinHandle<()>>,
}

impl Seat {
    fn start(number: usize, services: Arc<Services>) -> std::io::Result<Self> {
        let (inbox, pieces): (_, UnboundedReceiver<Message>) = unbounded_channel();
        let post = Arc::<Post>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let own = post.clone();
        let body = move || runtime.block_on(serve(pieces, services, own));
        let thread =
            std::thread::Builder::new().name(format!("script-{number}")).stack_size(STACK_BYTES).spawn(body)?;
        Ok(Self { number, inbox, post, thread: Some(thread) })
    }
}

/// What the watchdog remembers of a thread.
#[derive(Clone, Default)]
struct Eye {
    polls: u64,
    /// How long it has been in the same poll.
    held: Duration,
}

impl Eye {
    /// Looks at a thread after another tick.
    fn look(&mut self, post: &Post, passed: Duration) {
        let polls = post.polls();
        let same = polls == self.polls && polls % 2 == 1;
        self.held = if same { self.held + passed } else { Duration::ZERO };
        self.polls = polls;
    }
}

impl Shared {
    pub fn start(threads: usize, services: Services, patience: Patience) -> std::io::Result<Self> {
        let services = Arc::new(services);
        let seats = (0..threads).map(|number| Seat::start(number, services.clone())).collect::<Result<_, _>>()?;
        Ok(Self {
            seats: RwLock::new(seats),
            services,
            patience,
            resting: AtomicBool::default(),
            releasing: AtomicBool::default(),
            closing: AtomicBool::default(),
            stopped: AtomicBool::default(),
        })
    }

    /// Tells every thread to leave, and hands them out to be joined.
    pub fn leaving(&self) -> Vec<(Arc<Post>, JoinHandle<()>)> {
        let mut seats = self.seats.write();
        let leave = |seat: &mut Seat| {
            drop(seat.inbox.send(Message::Stop));
            Some((seat.post.clone(), seat.thread.take()?))
        };
        seats.iter_mut().filter_map(leave).collect()
    }

    /// Ticks every thread that has something to run, and rests while none has.
    pub fn run(&self) {
        let (mut eyes, mut lost) = (vec![Eye::default(); self.seats.read().len()], Vec::new());
        let (mut idle, mut last) = (0, Instant::now());
        while !self.stopped.load(Ordering::Acquire) {
            std::thread::sleep(TICK);
            let passed = last.elapsed().min(TICK_COUNTED_MAX);
            last = Instant::now();
            let (busy, hanging) = self.tick(&mut eyes, passed);
            if let Some(at) = hanging {
                self.replace(at, &eyes[at], &mut lost);
                eyes[at] = Eye::default();
            }
            idle = if busy { 0 } else { idle + 1 };
            if idle >= IDLE_TICKS_MAX {
                self.rest();
                idle = 0;
            }
        }
    }

    /// One tick. Answers whether any thread has something to run, and which one hangs.
    fn tick(&self, eyes: &mut [Eye], passed: Duration) -> (bool, Option<usize>) {
        let (mut busy, mut hanging) = (false, None);
        for (at, (seat, eye)) in self.seats.read().iter().zip(eyes).enumerate() {
            if seat.post.load.load(Ordering::Relaxed) > 0 && !seat.post.is_abandoned() {
                busy = true;
                seat.post.signal.tick();
                eye.look(&seat.post, passed);
                if self.hangs(&seat.post, eye.held) {
                    hanging = Some(at);
                }
            }
        }
        (busy, hanging)
    }

    /// Whether a thread that has been in one poll for so long is lost. A poll can open a VM and run: twice the budget.
    fn hangs(&self, post: &Post, held: Duration) -> bool {
        let budget = || post.polled().map_or(Duration::ZERO, |(_, _, program)| program.manifest.limits.cpu * 2);
        held > self.patience.grace && held > self.patience.grace + budget()
    }

    /// Leaves a thread behind and puts another in its place.
    fn replace(&self, at: usize, eye: &Eye, lost: &mut Vec<JoinHandle<()>>) {
        let mut seats = self.seats.write();
        let seat = &mut seats[at];
        let polled = seat.post.polled();
        if seat.post.polls() != eye.polls {
            return;
        }
        if let Some((_, delivery, program)) = &polled {
            let (handler, version) = (&*program.name, &*program.version);
            let event = delivery.event.as_ref().map_or("(undecodable)", |event| &event.id);
            let held = eye.held.as_secs_f64();
            tracing::error!(
                handler,
                version,
                event,
                "a script holds its thread for {held:.1} s and cannot be interrupted; the thread is replaced"
            );
        }
        let old = seat.post.clone();
        if !self.closing.load(Ordering::SeqCst) {
            match Seat::start(seat.number, self.services.clone()) {
                Ok(fresh) => lost.extend(std::mem::replace(seat, fresh).thread),
                Err(error) => (self.patience.give_up)(&format!("a lost script thread cannot be replaced: {error}")),
            }
            seat.post.signal.releasing.store(self.releasing.load(Ordering::SeqCst), Ordering::Relaxed);
        }
        old.abandon(polled.map(|(run, ..)| run));
        drop(seats);
        lost.retain(|thread| !thread.is_finished());
        if lost.len() >= self.patience.lost_max {
            (self.patience.give_up)(&format!(
                "{} script threads hang in scripts that cannot be interrupted",
                lost.len()
            ));
        }
    }

    /// Parks until something is submitted. Submitting raises the load before it looks at `resting`, so one of the two
    /// always sees the other.
    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        let idle = self.seats.read().iter().all(|seat| seat.post.load.load(Ordering::SeqCst) == 0);
        while idle && self.resting.load(Ordering::SeqCst) && !self.stopped.load(Ordering::Acquire) {
            std::thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}
