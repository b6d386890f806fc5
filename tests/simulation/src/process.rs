//! A model process: real workers over model inboxes and a model runner, started and swapped as a host does it.
//!
//! It can be killed at any point (nothing of it is polled again), stand still (nothing of it is polled for a while, and then
//! everything goes on), be asked to stop, and get other handlers.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use moontide::bus::{Bus, Inbox, backoff};
use moontide::clock::{Clock, Millis};
use moontide::registry;
use moontide::script::{Mode, Program};
use moontide::worker::{Spec, work};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::bus::ModelBus;
use crate::editions::{Edition, GROUPS, after, config};
use crate::events::Number;
use crate::metrics;
use crate::runner::{ModelRunner, Runs};
use crate::store::{Elapsed, ProcessId};
use crate::trace::Step;
use crate::truth::place;
use crate::world::World;

/// How long scripts may go on after a process was asked to stop.
const GRACE: Duration = Duration::from_secs(2);

/// How a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Alive,
    /// Nothing of it is polled until it thaws.
    Frozen,
    Dead,
}

pub struct Process {
    pub id: ProcessId,
    pub world: Arc<World>,
    /// Its calls are not answered (true) or refused (false).
    pub cut: Mutex<Option<bool>>,
    pub runs: Runs,
    /// It is dead or closed.
    pub gone: Notify,
    clock: ProcessClock,
    standing: Mutex<Standing>,
    frozen: Mutex<Vec<Waker>>,
    closed: Mutex<bool>,
    alone: Arc<tokio::sync::Mutex<()>>,
    edition: Mutex<Arc<Edition>>,
    serving: Mutex<BTreeMap<String, Serving>>,
    ended: Notify,
    stop: CancellationToken,
}

struct Serving {
    program: Arc<ArcSwap<Program>>,
    stop: CancellationToken,
}

/// The process's wall clock, which can be stepped.
#[derive(Clone)]
struct ProcessClock(Arc<AtomicI64>, Arc<World>);

impl Clock for ProcessClock {
    fn now(&self) -> Millis {
        let store = self.1.store.lock().unstepped(self.1.elapsed());
        store + self.0.load(Ordering::Relaxed)
    }
}

impl Process {
    /// Starts a process that loads this edition.
    pub fn start(world: &Arc<World>, edition: Arc<Edition>) -> Arc<Self> {
        let id = world.next_process();
        let process = Arc::new(Self {
            id,
            world: world.clone(),
            cut: Mutex::default(),
            runs: Runs::default(),
            gone: Notify::new(),
            clock: ProcessClock(Arc::default(), world.clone()),
            standing: Mutex::new(Standing::Alive),
            frozen: Mutex::default(),
            closed: Mutex::default(),
            alone: Arc::default(),
            edition: Mutex::new(edition),
            serving: Mutex::default(),
            ended: Notify::new(),
            stop: CancellationToken::new(),
        });
        world.note(Step::Began(id));
        process.beat_now();
        process.spawn(beat(process.clone()));
        process.bring_in_line();
        process.weigh();
        process
    }

    /// Runs a part of the process.
    pub fn spawn(self: &Arc<Self>, part: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(Part { process: self.clone(), part: Some(Box::pin(part)) });
    }

