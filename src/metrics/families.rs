//! The families and their registry.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};

use crate::judge::DeathReason;

use super::custom::{Custom, CustomFamilies};
use super::{HandlerMetrics, Lines};

/// Every family of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub(super) consumed: IntCounterVec,
    pub(super) published: IntCounterVec,
    run_seconds: HistogramVec,
    settle_seconds: HistogramVec,
    cpu_seconds: CounterVec,
    received: IntCounterVec,
    outcomes: IntCounterVec,
    dead: IntCounterVec,
    running: IntGaugeVec,
    buffered: IntGaugeVec,
    reloads: IntCounterVec,
    pub(super) info: IntGaugeVec,
    pub(super) custom: Arc<CustomFamilies>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, empty.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGaugeVec::new(Opts::new(name, help), &["handler"]));
        let seconds = |name: &str, help: &str| {
            let buckets = exponential_buckets(0.000_05, 4.0, 11).expect("start and factor are positive");
            register(&registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &["handler"]))
        };
        Self {
            consumed: counter("events_consumed_total", "Events handled and committed.", &["topic", "type", "consumer"]),
            published: counter("events_published_total", "Events emitted by handlers.", &["topic", "type"]),
            run_seconds: seconds("event_handler_duration_seconds", "Wall time of one run of a handler."),
            settle_seconds: seconds("moontide_settle_seconds", "Time until the store answered a settle."),
            cpu_seconds: register(
                &registry,
                CounterVec::new(
                    Opts::new("moontide_script_cpu_seconds_total", "Processor time of scripts."),
                    &["handler"],
                ),
            ),
            received: counter("moontide_deliveries_total", "Deliveries received.", &["handler"]),
            outcomes: counter("moontide_outcomes_total", "What became of deliveries.", &["handler", "outcome"]),
            dead: counter("moontide_dead_letters_total", "Events given up, by reason.", &["handler", "reason"]),
            running: gauge("moontide_runs_in_flight", "Runs under way."),
            buffered: gauge("moontide_deliveries_buffered", "Deliveries received and not started."),
            reloads: counter(
                "moontide_reloads_total",
                "Versions of handlers that were loaded or refused, and handlers that were removed.",
                &["handler", "result"],
            ),
            info: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("moontide_handler_info", "1 for the version that serves."),
                    &["handler", "version"],
                ),
            ),
            custom: Arc::new(CustomFamilies::new(registry.clone())),
            registry,
        }
    }

    /// The metrics of `handler`, labels resolved.
    pub fn handler(&self, handler: &str) -> HandlerMetrics {
        let outcome = |name: &str| self.outcomes.with_label_values(&[handler, name]);
        let reload = |result: &str| self.reloads.with_label_values(&[handler, result]);
        HandlerMetrics {
            name: handler.to_owned(),
            families: self.clone(),
            done: outcome("done"),
            retried: outcome("retried"),
            snoozed: outcome("snoozed"),
            duplicate: outcome("duplicate"),
            conflict: outcome("conflict"),
            fenced: outcome("fenced"),
            released: outcome("released"),
            dead: DeathReason::ALL.map(|reason| self.dead.with_label_values(&[handler, reason.as_str()])),
            received: self.received.with_label_values(&[handler]),
            running: self.running.with_label_values(&[handler]),
            buffered: self.buffered.with_label_values(&[handler]),
            settle_seconds: self.settle_seconds.with_label_values(&[handler]),
            run_seconds: self.run_seconds.with_label_values(&[handler]),
            cpu_seconds: self.cpu_seconds.with_label_values(&[handler]),
            loaded: reload("loaded"),
            refused: reload("refused"),
            removed: reload("removed"),
            version: Mutex::default(),
            consumed: Mutex::default(),
            published: Mutex::default(),
            custom: Custom::new(handler),
            last_error: Mutex::default(),
            lines: Lines { began: Instant::now(), state: AtomicU64::new(0) },
        }
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a family cannot be written as text, which would be a defect here.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, family: prometheus::Result<C>) -> C {
    let family = family.expect("names and labels are constants");
    registry.register(Box::new(family.clone())).expect("each name is registered once");
    family
}
