//! One loop per handler: receive, run, judge, settle, report.
//!
//! Owns the slots of a handler in this process and the order of the steps; decides nothing about an event itself (that is
//! `judge`) and nothing about storage (that is the bus). Nobody waits for a timer: what finished while the last settle was
//! under way goes into the next one. Metrics and logs are written from what settle answered.

mod again;
mod batch;
mod later;
mod pace;
mod receiving;
mod report;
mod spec;
mod suspects;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::OwnedMutexGuard;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bus::{Answer, BusError, CRASH_BUDGET, Delivery, Inbox, ORPHANED_ALONE, backoff};
use crate::failpoint;
use crate::hot::HotKeys;
use crate::judge::{Circumstances, DeathReason, Verdict, judge};
use crate::outcome::{Outcome, Release};
use crate::script::{Finished, Job, Mode};

use batch::{Judged, SettledBatch};
use later::{AFTER_DEATH, Again, Later, UNWRITABLE_WAIT};
use pace::Pace;
use receiving::{Received, Receiving};
pub use spec::{Runner, Spec};
use suspects::Suspects;

/// Settles of one handler under way at a time: one in the store while the next one forms.
const SETTLES_IN_FLIGHT: usize = 2;
/// Runs that wait for a settle before no new ones are started.
const UNSETTLED_MAX: usize = 2048;
/// Effects that wait for a settle before no new runs are started.
const UNSETTLED_BYTES_MAX: usize = 64 << 20;

/// Works until it is stopped and everything in hand is settled or given back.
pub async fn work(inbox: Arc<dyn Inbox>, spec: Spec) {
    Worker::new(inbox, spec).run().await;
}

struct Worker {
    inbox: Arc<dyn Inbox>,
    spec: Spec,
    hot: Arc<HotKeys>,
    rng: SmallRng,
    pace: Pace,
    /// Received, not started.
    buffer: VecDeque<Arc<Delivery>>,
    /// Received, to be run alone.
    suspects: Suspects,
    /// To be run again, alone in their VM or not, as soon as a slot is free.
    again: VecDeque<(Arc<Delivery>, bool)>,
    running: usize,
    /// What effects weigh that are not settled yet.
    bytes: usize,
    unsettled: Vec<Judged>,
    receiving: Receiving,
    settling: FuturesUnordered<BoxFuture<'static, SettledBatch>>,
    later: Later,
    reply: UnboundedSender<Vec<Finished>>,
    finished: UnboundedReceiver<Vec<Finished>>,
    stopping: bool,
}

impl Worker {
    fn new(inbox: Arc<dyn Inbox>, spec: Spec) -> Self {
        let (reply, finished) = unbounded_channel();
        let rng = SmallRng::seed_from_u64(spec.seed);
        let later = Later::new(spec.stop.clone());
        Self {
            inbox,
            spec,
            hot: Arc::default(),
            rng,
            pace: Pace::default(),
            buffer: VecDeque::new(),
            suspects: Suspects::default(),
            again: VecDeque::new(),
            running: 0,
            bytes: 0,
            unsettled: Vec::new(),
            receiving: Receiving::default(),
            settling: FuturesUnordered::new(),
            later,
            reply,
            finished,
            stopping: false,
        }
    }

    async fn run(mut self) {
        while !self.is_drained() {
            self.start_runs();
            self.receive_more();
            self.start_settles();
            self.spec.metrics.in_hand(self.running, self.buffer.len() + self.suspects.len());
            self.step().await;
        }
        self.spec.metrics.in_hand(0, 0);
        failpoint::reached("stop.after");
    }

    /// Waits for the next thing to happen and takes it in.
    async fn step(&mut self) {
        let wants_turn = self.suspects.want_turn() && self.free_slots() > 0;
        tokio::select! {
            biased;
            () = self.spec.stop.cancelled(), if !self.stopping => self.begin_stop(),
            Some(batch) = self.settling.next() => self.answered(batch),
            Some(finished) = self.finished.recv() => self.take_finished(finished),
            Some((delivery, again)) = self.later.next() => self.start_again(delivery, again),
            turn = self.suspects.next_turn(&self.spec.alone), if wants_turn => self.run_suspect(turn).await,
            received = self.receiving.answer() => self.take_received(received),
        }
    }

    fn is_drained(&self) -> bool {
        self.stopping
            && self.running == 0
            && self.unsettled.is_empty()
            && self.settling.is_empty()
            && self.later.is_empty()
    }

