//! One script thread: takes jobs, polls its runs, and hands back what finished.
//!
//! Runs are polled from the runtime's root future, so that timers and neighbours get their turn between the slices of a
//! busy run; in which order is `turns`' concern. Decides nothing about a run.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Interval, MissedTickBehavior};

use super::meter::Meter;
use super::post::{Piece, Post, RunId, unrun};
use super::run::{Run, Task};
use super::stage::Stage;
use super::turns::Turns;
use super::{Finished, Services, Usage, fault, life};
use crate::bus::{Delivery, STEPS_KEPT};
use crate::failpoint;
use crate::outcome::{Outcome, Release};

/// How often idle VMs are looked for.
const SWEEP: Duration = Duration::from_secs(15);
/// Finished runs of one job that are handed back together at most.
const BATCH_MAX: usize = 64;

/// What a thread is told.
pub(super) enum Message {
    Piece(Arc<Piece>),
    /// End every run as released.
    Release,
    /// Leave, once everything has ended.
    Stop,
}

/// A piece on its thread.
pub(super) struct Work {
    pub piece: Arc<Piece>,
    finished: RefCell<Vec<(u32, Finished)>>,
}

type Ended = (Rc<Work>, u32, Finished);
type Running = Pin<Box<dyn Future<Output = Ended>>>;
type Service = Pin<Box<dyn Future<Output = ()>>>;

struct Thread {
    stage: Rc<Stage>,
    post: Arc<Post>,
    runs: Turns<Running>,
    lookups: [Service; 2],
    /// Pieces with something to hand back.
    ready: Vec<Rc<Work>>,
    sweep: Interval,
    stopping: bool,
}

/// Serves `messages` until told to stop, or given up.
pub(super) async fn serve(mut messages: UnboundedReceiver<Message>, services: Arc<Services>, post: Arc<Post>) {
    let stage = Stage::new(services, Meter::watched(post.signal.clone()));
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lookups: [Service; 2] =
        [Box::pin(stage.lookups.clone().serve_values()), Box::pin(stage.lookups.clone().serve_records())];
    let (runs, ready) = (Turns::new(post.signal.clone()), Vec::new());
    let mut thread = Thread { stage, post, runs, lookups, ready, sweep, stopping: false };
    poll_fn(move |cx| thread.turn(&mut messages, cx)).await;
}

