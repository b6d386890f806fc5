//! The worker between a bus and a script host that do exactly what the test says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use moontide::bus::{Answer, BusError, Delivery, Inbox, Lease, Past, Run, Start, Step, StepAnswer, Steps};
use moontide::clock::ManualClock;
use moontide::event::EntryId;
use moontide::judge::{DeathReason, RetryPolicy, Verdict};
use moontide::metrics::{HandlerMetrics, Metrics};
use moontide::outcome::{Effects, Failure, FailureKind, Outcome, RecordKey, Release};
use moontide::script::{
    Finished, Granted, Grants, Idempotency, IdempotencyKey, Job, Limits, Manifest, Mode, Program, Usage,
};
use moontide::worker::{Runner, Spec, work};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, event};

/// What the store says to a settle: nothing for `None`, which stands for a lost connection.
type Reply = Option<Answer>;

#[derive(Default)]
struct FakeInbox {
    waiting: Mutex<VecDeque<Delivery>>,
    arrived: Notify,
    /// Replies to the next runs settled, in order; then every run is done.
    replies: Mutex<VecDeque<Reply>>,
    settled: Mutex<Vec<Run>>,
    log: Log,
    marks_are_ours: Mutex<bool>,
    /// Replies to so many marks are lost.
    marks_unanswered: Mutex<u32>,
    /// Everything answers that the bus is closed.
    closed: Mutex<bool>,
    /// Settles wait.
    blocked: Mutex<bool>,
}

type Log = Arc<Mutex<Vec<String>>>;

#[async_trait]
impl Inbox for FakeInbox {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, BusError> {
        loop {
            if *self.closed.lock() {
                return Err(BusError::Closed);
            }
            let arrived = self.arrived.notified();
            {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(max);
                if count > 0 {
                    return Ok(waiting.drain(..count).collect());
                }
            }
            arrived.await;
        }
    }

    async fn settle(&self, runs: Arc<[Run]>) -> Result<Vec<Answer>, BusError> {
        if *self.closed.lock() {
            return Err(BusError::Closed);
        }
        while *self.blocked.lock() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut answers = Vec::new();
        for run in &*runs {
            match self.replies.lock().pop_front() {
                Some(None) => {
                    self.log.lock().push("no answer".to_owned());
                    return Err(BusError::Away { store: "the store".to_owned(), cause: "unplugged".to_owned() });
                }
                Some(Some(answer)) => answers.push(answer),
                None => answers.push(Answer::Done { dead: None }),
            }
            self.log.lock().push(format!("settle {}", run.deliveries[0].delivery.entry.0));
        }
        self.settled.lock().extend(runs.iter().cloned());
        Ok(answers)
    }

    async fn mark(&self, delivery: &Delivery) -> Result<bool, BusError> {
        self.log.lock().push(format!("mark {}", delivery.entry.0));
        let left = self.marks_unanswered.lock().checked_sub(1);
        if let Some(left) = left {
            *self.marks_unanswered.lock() = left;
            return Err(BusError::Away { store: "the store".to_owned(), cause: "unplugged".to_owned() });
        }
        Ok(*self.marks_are_ours.lock())
    }
}

#[async_trait]
impl Steps for FakeInbox {
    async fn recall(&self, _: RecordKey) -> Result<Vec<(String, Bytes)>, BusError> {
        Ok(Vec::new())
    }

    async fn record(&self, _: &Delivery, _: &Step) -> Result<StepAnswer, BusError> {
        Ok(StepAnswer::Recorded)
    }
}

/// Ends each run as the next outcome says; without one, as done. Holds runs back while `hold` is set.
#[derive(Default)]
struct FakeRunner {
    outcomes: Mutex<VecDeque<Outcome>>,
    jobs: Mutex<Vec<(u64, bool)>>,
    held: Mutex<Option<Vec<Job>>>,
    log: Log,
}

impl Runner for FakeRunner {
    fn submit(&self, job: Job) {
        for delivery in &job.deliveries {
            self.log.lock().push(format!("run {}", delivery.entry.0));
            self.jobs.lock().push((delivery.entry.0, job.alone));
        }
        match self.held.lock().as_mut() {
            Some(held) => held.push(job),
            None => self.finish(job),
        }
    }
}

