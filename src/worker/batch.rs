//! One settle: judged runs on their way to the store, repeated until it answers.
//!
//! A store that is away repeats the settle, never the script. That is harmless, because a settle that came through
//! unseen answers "already mine".

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::bus::{Answer, BusError, Delivery, Inbox, Run, Settling, backoff};
use crate::failpoint;
use crate::hot::HotGuard;
use crate::judge::{DeathReason, Verdict};
use crate::metrics::HandlerMetrics;
use crate::outcome::{Effects, Failure, FailureKind, Measure, Read, Record, RecordKey};
use crate::script::Usage;

use super::report;

/// Runs in one settle.
const RUNS_MAX: usize = 512;
/// Effects in one settle, unless a single run has more: other handlers wait for the same writer.
const BYTES_MAX: usize = 16 << 20;

/// A run and its verdict, not settled yet.
pub(super) struct Judged {
    pub delivery: Arc<Delivery>,
    pub verdict: Verdict,
    /// Empty once they are on their way to the store.
    pub effects: Effects,
    pub measures: Vec<Measure>,
    /// Empty once they are on their way to the store.
    pub reads: Vec<Read>,
    pub record: Option<Record>,
    pub steps: Option<RecordKey>,
    pub version: Arc<str>,
    /// Turns on hot keys; dropped with this.
    pub held: Vec<HotGuard>,
    pub usage: Usage,
    /// What the effects weigh until they are settled.
    pub bytes: usize,
}

/// What became of a batch; all three in one order.
pub(super) struct SettledBatch {
    pub judged: Vec<Judged>,
    pub runs: Arc<[Run]>,
    pub answers: Vec<Answer>,
    pub took: Duration,
}

impl Judged {
    /// A verdict on a delivery that was not run.
    pub fn without_run(delivery: Arc<Delivery>, verdict: Verdict, version: Arc<str>) -> Self {
        let steps = delivery.past.as_ref().and_then(|past| past.steps);
        Self {
            delivery,
            verdict,
            effects: Effects::default(),
            measures: Vec::new(),
            reads: Vec::new(),
            record: None,
            steps,
            version,
            held: Vec::new(),
            usage: Usage::default(),
            bytes: 0,
        }
    }

    /// The verdict on a delivery under which the process, or a script thread, died too often: it is not run once more.
    pub fn killer(delivery: Arc<Delivery>, how: &str, version: Arc<str>) -> Self {
        let failure = Failure::new(FailureKind::Crash, how);
        Self::without_run(delivery, Verdict::Dead { reason: DeathReason::Killer, failure }, version)
    }

    /// The same run after the store said that its effects can never be applied: dead.
    pub fn refused(mut self, run: &Run, reason: String) -> Self {
        self.reads = run.reads.clone();
        let failure = Failure::new(FailureKind::Refused, reason);
        self.verdict = Verdict::Dead { reason: DeathReason::Invalid, failure };
        self.bytes = 0;
        self
    }

    /// What the store gets; effects and reads move over.
    fn take_run(&mut self) -> Run {
        let ends = matches!(self.verdict, Verdict::Commit | Verdict::Dead { .. });
        Run {
            deliveries: vec![Settling { delivery: self.delivery.clone(), verdict: self.verdict.clone() }],
            reads: std::mem::take(&mut self.reads),
            effects: std::mem::take(&mut self.effects),
            record: if ends { self.record.clone() } else { None },
            steps: self.steps,
            version: self.version.clone(),
        }
    }
}

/// Takes the runs of the next settle out of `unsettled`: at least one, and no more than a transaction should hold.
pub(super) fn cut(unsettled: &mut Vec<Judged>) -> Vec<Judged> {
    let mut bytes = 0;
    let fits = unsettled.iter().take(RUNS_MAX).take_while(|judged| {
        let first = bytes == 0;
        bytes += judged.bytes;
        first || bytes <= BYTES_MAX
    });
    let rest = unsettled.split_off(fits.count());
    std::mem::replace(unsettled, rest)
}

/// Settles `judged`, repeating while the store is away. A store that is closed answers nothing more: what it still held
/// has gone back.
pub(super) async fn settle(
    inbox: Arc<dyn Inbox>,
    metrics: Arc<HandlerMetrics>,
    handler: Arc<str>,
    mut judged: Vec<Judged>,
) -> SettledBatch {
    let began = Instant::now();
    let runs: Arc<[Run]> = judged.iter_mut().map(Judged::take_run).collect();
    let mut failures = 0;
    loop {
        failpoint::reached("settle.before");
        match failpoint::after("settle.after", inbox.settle(runs.clone()).await) {
            Ok(answers) => return SettledBatch { judged, runs, answers, took: began.elapsed() },
            Err(BusError::Closed) => return SettledBatch { judged, runs, answers: Vec::new(), took: began.elapsed() },
            Err(error) => {
                report::store_away(&metrics, &handler, &error);
                failures += 1;
                tokio::time::sleep(backoff(failures)).await;
            }
        }
    }
}