    fn begin_stop(&mut self) {
        failpoint::reached("stop.before");
        self.stopping = true;
        self.receiving.forget();
        let again = self.again.drain(..).map(|(delivery, _)| delivery);
        let unstarted: Vec<_> = again.chain(self.buffer.drain(..)).chain(self.suspects.drain()).collect();
        for delivery in unstarted {
            self.give_back(delivery);
        }
    }

    fn give_back(&mut self, delivery: Arc<Delivery>) {
        let version = self.spec.program.load().version.clone();
        self.unsettled.push(Judged::without_run(delivery, Verdict::Release, version));
    }

    // --- receive ---

    fn receive_more(&mut self) {
        let concurrency = self.spec.program.load().manifest.concurrency;
        let ready = self.buffer.len() + self.again.len() + self.later.soon();
        let room = self.pace.room(concurrency, ready, self.suspects.len() + self.later.aside());
        if self.stopping || self.is_full() || room == 0 || self.receiving.is_under_way() {
            return;
        }
        self.receiving.ask(self.inbox.clone(), room);
    }

    /// The store does not keep up: nothing new is started until it does.
    fn is_full(&self) -> bool {
        self.unsettled.len() >= UNSETTLED_MAX || self.bytes >= UNSETTLED_BYTES_MAX
    }

    fn take_received(&mut self, received: Received) {
        match received {
            Ok(deliveries) => {
                self.spec.metrics.received(deliveries.len());
                deliveries.into_iter().for_each(|delivery| self.admit(Arc::new(delivery)));
            }
            Err(BusError::Closed) => self.begin_stop(),
            Err(error) => {
                report::store_away(&self.spec.metrics, &self.spec.program.load().name, &error);
            }
        }
    }

    /// Sorts a delivery: to be run, to be run alone, or given up unrun.
    fn admit(&mut self, delivery: Arc<Delivery>) {
        if delivery.orphaned > 0 {
            failpoint::reached("recovery.after");
        }
        if delivery.deaths >= CRASH_BUDGET {
            let how = format!("the process died {} times while this event ran alone", delivery.deaths);
            self.give_up(delivery, &how);
        } else if delivery.deaths > 0 {
            self.later.push(delivery, Again::Suspect, AFTER_DEATH);
        } else if delivery.orphaned >= ORPHANED_ALONE {
            self.suspects.push(delivery);
        } else {
            self.buffer.push_back(delivery);
        }
    }

    /// The crash budget is used up.
    fn give_up(&mut self, delivery: Arc<Delivery>, how: &str) {
        let version = self.spec.program.load().version.clone();
        self.unsettled.push(Judged::killer(delivery, how, version));
    }

    // --- run ---

    fn start_runs(&mut self) {
        if self.stopping || self.is_full() {
            return;
        }
        while self.free_slots() > 0
            && let Some((delivery, alone)) = self.again.pop_front()
        {
            self.submit(vec![delivery], alone);
        }
        let batch: Vec<_> = self.buffer.drain(..self.free_slots().min(self.buffer.len())).collect();
        self.submit(batch, false);
    }

    fn free_slots(&self) -> usize {
        self.spec.program.load().manifest.concurrency.saturating_sub(self.running)
    }

    fn submit(&mut self, deliveries: Vec<Arc<Delivery>>, alone: bool) {
        if deliveries.is_empty() {
            return;
        }
        self.running += deliveries.len();
        failpoint::reached("run.before");
        self.spec.runner.submit(Job {
            program: self.spec.program.load_full(),
            deliveries,
            mode: self.spec.mode,
            alone,
            hot: self.hot.clone(),
            steps: self.inbox.clone(),
            reply: self.reply.clone(),
        });
    }

    fn start_again(&mut self, delivery: Arc<Delivery>, again: Again) {
        match again {
            _ if self.stopping => self.give_back(delivery),
            Again::Run => self.again.push_back((delivery, false)),
            Again::Alone => self.again.push_back((delivery, true)),
            Again::Suspect => self.suspects.push(delivery),
            Again::GiveUp(how) => self.give_up(delivery, &how),
        }
    }