impl FakeRunner {
    fn finish(&self, job: Job) {
        let finished = job.deliveries.iter().map(|delivery| Finished {
            delivery: delivery.clone(),
            outcome: self.outcomes.lock().pop_front().unwrap_or(Outcome::Done(Effects::default())),
            reads: Vec::new(),
            record: None,
            steps: None,
            version: job.program.version.clone(),
            held: Vec::new(),
            usage: Usage::default(),
        });
        job.reply.send(finished.collect()).expect("the worker listens");
    }

    fn let_go(&self) {
        let held = self.held.lock().take().unwrap_or_default();
        held.into_iter().for_each(|job| self.finish(job));
    }
}

struct Bench {
    inbox: Arc<FakeInbox>,
    runner: Arc<FakeRunner>,
    metrics: Arc<HandlerMetrics>,
    alone: Arc<tokio::sync::Mutex<()>>,
    stop: CancellationToken,
    work: JoinHandle<()>,
    log: Log,
}

impl Bench {
    fn new(concurrency: usize) -> Self {
        let log = Log::default();
        let inbox = Arc::new(FakeInbox { log: log.clone(), marks_are_ours: Mutex::new(true), ..FakeInbox::default() });
        let runner = Arc::new(FakeRunner { log: log.clone(), ..FakeRunner::default() });
        let metrics = Arc::new(Metrics::new().handler("tick"));
        let (stop, alone) = (CancellationToken::new(), Arc::<tokio::sync::Mutex<()>>::default());
        let spec = Spec {
            program: Arc::new(ArcSwap::from_pointee(program(concurrency))),
            runner: runner.clone(),
            metrics: metrics.clone(),
            clock: Arc::new(ManualClock::at(0)),
            alone: alone.clone(),
            mode: Mode::Live,
            seed: 1,
            stop: stop.clone(),
        };
        let work = tokio::spawn(work(inbox.clone(), spec));
        Self { inbox, runner, metrics, alone, stop, work, log }
    }

    fn deliver(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.inbox.waiting.lock().extend(deliveries);
        self.inbox.arrived.notify_one();
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("stuck at {:?}", self.log.lock()));
    }

    async fn until_settled(&self, count: usize) -> Vec<Verdict> {
        self.until(|bench| bench.inbox.settled.lock().len() >= count).await;
        self.inbox.settled.lock().iter().map(|run| run.deliveries[0].verdict.clone()).collect()
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.work).await.expect("it stops").expect("it does not panic");
    }
}

pub fn program(concurrency: usize) -> Program {
    let manifest = Manifest {
        types: Vec::new(),
        group: "tick".to_owned(),
        streams: Vec::new(),
        start: Start::Latest,
        concurrency,
        timeout: Duration::from_secs(30),
        retry: RetryPolicy { attempts: 2, ..RetryPolicy::default() },
        idempotency: Idempotency { key: IdempotencyKey::SourceAndId, window: None },
        limits: Limits::default(),
        grants: Grants::default(),
    };
    Program {
        name: "tick".into(),
        version: "v1".into(),
        manifest,
        granted: Granted::default(),
        file: "tick.luau".to_owned(),
        modules: Vec::new(),
        sources: Arc::default(),
    }
}

fn delivery(n: u64) -> Delivery {
    Delivery {
        lease: Lease { claim: n, epoch: 0 },
        stream: "events:tick".into(),
        entry: EntryId(n, 0),
        event: Ok(event("tick", n, "{}").event),
        lay: None,
        past: None,
        orphaned: 0,
        deaths: 0,
        received: 0,
    }
}

#[tokio::test]
async fn a_store_that_is_away_repeats_the_settle_and_never_the_script() {
    let bench = Bench::new(8);
    bench.inbox.replies.lock().extend([None, None, Some(Answer::AlreadyMine)]);
    bench.deliver([delivery(1)]);
    assert_eq!(bench.until_settled(1).await, [Verdict::Commit]);
    bench.until(|bench| bench.metrics.counts().done == 1).await;
    assert_eq!(*bench.log.lock(), ["run 1", "no answer", "no answer", "settle 1"]);
    bench.end().await;
}

#[tokio::test]
async fn a_conflict_runs_again_uncharged() {
    let bench = Bench::new(8);
    let conflict = || Some(Answer::Conflict { key: "stock/1".to_owned() });
    bench.inbox.replies.lock().extend([conflict(), conflict(), conflict()]);
    bench.deliver([delivery(1)]);
    bench.until(|bench| bench.metrics.counts().done == 1).await;
    assert_eq!(bench.runner.jobs.lock().len(), 4);
    let settled = bench.inbox.settled.lock().clone();
    assert!(settled.iter().all(|run| run.deliveries[0].delivery.attempt() == 1));
    assert_eq!(bench.metrics.counts().retried, 0);
    bench.end().await;
}