impl Thread {
    /// Takes what has come, polls what is ready, and hands back what has finished.
    fn turn(&mut self, messages: &mut UnboundedReceiver<Message>, cx: &mut Context<'_>) -> Poll<()> {
        self.post.signal.heard();
        self.runs.begin_round(cx);
        self.take_messages(messages, cx);
        self.poll_woken(cx);
        if !self.post.is_abandoned()
            && let Some(Poll::Ready(ended)) = self.runs.poll_preempted(&self.stage.meter.manners)
        {
            self.take_back(ended);
        }
        if self.post.is_abandoned() {
            return Poll::Ready(());
        }
        for work in std::mem::take(&mut self.ready) {
            self.flush(&work);
        }
        if self.sweep.poll_tick(cx).is_ready() {
            self.stage.drop_idle();
        }
        self.runs.end_round(cx);
        self.post.busy.store(self.runs.preempted(), Ordering::Relaxed);
        if self.stopping && self.runs.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take_messages(&mut self, messages: &mut UnboundedReceiver<Message>, cx: &mut Context<'_>) {
        while let Poll::Ready(message) = messages.poll_recv(cx) {
            match message {
                Some(Message::Piece(piece)) => self.accept(piece),
                Some(Message::Release) => self.stage.release_all(),
                Some(Message::Stop) | None => {
                    self.stopping = true;
                    break;
                }
            }
        }
    }

    /// Polls runs that are new or were woken, and what answers their questions, which wakes others.
    fn poll_woken(&mut self, cx: &mut Context<'_>) {
        loop {
            while let Some(polled) = self.runs.poll_woken(&self.stage.meter.manners) {
                if let Poll::Ready(ended) = polled {
                    self.take_back(ended);
                }
            }
            if self.post.is_abandoned() {
                return;
            }
            for service in &mut self.lookups {
                // Never ready: it serves as long as the thread lives.
                let _: Poll<()> = service.as_mut().poll(cx);
            }
            if !self.stage.lookups.take_answered() {
                return;
            }
        }
    }

    fn accept(&mut self, piece: Arc<Piece>) {
        let (number, deliveries) = (piece.number, piece.deliveries());
        let work = Rc::new(Work { piece, finished: RefCell::default() });
        for (at, delivery) in deliveries {
            match self.refusal(&delivery) {
                Some(outcome) => {
                    let finished = unrun(&work.piece.program.version, delivery, outcome);
                    self.take_back((work.clone(), at, finished));
                }
                None => {
                    let run = run(self.stage.clone(), work.clone(), at, delivery);
                    self.runs.push(Box::pin(watched(self.post.clone(), RunId { piece: number, at }, run)));
                }
            }
        }
    }

    /// The outcome of a delivery that is not run at all.
    fn refusal(&self, delivery: &Delivery) -> Option<Outcome> {
        if self.post.signal.releasing.load(Ordering::Relaxed) {
            return Some(Outcome::Released(Release::Stopping));
        }
        let undecodable = delivery.event.as_ref().err()?;
        Some(Outcome::Undecodable { reason: undecodable.reason.clone() })
    }

    fn take_back(&mut self, (work, at, finished): Ended) {
        self.post.load.fetch_sub(1, Ordering::Relaxed);
        let count = {
            let mut batch = work.finished.borrow_mut();
            batch.push((at, finished));
            batch.len()
        };
        match count {
            1 => self.ready.push(work),
            BATCH_MAX.. => self.flush(&work),
            _ => {}
        }
    }

    /// Hands back what has finished of a piece.
    fn flush(&self, work: &Work) {
        if work.piece.answer(work.finished.take()) {
            self.post.forget(&work.piece);
        }
    }
}

/// `run`, with the watchdog told when it is polled.
async fn watched<T>(post: Arc<Post>, id: RunId, run: impl Future<Output = T>) -> T {
    let mut run = pin!(run);
    poll_fn(move |cx| {
        post.begin_poll(id);
        let polled = run.as_mut().poll(cx);
        post.end_poll();
        polled
    })
    .await
}

/// One run from beginning to end; a panic in it is a failure of this run only.
async fn run(stage: Rc<Stage>, work: Rc<Work>, at: u32, delivery: Arc<Delivery>) -> Ended {
    let program = &work.piece.program;
    let task = Task {
        delivery: delivery.clone(),
        hot: work.piece.hot.clone(),
        steps: work.piece.steps.clone(),
        kept: STEPS_KEPT + program.manifest.retry.max_age,
        services: stage.services.clone(),
        lookups: stage.lookups.clone(),
        program: program.clone(),
    };
    let run = Rc::new(Run::handling(task, program.manifest.limits.clone(), program.manifest.timeout));
    let number = stage.enter(run.clone());
    let mut record = None;
    let outcome = AssertUnwindSafe(life::live(&stage, &work, &run, &mut record)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| {
        run.fail_host(fault::panic_text(&*panic));
        None
    });
    let outcome = program.granted.secrets.redacted(stage.conclude(&run, outcome));
    stage.leave(number);
    failpoint::reached("run.after");
    let steps = run.steps.borrow().to_settle(&delivery);
    let finished = Finished {
        delivery,
        outcome,
        reads: run.buffer.borrow_mut().take_reads(),
        record,
        steps,
        version: program.version.clone(),
        held: run.held.take(),
        usage: Usage {
            cpu: run.cpu(),
            wall: run.started.elapsed(),
            memory_bytes: stage.memory_bytes(&work.piece.program.name),
        },
    };
    (work, at, finished)
}
