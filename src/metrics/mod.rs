//! All metric families, in one struct.
//!
//! Names and labels are a contract with dashboards: those that document 5's workers had keep their names, everything else
//! is `moontide_…`. Labels are looked up once per handler, never per event; values that events or scripts choose are
//! bounded.

mod calls;
mod channels;
mod custom;
mod families;
mod groups;
mod latency;
mod lines;
mod outages;
mod pairs;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge};

use crate::bus::Delivery;
use crate::clock::Millis;
use crate::judge::DeathReason;
use crate::outcome::{Emit, Measure};
use crate::script::Usage;

use custom::Custom;
pub use families::{Counted, Metrics};
use lines::Lines;
pub use outages::Outages;
use pairs::{Pairs, Series};

/// The metrics of one handler, labels resolved.
pub struct HandlerMetrics {
    name: String,
    families: Metrics,
    done: IntCounter,
    retried: IntCounter,
    snoozed: IntCounter,
    duplicate: IntCounter,
    conflict: IntCounter,
    fenced: IntCounter,
    released: IntCounter,
    dead: [IntCounter; DeathReason::ALL.len()],
    received: IntCounter,
    running: IntGauge,
    buffered: IntGauge,
    settle_seconds: Histogram,
    run_seconds: Histogram,
    cpu_seconds: prometheus::Counter,
    loaded: IntCounter,
    refused: IntCounter,
    removed: IntCounter,
    defects: IntCounter,
    /// What serves, as it is said in [`Metrics`].
    version: Mutex<Option<String>>,
    memory: IntGauge,
    attempts: IntCounter,
    pairs: Mutex<Pairs<Series>>,
    custom: Custom,
    last_error: Mutex<Option<String>>,
    failure_lines: Lines,
    consumed_lines: Lines,
    began: Instant,
    /// Milliseconds after `began` when something was last received or settled.
    heard_at: AtomicU64,
    serving: AtomicBool,
}

/// A handler's counts since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub done: u64,
    /// Retries and snoozes.
    pub retried: u64,
    pub dead: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub running: u64,
}

impl HandlerMetrics {
    /// What the handler did since the process started.
    pub fn counts(&self) -> Counts {
        Counts {
            done: self.done.get(),
            retried: self.retried.get() + self.snoozed.get(),
            dead: self.dead.iter().map(IntCounter::get).sum(),
            duplicates: self.duplicate.get(),
            conflicts: self.conflict.get(),
            running: u64::try_from(self.running.get()).unwrap_or(0),
        }
    }

    /// How many runs are under way, and how many deliveries wait for one.
    pub fn in_hand(&self, running: usize, buffered: usize) {
        self.running.set(running as i64);
        self.buffered.set(buffered as i64);
    }

    /// `count` deliveries were received.
    pub fn received(&self, count: usize) {
        self.received.inc_by(count as u64);
        self.heard();
    }

    /// A settle was answered after `took`.
    pub fn settled(&self, took: Duration) {
        self.settle_seconds.observe(took.as_secs_f64());
        self.heard();
    }

    fn heard(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_at.store(millis, Ordering::Relaxed);
    }

    /// How long nothing was received or settled, with no run under way and none waiting for one; zero: it works.
    pub fn idle(&self) -> Duration {
        if self.running.get() > 0 || self.buffered.get() > 0 {
            return Duration::ZERO;
        }
        self.began.elapsed().saturating_sub(Duration::from_millis(self.heard_at.load(Ordering::Relaxed)))
    }

    /// Its group is open and its worker at work, or not any more.
    pub fn serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
    }

    /// Whether its worker is at work.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// A run used this much, whatever became of it.
    pub fn ran(&self, usage: Usage) {
        self.run_seconds.observe(usage.wall.as_secs_f64());
        self.cpu_seconds.inc_by(usage.cpu.as_secs_f64());
        self.memory.set(i64::try_from(usage.memory_bytes).unwrap_or(i64::MAX));
        self.attempts.inc();
    }

    /// A run was committed, at `now`.
    pub fn done(&self, delivery: &Delivery, measures: &[Measure], emits: &[Emit], now: Millis) {
        self.done.inc();
        if let Ok(event) = &delivery.event {
            let (topic, _) = delivery.origin();
            let mut pairs = self.pairs.lock();
            let make = |topic: &str, kind: &str| self.families.series(topic, kind, &self.name);
            let series = pairs.of(self.families.admission(), topic, &event.kind, make);
            series.consumed.inc();
            if let Some(seconds) = latency::seconds(event, now) {
                series.latency.observe(seconds);
            }
        }
        if !emits.is_empty() {
            self.families.counted(emits).now();
        }
        measures.iter().for_each(|measure| self.custom.take(&self.families, measure));
    }

    /// An attempt failed with `message`.
    pub fn failed(&self, message: String) {
        *self.last_error.lock() = Some(message);
    }

    /// The message of the failure before now, if there was one.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// A failed attempt will be repeated; `counted` tells a retry from a snooze.
    pub fn retried(&self, counted: bool) {
        if counted { &self.retried } else { &self.snoozed }.inc();
    }

    /// An event was given up.
    pub fn dead(&self, reason: DeathReason) {
        self.dead[reason as usize].inc();
    }

    /// A delivery was acknowledged without effects: its idempotency key is taken.
    pub fn duplicate(&self) {
        self.duplicate.inc();
    }

    /// A run is repeated because state moved under it.
    pub fn conflict(&self) {
        self.conflict.inc();
    }

    /// Our copy of a delivery was dropped: it is not ours any more.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// A delivery was given back unrun.
    pub fn released(&self) {
        self.released.inc();
    }

    /// A version took over.
    pub fn loaded(&self, version: &str) {
        self.loaded.inc();
        self.serves(Some(version));
    }

    /// The file as it stands does not serve.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// The handler's file is gone.
    pub fn removed(&self) {
        self.removed.inc();
        self.serves(None);
    }

    /// Its worker ended by a defect of the host.
    pub fn defect(&self) {
        self.defects.inc();
    }

    fn serves(&self, version: Option<&str>) {
        let mut before = self.version.lock();
        if let Some(before) = before.take() {
            // It was put there by us and nobody else; that it is gone already is as well.
            let _ = self.families.info.remove_label_values(&[&self.name, &before]);
        }
        if let Some(version) = version {
            self.families.info.with_label_values(&[self.name.as_str(), version]).set(1);
        }
        *before = version.map(str::to_owned);
    }

    /// Whether one more log line about this handler's failures is bearable now.
    pub fn may_log(&self) -> bool {
        self.failure_lines.may()
    }

    /// Which errors of the store are worth a log line; all handlers share it.
    pub fn outages(&self) -> &Outages {
        &self.families.outages
    }

    /// Whether one more log line about a handled event is bearable now.
    pub fn may_log_consumed(&self) -> bool {
        self.consumed_lines.may()
    }
}
