//! All metric families, in one struct.
//!
//! Names and labels are a contract with dashboards: those that document 5's workers had keep their names, everything else
//! is `moontide_…`. Labels are looked up once per handler, never per event; values that events or scripts choose are
//! bounded.

mod custom;
mod families;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge};

use crate::bus::Delivery;
use crate::judge::DeathReason;
use crate::outcome::{Emit, Measure};
use crate::script::Usage;

use custom::Custom;
pub use families::Metrics;

/// Different (stream, type) pairs counted apart per handler; the rest is counted as `other`.
const PAIRS_MAX: usize = 64;
/// Log lines about failures per handler and second.
const LINES_PER_SECOND: u64 = 20;

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
    /// What serves, as it is said in [`Metrics`].
    version: Mutex<Option<String>>,
    consumed: Mutex<Pairs>,
    published: Mutex<Pairs>,
    custom: Custom,
    last_error: Mutex<Option<String>>,
    lines: Lines,
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
    }

    /// A settle was answered after `took`.
    pub fn settled(&self, took: Duration) {
        self.settle_seconds.observe(took.as_secs_f64());
    }

    /// A run used this much, whatever became of it.
    pub fn ran(&self, usage: Usage) {
        self.run_seconds.observe(usage.wall.as_secs_f64());
        self.cpu_seconds.inc_by(usage.cpu.as_secs_f64());
    }

    /// A run was committed.
    pub fn done(&self, delivery: &Delivery, measures: &[Measure], emits: &[Emit]) {
        self.done.inc();
        if let Ok(event) = &delivery.event {
            let counter =
                |topic: &str, kind: &str| self.families.consumed.with_label_values(&[topic, kind, self.name.as_str()]);
            count(&self.consumed, delivery.origin().0, &event.kind, counter);
        }
        for emit in emits {
            let counter = |topic: &str, kind: &str| self.families.published.with_label_values(&[topic, kind]);
            count(&self.published, &emit.stream, &emit.event.kind, counter);
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
        self.lines.may()
    }
}

/// Counters by stream and type, looked up without an allocation.
#[derive(Default)]
struct Pairs {
    counters: HashMap<String, HashMap<String, IntCounter>>,
    count: usize,
}

fn count(pairs: &Mutex<Pairs>, topic: &str, kind: &str, counter: impl Fn(&str, &str) -> IntCounter) {
    let mut pairs = pairs.lock();
    if let Some(known) = pairs.counters.get(topic).and_then(|kinds| kinds.get(kind)) {
        return known.inc();
    }
    if pairs.count >= PAIRS_MAX {
        return counter("other", "other").inc();
    }
    let made = counter(topic, kind);
    made.inc();
    pairs.count += 1;
    pairs.counters.entry(topic.to_owned()).or_default().insert(kind.to_owned(), made);
}

/// At most so many lines in a second, counted without a lock.
struct Lines {
    began: Instant,
    /// Second since `began` in the upper, lines in it in the lower half.
    state: AtomicU64,
}

impl Lines {
    fn may(&self) -> bool {
        let second = self.began.elapsed().as_secs() << 32;
        let before = self.state.load(Ordering::Relaxed);
        let next = if before & !0xffff_ffff == second { before + 1 } else { second + 1 };
        self.state.store(next, Ordering::Relaxed);
        next - second <= LINES_PER_SECOND
    }
}