#[tokio::test]
async fn suspects_are_marked_and_run_one_at_a_time() {
    let bench = Bench::new(8);
    *bench.runner.held.lock() = Some(Vec::new());
    bench.deliver([1, 2].map(|n| Delivery { orphaned: 2, ..delivery(n) }));
    bench.until(|bench| !bench.runner.jobs.lock().is_empty()).await;
    assert_eq!(*bench.runner.jobs.lock(), [(1, true)], "the second waits until the first is settled");
    bench.runner.let_go();
    bench.until_settled(2).await;
    assert_eq!(*bench.log.lock(), ["mark 1", "run 1", "settle 1", "mark 2", "run 2", "settle 2"]);
    bench.end().await;
}

#[tokio::test]
async fn a_suspect_that_is_not_ours_any_more_is_dropped() {
    let bench = Bench::new(8);
    *bench.inbox.marks_are_ours.lock() = false;
    bench.deliver([Delivery { orphaned: 2, ..delivery(1) }, delivery(2)]);
    bench.until_settled(1).await;
    bench.until(|bench| bench.log.lock().contains(&"mark 1".to_owned())).await;
    assert_eq!(*bench.runner.jobs.lock(), [(2, false)]);
    bench.end().await;
}

#[tokio::test]
async fn a_killer_is_given_up_without_another_run() {
    let bench = Bench::new(8);
    bench.deliver([Delivery { orphaned: 4, deaths: 2, ..delivery(1) }]);
    let verdicts = bench.until_settled(1).await;
    assert!(matches!(verdicts[0], Verdict::Dead { reason: DeathReason::Killer, .. }), "{verdicts:?}");
    assert!(bench.runner.jobs.lock().is_empty());
    bench.end().await;
}

#[tokio::test]
async fn a_run_that_costs_its_thread_twice_is_a_killer() {
    let bench = Bench::new(8);
    let stuck = || Outcome::Released(Release::Stuck);
    bench.runner.outcomes.lock().extend([
        stuck(),
        Outcome::Released(Release::Moved),
        Outcome::Done(Effects::default()),
    ]);
    bench.deliver([delivery(1), delivery(2)]);
    assert_eq!(bench.until_settled(1).await, [Verdict::Commit]);
    bench.runner.outcomes.lock().extend([stuck()]);
    let verdicts = bench.until_settled(2).await;
    let Verdict::Dead { reason: DeathReason::Killer, failure } = &verdicts[1] else { panic!("{verdicts:?}") };
    assert_eq!(failure.kind, FailureKind::Crash);
    let log = ["run 1", "run 2", "run 2", "settle 2", "mark 1", "run 1", "settle 1"];
    assert_eq!(*bench.log.lock(), log, "it ran alone and under its mark");
    bench.end().await;
}

#[tokio::test]
async fn a_suspect_that_costs_its_thread_gives_its_turn_to_the_next() {
    let bench = Bench::new(8);
    bench.runner.outcomes.lock().extend([Outcome::Released(Release::Stuck)]);
    bench.deliver([1, 2].map(|n| Delivery { orphaned: 2, ..delivery(n) }));
    bench.until_settled(2).await;
    let log = ["mark 1", "run 1", "mark 2", "run 2", "settle 2", "mark 1", "run 1", "settle 1"];
    assert_eq!(*bench.log.lock(), log);
    bench.end().await;
}

#[tokio::test]
async fn effects_that_can_never_be_applied_end_in_a_dead_letter() {
    let bench = Bench::new(8);
    bench.inbox.replies.lock().extend([Some(Answer::Invalid { reason: "n is a text".to_owned() })]);
    bench.deliver([delivery(1)]);
    let verdicts = bench.until_settled(2).await;
    let Verdict::Dead { reason: DeathReason::Invalid, failure } = &verdicts[1] else { panic!("{verdicts:?}") };
    assert_eq!((failure.kind, &*failure.message), (FailureKind::Refused, "n is a text"));
    assert_eq!(bench.runner.jobs.lock().len(), 1);
    bench.end().await;
}