    async fn run_suspect(&mut self, turn: OwnedMutexGuard<()>) {
        let Some(delivery) = self.suspects.pop() else { return };
        failpoint::reached("mark.before");
        match self.inbox.mark(&delivery).await {
            Ok(true) => {
                failpoint::reached("mark.after");
                self.suspects.take_turn(turn, &delivery);
                self.submit(vec![delivery], true);
            }
            Ok(false) => self.spec.metrics.fenced(),
            Err(error) => {
                report::store_away(&self.spec.metrics, &self.spec.program.load().name, &error);
                self.suspects.put_back(delivery, turn);
                tokio::time::sleep(backoff(0)).await;
            }
        }
    }

    fn take_finished(&mut self, finished: Vec<Finished>) {
        self.take_each(finished);
        while let Ok(more) = self.finished.try_recv() {
            self.take_each(more);
        }
    }

    fn take_each(&mut self, finished: Vec<Finished>) {
        self.running -= finished.len();
        for run in finished {
            match run.outcome {
                Outcome::Released(Release::Neighbour) => self.again(run.delivery, true, Duration::ZERO),
                Outcome::Released(Release::StoreAway) => self.again(run.delivery, false, backoff(1)),
                Outcome::Released(Release::Moved) => self.moved(run.delivery),
                Outcome::Released(Release::Stuck) => self.stuck(run.delivery),
                Outcome::Released(Release::Stale) => self.stale(run.delivery),
                _ => self.judge_run(run),
            }
        }
    }

    fn judge_run(&mut self, run: Finished) {
        failpoint::reached("judge.before");
        let program = self.spec.program.load();
        // Both by the store's clock: ours may say something else.
        let age = run.delivery.past.as_ref().map_or(0, |past| run.delivery.received - past.first_received);
        let at = Circumstances {
            attempt: run.delivery.attempt(),
            age: Duration::from_millis(u64::try_from(age).unwrap_or(0)),
            chance: self.rng.random(),
        };
        let (verdict, effects) = judge(run.outcome, &program.manifest.retry, at);
        let mut effects = effects.filter(|_| self.spec.mode == Mode::Live).unwrap_or_default();
        let bytes = effects.bytes();
        self.bytes += bytes;
        self.unsettled.push(Judged {
            delivery: run.delivery,
            verdict,
            measures: std::mem::take(&mut effects.measures),
            effects,
            bytes,
            reads: run.reads,
            record: run.record,
            steps: run.steps,
            version: run.version,
            held: run.held,
            usage: run.usage,
        });
        failpoint::reached("judge.after");
    }

    // --- settle ---

    fn start_settles(&mut self) {
        while !self.unsettled.is_empty() && self.settling.len() < SETTLES_IN_FLIGHT {
            let batch = batch::cut(&mut self.unsettled);
            let (name, metrics) = (self.spec.program.load().name.clone(), self.spec.metrics.clone());
            self.settling.push(Box::pin(batch::settle(self.inbox.clone(), metrics, name, batch)));
        }
    }

    fn answered(&mut self, batch: SettledBatch) {
        let handler = self.spec.program.load().name.clone();
        self.spec.metrics.settled(batch.took);
        self.pace.settled(batch.judged.len());
        self.bytes -= batch.judged.iter().map(|judged| judged.bytes).sum::<usize>();
        let now = self.spec.clock.now();
        for ((judged, run), answer) in batch.judged.into_iter().zip(&*batch.runs).zip(batch.answers) {
            report::settled(&self.spec.metrics, &handler, &judged, run, &answer, now);
            match answer {
                // A suspect keeps its turn: it runs again, and still alone.
                Answer::Conflict { key: state } => self.conflict(judged, &state),
                Answer::Invalid { .. } if matches!(judged.verdict, Verdict::Dead { .. }) => self.unwritable(judged),
                Answer::Invalid { reason } => self.unsettled.push(judged.refused(run, reason)),
                _ => self.ended(&judged),
            }
        }
        failpoint::reached("next.before");
    }

    /// Not even its dead letter can be written: it stays pending, and nobody spins on it. A killer is not run for that.
    fn unwritable(&mut self, judged: Judged) {
        let Verdict::Dead { reason: DeathReason::Killer, failure } = judged.verdict else {
            return self.again(judged.delivery, false, UNWRITABLE_WAIT);
        };
        self.later.push(judged.delivery, Again::GiveUp(failure.message), UNWRITABLE_WAIT);
    }

    /// The run came to its end; if it was a suspect, the next one has its turn.
    fn ended(&mut self, judged: &Judged) {
        self.suspects.end_turn(&judged.delivery);
        self.later.forget(&judged.delivery);
    }
}