    pub fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    pub fn is_closed(&self) -> bool {
        *self.closed.lock()
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// What it has loaded.
    pub fn edition(&self) -> Arc<Edition> {
        self.edition.lock().clone()
    }

    pub fn step_clock(&self, by: Millis) {
        self.clock.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Ends it at once; `cause`: the event that did it.
    pub fn kill(&self, cause: Option<Number>) {
        if self.standing() == Standing::Dead || self.is_closed() {
            return;
        }
        *self.standing.lock() = Standing::Dead;
        self.world.note(Step::Killed(self.id));
        self.world.truth.lock().died(self.id, cause);
        self.weigh();
        self.world.holds(self.id, true);
        self.gone.notify_one();
    }

    /// Nothing of it goes on until it thaws.
    pub fn freeze(&self) {
        if self.standing() == Standing::Alive && !self.is_closed() {
            *self.standing.lock() = Standing::Frozen;
            self.weigh();
            self.world.holds(self.id, true);
        }
    }

    pub fn thaw(&self) {
        if self.standing() != Standing::Frozen {
            return;
        }
        *self.standing.lock() = Standing::Alive;
        self.world.note(Step::Thawed(self.id));
        self.weigh();
        self.world.holds(self.id, false);
        self.frozen.lock().drain(..).for_each(Waker::wake);
    }

    /// What it can do has changed.
    pub fn weigh(&self) {
        let cut = self.cut.lock().is_some() || self.world.cut.lock().is_some();
        let well = self.standing() == Standing::Alive && !cut && !self.is_stopping();
        self.world.capacity.lock().change_all(self.id, self.world.elapsed(), |load| load.well = well);
    }

    /// It waits for a mark of a group, or not any more.
    pub fn marks(&self, group: usize, marking: bool) {
        let now = self.world.elapsed();
        self.world.capacity.lock().change(group, self.id, now, |load| load.marking = marking);
    }

    /// How long it had room for a group.
    pub fn free_for(&self, group: &str) -> Elapsed {
        self.world.capacity.lock().free_at(place(group), self.id, self.world.elapsed())
    }

    fn beat_now(&self) {
        let now = self.world.elapsed();
        self.world.store.lock().beat(self.id, now);
        self.world.truth.lock().beat(self.id, now);
    }

    // --- handlers ---

    /// The handlers folder became another one.
    pub fn reload(self: &Arc<Self>, folder: usize) {
        if self.standing() != Standing::Dead && !self.is_stopping() {
            let edition = after(&self.edition.lock().clone(), folder);
            *self.edition.lock() = edition;
            self.bring_in_line();
        }
    }

    /// Starts, swaps and stops workers as the host's supervisor does.
    fn bring_in_line(self: &Arc<Self>) {
        let edition = self.edition.lock().clone();
        let wanted: BTreeMap<&str, &Arc<Program>> = edition.programs().collect();
        let mut serving = self.serving.lock();
        for (name, worker) in &*serving {
            match wanted.get(name.as_str()) {
                Some(program) if reads(program) == reads(&worker.program.load()) => {
                    worker.program.store(Arc::clone(program));
                    self.offers(program);
                    // A worker learns of more slots when something else happens to it.
                    self.runs.forget_received();
                }
                _ => worker.stop.cancel(),
            }
        }
        if self.is_stopping() {
            return;
        }
        for (name, program) in wanted {
            if !serving.contains_key(name) {
                serving.insert(name.to_owned(), self.serve(program.clone()));
            }
        }
    }

    fn serve(self: &Arc<Self>, program: Arc<Program>) -> Serving {
        let serving = Serving { program: Arc::new(ArcSwap::new(program.clone())), stop: CancellationToken::new() };
        let runner = ModelRunner { process: self.clone(), group: program.manifest.group.as_str().into() };
        let spec = Spec {
            program: serving.program.clone(),
            runner: Arc::new(runner),
            metrics: metrics::of(&program.name),
            clock: Arc::new(self.clock.clone()),
            alone: self.alone.clone(),
            mode: Mode::Live,
            seed: self.world.number(),
            stop: serving.stop.clone(),
        };
        self.spawn(serve(self.clone(), program, spec));
        serving
    }

    /// How much of a program can run here at a time.
    fn offers(&self, program: &Program) {
        let (group, concurrency) = (place(&program.manifest.group), program.manifest.concurrency);
        self.world.capacity.lock().change(group, self.id, self.world.elapsed(), |load| load.concurrency = concurrency);
    }

    fn worker_ended(self: &Arc<Self>, program: &Program) {
        self.serving.lock().remove(&*program.name);
        let group = place(&program.manifest.group);
        self.world.capacity.lock().change(group, self.id, self.world.elapsed(), |load| load.concurrency = 0);
        self.ended.notify_one();
        self.bring_in_line();
    }

    /// Stops receiving, finishes what runs, gives the rest back and closes.
    pub fn stop(self: &Arc<Self>) {
        if self.is_stopping() || self.standing() == Standing::Dead {
            return;
        }
        self.stop.cancel();
        self.weigh();
        self.world.holds(self.id, true);
        self.serving.lock().values().for_each(|worker| worker.stop.cancel());
        self.spawn(close(self.clone()));
    }
}

async fn close(process: Arc<Process>) {
    let all_ended = async {
        while !process.serving.lock().is_empty() {
            process.ended.notified().await;
        }
    };
    tokio::pin!(all_ended);
    if tokio::time::timeout(GRACE, &mut all_ended).await.is_err() {
        process.runs.release_all();
        let _ = tokio::time::timeout(GRACE, &mut all_ended).await;
    }
    *process.closed.lock() = true;
    process.world.store.lock().leave(process.id);
    GROUPS.iter().for_each(|group| process.world.truth.lock().gave_back(group, process.id));
    process.world.note(Step::Ended(process.id));
    process.world.spread_news();
    process.gone.notify_one();
}

/// Works for one handler, as soon as its group can be opened.
async fn serve(process: Arc<Process>, program: Arc<Program>, spec: Spec) {
    let _watch = Watch(process.clone(), program.name.clone());
    let bus = ModelBus { process: process.clone() };
    let stop = spec.stop.clone();
    if let Some(inbox) = stop.run_until_cancelled(open(&bus, &program)).await {
        process.offers(&spec.program.load());
        work(inbox, spec).await;
    }
    process.worker_ended(&program);
}

async fn open(bus: &ModelBus, program: &Program) -> Arc<dyn Inbox> {
    let mut failures = 0;
    loop {
        match bus.subscribe(registry::subscription(program, &config().streams)).await {
            Ok(subscribed) => return subscribed.inbox,
            Err(_) => failures += 1,
        }
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Tells a worker that panics from one that ends.
struct Watch(Arc<Process>, Arc<str>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.world.truth.lock().violation("I7", format!("the worker of {} panicked", self.1));
        }
    }
}

/// Says that the process lives, and looks whether others do.
async fn beat(process: Arc<Process>) {
    let period = Duration::from_millis(process.world.plan.recovery as u64 / 8);
    while !process.is_closed() {
        tokio::time::sleep(period).await;
        if process.world.cut.lock().or(*process.cut.lock()).is_none() {
            process.beat_now();
            process.world.ring_orphaned(process.id);
        }
    }
}

/// What decides that a worker must be replaced and not only its program.
fn reads(program: &Program) -> impl PartialEq + use<> {
    let manifest = &program.manifest;
    (manifest.group.clone(), manifest.types.clone(), manifest.streams.clone())
}

/// A part of a process: polled as long as it lives, and not while it stands still.
struct Part {
    process: Arc<Process>,
    part: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for Part {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.process.standing() {
            Standing::Dead => {
                self.part = None;
                return Poll::Ready(());
            }
            Standing::Frozen => {
                self.process.frozen.lock().push(cx.waker().clone());
                return Poll::Pending;
            }
            Standing::Alive => {}
        }
        if self.process.world.chance(self.process.world.plan.shaken) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match &mut self.part {
            Some(part) => part.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}