#[tokio::test]
async fn victims_of_a_neighbour_run_again_alone_and_uncharged() {
    let bench = Bench::new(8);
    bench.runner.outcomes.lock().extend([Outcome::Released(Release::Neighbour)]);
    bench.deliver([delivery(1)]);
    assert_eq!(bench.until_settled(1).await, [Verdict::Commit]);
    assert_eq!(*bench.runner.jobs.lock(), [(1, false), (1, true)]);
    bench.end().await;
}

#[tokio::test]
async fn no_more_runs_are_in_flight_than_the_handler_allows() {
    let bench = Bench::new(3);
    *bench.runner.held.lock() = Some(Vec::new());
    bench.deliver((1..=10).map(delivery));
    bench.until(|bench| bench.runner.jobs.lock().len() >= 3).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.runner.jobs.lock().len(), 3);
    bench.runner.let_go();
    bench.until_settled(10).await;
    bench.end().await;
}

#[tokio::test]
async fn a_stop_gives_back_what_did_not_start_and_finishes_what_did() {
    let bench = Bench::new(2);
    *bench.runner.held.lock() = Some(Vec::new());
    bench.deliver((1..=4).map(delivery));
    bench.until(|bench| bench.runner.jobs.lock().len() == 2 && bench.inbox.waiting.lock().is_empty()).await;
    bench.stop.cancel();
    let failed = Outcome::Failed(Failure::new(FailureKind::Error, "boom"));
    bench.runner.outcomes.lock().extend([Outcome::Released(Release::Stopping), failed]);
    bench.until_settled(2).await;
    bench.runner.let_go();
    let verdicts = bench.until_settled(4).await;
    assert_eq!(verdicts[..3], [Verdict::Release, Verdict::Release, Verdict::Release]);
    assert!(matches!(verdicts[3], Verdict::Retry { counted: true, .. }), "{verdicts:?}");
    bench.end().await;
}

#[tokio::test]
async fn a_suspect_that_had_a_conflict_keeps_its_turn() {
    let bench = Bench::new(8);
    *bench.runner.held.lock() = Some(Vec::new());
    bench.inbox.replies.lock().extend([Some(Answer::Conflict { key: "stock/1".to_owned() })]);
    bench.deliver([1, 2].map(|n| Delivery { orphaned: 2, ..delivery(n) }));
    bench.until(|bench| bench.runner.jobs.lock().len() == 1).await;
    let first = bench.runner.held.lock().as_mut().map(std::mem::take).expect("runs are held back");
    first.into_iter().for_each(|job| bench.runner.finish(job));
    bench.until(|bench| bench.runner.jobs.lock().len() == 2).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let expected = ["mark 1", "run 1", "settle 1", "run 1"];
    assert_eq!(*bench.log.lock(), expected, "two under their marks at once would both be charged with a death");
    bench.runner.let_go();
    bench.until_settled(3).await;
    bench.end().await;
}

