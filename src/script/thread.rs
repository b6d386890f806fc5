//! One script thread: takes jobs, polls its runs, and hands back what finished.
//!
//! Runs are polled from the runtime's root future, so that timers and neighbours get their turn between the slices of a
//! busy run. Decides nothing about a run.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Interval, MissedTickBehavior};

use super::meter::{Meter, Signal};
use super::run::{Run, Task};
use super::stage::Stage;
use super::{Finished, Job, Program, Services, Usage, fault, life};
use crate::bus::Delivery;
use crate::hot::HotKeys;
use crate::outcome::{Outcome, Release};

/// How often idle VMs are looked for.
const SWEEP: Duration = Duration::from_secs(15);
/// Finished runs of one job that are handed back together at most.
const BATCH_MAX: usize = 64;

/// What a thread is told.
pub(super) enum Message {
    Job(Job),
    /// End every run as released.
    Release,
    /// Leave, once everything has ended.
    Stop,
}

/// A job on its thread.
pub(super) struct Work {
    pub program: Arc<Program>,
    pub alone: bool,
    hot: Arc<HotKeys>,
    reply: UnboundedSender<Vec<Finished>>,
    finished: RefCell<Vec<Finished>>,
}

impl Work {
    /// Hands back what has finished. Nobody may be there to take it any more.
    fn flush(&self) {
        let finished = self.finished.take();
        if !finished.is_empty() {
            drop(self.reply.send(finished));
        }
    }
}

type Ended = (Rc<Work>, Finished);
type Service = Pin<Box<dyn Future<Output = ()>>>;

struct Thread {
    stage: Rc<Stage>,
    signal: Arc<Signal>,
    load: Arc<AtomicUsize>,
    runs: FuturesUnordered<Pin<Box<dyn Future<Output = Ended>>>>,
    lookups: [Service; 2],
    /// Jobs with something to hand back.
    ready: Vec<Rc<Work>>,
    sweep: Interval,
    stopping: bool,
}

/// Serves `jobs` until told to stop.
pub(super) async fn serve(
    mut jobs: UnboundedReceiver<Message>,
    services: Arc<Services>,
    signal: Arc<Signal>,
    load: Arc<AtomicUsize>,
) {
    let stage = Stage::new(services, Meter::watched(signal.clone()));
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lookups: [Service; 2] =
        [Box::pin(stage.lookups.clone().serve_values()), Box::pin(stage.lookups.clone().serve_records())];
    let (runs, ready) = (FuturesUnordered::new(), Vec::new());
    let mut thread = Thread { stage, signal, load, runs, lookups, ready, sweep, stopping: false };
    poll_fn(move |cx| thread.turn(&mut jobs, cx)).await;
}

impl Thread {
    /// Takes what has come, polls what is ready, and hands back what has finished.
    fn turn(&mut self, jobs: &mut UnboundedReceiver<Message>, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(message) = jobs.poll_recv(cx) {
            match message {
                Some(Message::Job(job)) => self.accept(job),
                Some(Message::Release) => self.stage.release_all(),
                Some(Message::Stop) | None => {
                    self.stopping = true;
                    break;
                }
            }
        }
        loop {
            while let Poll::Ready(Some(ended)) = self.runs.poll_next_unpin(cx) {
                self.take_back(ended);
            }
            for service in &mut self.lookups {
                // Never ready: it serves as long as the thread lives.
                let _: Poll<()> = service.as_mut().poll(cx);
            }
            if !self.stage.lookups.take_answered() {
                break;
            }
        }
        self.ready.drain(..).for_each(|work| work.flush());
        if self.sweep.poll_tick(cx).is_ready() {
            self.stage.drop_idle();
        }
        if self.stopping && self.runs.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn accept(&mut self, job: Job) {
        let Job { program, deliveries, mode: _, alone, hot, reply } = job;
        let work = Rc::new(Work { program, alone, hot, reply, finished: RefCell::default() });
        for delivery in deliveries {
            match self.refusal(&delivery) {
                Some(outcome) => self.take_back((work.clone(), unrun(&work.program.version, delivery, outcome))),
                None => self.runs.push(Box::pin(run(self.stage.clone(), work.clone(), delivery))),
            }
        }
    }

    /// The outcome of a delivery that is not run at all.
    fn refusal(&self, delivery: &Delivery) -> Option<Outcome> {
        if self.signal.releasing.load(Ordering::Relaxed) {
            return Some(Outcome::Released(Release::Stopping));
        }
        let undecodable = delivery.event.as_ref().err()?;
        Some(Outcome::Undecodable { reason: undecodable.reason.clone() })
    }

    fn take_back(&mut self, (work, finished): Ended) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        let count = {
            let mut batch = work.finished.borrow_mut();
            batch.push(finished);
            batch.len()
        };
        match count {
            1 => self.ready.push(work),
            BATCH_MAX.. => work.flush(),
            _ => {}
        }
    }
}

fn unrun(version: &Arc<str>, delivery: Arc<Delivery>, outcome: Outcome) -> Finished {
    Finished {
        delivery,
        outcome,
        reads: Vec::new(),
        record: None,
        version: version.clone(),
        held: Vec::new(),
        usage: Usage::default(),
    }
}

/// One run from beginning to end; a panic in it is a failure of this run only.
async fn run(stage: Rc<Stage>, work: Rc<Work>, delivery: Arc<Delivery>) -> Ended {
    let task = Task {
        delivery: delivery.clone(),
        hot: work.hot.clone(),
        services: stage.services.clone(),
        lookups: stage.lookups.clone(),
        handler: work.program.name.clone(),
    };
    let manifest = &work.program.manifest;
    let run = Rc::new(Run::handling(task, manifest.limits.clone(), manifest.timeout));
    let number = stage.enter(run.clone());
    let mut record = None;
    let outcome = AssertUnwindSafe(life::live(&stage, &work, &run, &mut record)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| {
        run.fail_host(fault::panic_text(&*panic));
        None
    });
    let outcome = stage.conclude(&run, outcome);
    stage.leave(number);
    let finished = Finished {
        delivery,
        outcome,
        reads: run.buffer.borrow_mut().take_reads(),
        record,
        version: work.program.version.clone(),
        held: run.held.take(),
        usage: Usage {
            cpu: run.cpu(),
            wall: run.started.elapsed(),
            memory_bytes: stage.memory_bytes(&work.program.name),
        },
    };
    (work, finished)
}
