//! The model runner: what a script host does with a job, without scripts.
//!
//! Owns which runs are in flight, and what one can do to others: runs in one VM can take it down together, runs on one thread
//! can lose it. What a run itself does is `script`'s.

mod script;

use std::collections::BTreeMap;
use std::sync::Arc;

use moontide::bus::{CRASH_BUDGET, Delivery, ORPHANED_ALONE};
use moontide::outcome::{Outcome, Release};
use moontide::script::{Finished, Job, Usage};
use moontide::worker::Runner;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::editions::CONCURRENCY_MAX;
use crate::events::number;
use crate::process::Process;
use crate::store::Elapsed;
use crate::trace::{self, Step};
use crate::truth::place;
use script::Running;

/// Threads that run scripts in a process.
const THREADS: u64 = 2;

/// The runs of a process.
#[derive(Default)]
pub struct Runs {
    live: Mutex<BTreeMap<u64, Live>>,
    last: Mutex<u64>,
    /// By claim: free time of the process when it received an event that is to be run as soon as there is room.
    received: Mutex<BTreeMap<u64, Elapsed>>,
}

struct Live {
    group: Arc<str>,
    alone: bool,
    suspect: bool,
    end: Option<oneshot::Sender<Release>>,
}

impl Runs {
    /// Ends every run as released.
    pub fn release_all(&self) {
        self.release(Release::Stopping, |_, _| true);
    }

    fn release(&self, release: Release, which: impl Fn(u64, &Live) -> bool) {
        for (_, live) in self.live.lock().iter_mut().filter(|(id, live)| which(**id, live)) {
            // Whoever released it first has the say.
            if let Some(end) = live.end.take() {
                let _ = end.send(release);
            }
        }
    }

    /// The VM of a run is out of memory. True: others were in it, and all of them, this one too, are repeated.
    fn take_down(&self, run: u64) -> bool {
        let (group, alone) = match self.live.lock().get(&run) {
            Some(live) => (live.group.clone(), live.alone),
            None => return false,
        };
        let inside = |id: u64, live: &Live| id != run && !live.alone && live.group == group;
        let neighbours = !alone && self.live.lock().iter().any(|(id, live)| inside(*id, live));
        if neighbours {
            self.release(Release::Neighbour, inside);
        }
        neighbours
    }

    /// The thread of a run is lost: its other runs are repeated elsewhere.
    fn lose_thread(&self, run: u64) {
        self.release(Release::Moved, |id, _| id != run && id % THREADS == run % THREADS);
    }

    /// A delivery came; `free` is the free time of the process.
    pub fn received(&self, delivery: &Delivery, free: Elapsed) {
        if delivery.orphaned < ORPHANED_ALONE && delivery.deaths == 0 {
            self.received.lock().insert(delivery.lease.claim, free);
        }
    }

    /// What was received so far may wait.
    pub fn forget_received(&self) {
        self.received.lock().clear();
    }

    fn enter(&self, live: Live) -> u64 {
        let mut last = self.last.lock();
        *last += 1;
        self.live.lock().insert(*last, live);
        *last
    }
}

/// Runs the jobs of one handler.
pub struct ModelRunner {
    pub process: Arc<Process>,
    pub group: Arc<str>,
}

impl Runner for ModelRunner {
    fn submit(&self, job: Job) {
        for delivery in &job.deliveries {
            self.look(delivery, &job);
            let suspect = delivery.orphaned >= ORPHANED_ALONE || delivery.deaths > 0;
            let (end, ended) = oneshot::channel();
            let live = Live { group: self.group.clone(), alone: job.alone, suspect, end: Some(end) };
            let running = Running {
                process: self.process.clone(),
                group: self.group.clone(),
                id: self.process.runs.enter(live),
                delivery: delivery.clone(),
                program: job.program.clone(),
                hot: job.hot.clone(),
                held: Vec::new(),
                reads: Vec::new(),
                record: None,
            };
            self.process.spawn(run(running, ended, job.reply.clone()));
        }
        self.count();
    }
}

impl ModelRunner {
    /// What must hold when a run begins.
    fn look(&self, delivery: &Delivery, job: &Job) {
        let (process, world, number) = (&self.process, &self.process.world, number(delivery));
        world.note(Step::Run { process: process.id, number, alone: job.alone });
        let (now, bound) = (world.elapsed(), world.wait_max());
        let free = world.capacity.lock().free(place(&self.group), now);
        let waited = process.runs.received.lock().remove(&delivery.lease.claim);
        let waited = waited.map_or(0, |since| process.free_for(&self.group) - since);
        let suspect = delivery.orphaned >= ORPHANED_ALONE || delivery.deaths > 0;
        let others = process.runs.live.lock().values().filter(|live| live.suspect).count();
        let running = process.runs.live.lock().values().filter(|live| live.group == self.group).count();
        let mut truth = world.truth.lock();
        truth.runs(&self.group, process.id, delivery, free, bound);
        if waited > 0 {
            truth.violation(
                "I6",
                format!("{number} waited {waited} ms in a process whose {} had a free slot", self.group),
            );
        }
        if suspect && (others > 0 || !job.alone) {
            truth.violation("I3", format!("the suspect {number} runs beside {others} others, alone: {}", job.alone));
        }
        if delivery.deaths >= CRASH_BUDGET {
            truth.violation("I3", format!("{number} runs although it has used up its crash budget"));
        }
        if running >= CONCURRENCY_MAX {
            truth.violation("I7", format!("{} has {} runs in flight", self.group, running + 1));
        }
    }

    fn count(&self) {
        count(&self.process, &self.group);
    }
}

/// How many runs of a group are in flight has changed.
fn count(process: &Process, group: &str) {
    let running = process.runs.live.lock().values().filter(|live| &*live.group == group).count();
    let world = &process.world;
    world.capacity.lock().change(place(group), process.id, world.elapsed(), |load| load.running = running);
}

/// Runs to the end, or until something else ends it, and tells the worker.
async fn run(
    mut running: Running,
    ended: oneshot::Receiver<Release>,
    reply: tokio::sync::mpsc::UnboundedSender<Vec<Finished>>,
) {
    let outcome = tokio::select! {
        biased;
        Ok(release) = ended => Outcome::Released(release),
        outcome = running.go() => outcome,
    };
    let process = running.process.clone();
    let (delivery, number) = (running.delivery.clone(), number(&running.delivery));
    process.world.note(Step::Ran { process: process.id, number, outcome: trace::outcome(&outcome) });
    process.runs.live.lock().remove(&running.id);
    count(&process, &running.group);
    let finished = Finished {
        delivery,
        outcome,
        reads: running.reads,
        record: running.record,
        steps: None,
        version: running.program.version.clone(),
        held: running.held,
        usage: Usage::default(),
    };
    // A worker that ended needs no answer.
    drop(reply.send(vec![finished]));
}