#[tokio::test]
async fn an_event_whose_dead_letter_is_refused_stays_pending_and_is_not_spun_on() {
    let bench = Bench::new(8);
    let refused = || Some(Answer::Invalid { reason: "not this".to_owned() });
    bench.inbox.replies.lock().extend([refused(), refused()]);
    bench.deliver([delivery(1)]);
    bench.until_settled(2).await;
    bench.stop.cancel();
    let verdicts = bench.until_settled(3).await;
    assert_eq!(verdicts[2], Verdict::Release, "it goes back, and is neither acknowledged nor forgotten");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_killer_whose_dead_letter_is_refused_is_not_run_for_that() {
    let bench = Bench::new(8);
    bench.inbox.replies.lock().extend([Some(Answer::Invalid { reason: "not this".to_owned() })]);
    bench.deliver([Delivery { orphaned: 4, deaths: 2, ..delivery(1) }]);
    let verdicts = bench.until_settled(2).await;
    assert!(matches!(verdicts[1], Verdict::Dead { reason: DeathReason::Killer, .. }), "{verdicts:?}");
    assert!(bench.runner.jobs.lock().is_empty());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_repeated_still_runs_alone() {
    for release in [Release::StoreAway, Release::Moved] {
        let bench = Bench::new(8);
        bench.runner.outcomes.lock().extend([Outcome::Released(release)]);
        bench.deliver([Delivery { orphaned: 1, deaths: 1, ..delivery(1) }]);
        assert_eq!(bench.until_settled(1).await, [Verdict::Commit]);
        assert_eq!(*bench.runner.jobs.lock(), [(1, true), (1, true)], "{release:?}");
        bench.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_else_has_the_turn_while_a_mark_may_have_been_written() {
    let bench = Bench::new(8);
    *bench.inbox.marks_unanswered.lock() = 1;
    bench.deliver([Delivery { orphaned: 2, ..delivery(1) }]);
    bench.until(|bench| bench.log.lock().len() == 1).await;
    assert!(bench.alone.try_lock().is_err(), "a suspect of another handler would be charged together with this one");
    bench.until_settled(1).await;
    assert_eq!(*bench.log.lock(), ["mark 1", "mark 1", "run 1", "settle 1"]);
    bench.until(|bench| bench.alone.try_lock().is_ok()).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_takes_no_slot_from_others() {
    let bench = Bench::new(1);
    bench.deliver([Delivery { orphaned: 1, deaths: 1, ..delivery(1) }, delivery(2), delivery(3)]);
    bench.until_settled(3).await;
    let log = bench.log.lock().join(", ");
    assert_eq!(log, "run 2, settle 2, run 3, settle 3, mark 1, run 1, settle 1");
    bench.end().await;
}

#[tokio::test]
async fn age_is_told_by_the_stores_clock_alone() {
    let bench = Bench::new(8);
    let contested = || Outcome::Contested { by: "another".to_owned() };
    bench.runner.outcomes.lock().extend([contested(), contested()]);
    let past = Past { first_received: 1_000_000_000, ..Past::of(&delivery(1)) };
    let of_age =
        |age: i64| Delivery { received: 1_000_000_000 + age, past: Some(Box::new(past.clone())), ..delivery(1) };
    bench.deliver([of_age(29_000), of_age(30_000)]);
    let verdicts = bench.until_settled(2).await;
    assert!(matches!(verdicts[..], [Verdict::Retry { .. }, Verdict::Skip { .. }]), "{verdicts:?}");
    bench.end().await;
}

#[tokio::test]
async fn what_runs_again_waits_for_a_slot() {
    let bench = Bench::new(1);
    bench.inbox.replies.lock().extend([Some(Answer::Conflict { key: "stock/1".to_owned() })]);
    bench.deliver([delivery(1)]);
    bench.until(|bench| bench.metrics.counts().conflicts == 1).await;
    bench.until(|bench| bench.metrics.counts().done == 1).await;
    // Two run, conflict, and want to run again while a third one has the only slot.
    bench.runner.outcomes.lock().extend([Outcome::Released(Release::StoreAway), Outcome::Released(Release::StoreAway)]);
    bench.deliver([delivery(2), delivery(3)]);
    bench.until(|bench| bench.runner.jobs.lock().len() == 4).await;
    *bench.runner.held.lock() = Some(Vec::new());
    bench.deliver([delivery(4)]);
    bench.until(|bench| bench.runner.jobs.lock().len() == 5).await;
    tokio::time::sleep(2 * moontide::bus::backoff(1)).await;
    assert_eq!(bench.runner.jobs.lock().len(), 5, "one run at a time");
    bench.runner.let_go();
    bench.until(|bench| bench.metrics.counts().done == 4).await;
    bench.end().await;
}

#[tokio::test]
async fn a_store_that_is_closed_ends_the_worker() {
    let bench = Bench::new(8);
    *bench.inbox.closed.lock() = true;
    bench.deliver([delivery(1)]);
    tokio::time::timeout(PATIENCE, bench.work).await.expect("it ends").expect("it does not panic");
}

#[tokio::test]
async fn effects_that_wait_for_the_store_are_bounded_in_bytes() {
    let bench = Bench::new(8);
    let heavy = || {
        let data = format!("\"{}\"", "x".repeat(1 << 20));
        Outcome::Done(Effects { events: vec![event("big", "e", &data); 3], ..Effects::default() })
    };
    bench.runner.outcomes.lock().extend((0..200).map(|_| heavy()));
    *bench.inbox.blocked.lock() = true;
    bench.deliver((1..=200).map(delivery));
    bench.until(|bench| bench.runner.jobs.lock().len() >= 22).await;
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    let started = bench.runner.jobs.lock().len();
    assert!(started < 40, "{started} runs of 3 MiB each, and none of them settled");
    *bench.inbox.blocked.lock() = false;
    bench.until_settled(200).await;
    bench.end().await;
}
