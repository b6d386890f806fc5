//! The families and their registry.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, exponential_buckets,
};

use crate::bus::{ChannelStatus, GroupStatus};
use crate::clock::Millis;
use crate::judge::DeathReason;
use crate::outcome::Emit;

use super::HandlerMetrics;
use super::calls::Calls;
use super::channels::Channels;
use super::custom::{Custom, CustomFamilies};
use super::groups::Groups;
use super::lines::Lines;
use super::outages::Outages;
use super::pairs::{Admission, Pairs, Series};

/// Every family of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    consumed: IntCounterVec,
    published: IntCounterVec,
    latency: HistogramVec,
    admission: Arc<Admission>,
    published_pairs: Arc<Mutex<Pairs<IntCounter>>>,
    groups: Groups,
    channels: Channels,
    requests: IntCounterVec,
    run_seconds: HistogramVec,
    settle_seconds: HistogramVec,
    cpu_seconds: CounterVec,
    memory: IntGaugeVec,
    received: IntCounterVec,
    attempts: IntCounterVec,
    outcomes: IntCounterVec,
    dead: IntCounterVec,
    running: IntGaugeVec,
    buffered: IntGaugeVec,
    reloads: IntCounterVec,
    defects: IntCounterVec,
    pub(super) calls: Calls,
    pub(super) info: IntGaugeVec,
    pub(super) custom: Arc<CustomFamilies>,
    /// Which errors of the store are worth a log line.
    pub outages: Arc<Outages>,
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
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| labelled(name, help, &["handler"]);
        let seconds = |name: &str, help: &str, first: f64, labels: &[&str]| {
            let buckets = exponential_buckets(first, 4.0, 11).expect("start and factor are positive");
            register(&registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
        };
        tell_version(&registry);
        Self {
            consumed: counter("events_consumed_total", "Events handled and committed.", &["topic", "type", "consumer"]),
            published: counter(
                "events_published_total",
                "Events that handlers emitted or clients sent.",
                &["topic", "type"],
            ),
            latency: seconds(
                "event_latency_seconds",
                "From the event's emission (emitted_at in its data, or its time) until it was handled.",
                0.001,
                &["topic", "type"],
            ),
            admission: Arc::default(),
            published_pairs: Arc::default(),
            groups: Groups::new(&registry),
            channels: Channels::new(&registry),
            requests: counter("moontide_http_requests_total", "Requests answered.", &["route", "code"]),
            run_seconds: seconds(
                "event_handler_duration_seconds",
                "Wall time of one run of a handler.",
                0.000_05,
                &["handler"],
            ),
            settle_seconds: seconds(
                "moontide_settle_seconds",
                "Time until the store answered a settle.",
                0.000_05,
                &["handler"],
            ),
            cpu_seconds: register(
                &registry,
                CounterVec::new(
                    Opts::new("moontide_script_cpu_seconds_total", "Processor time of scripts."),
                    &["handler"],
                ),
            ),
            memory: gauge("moontide_script_memory_bytes", "Memory of the VM that ran last."),
            attempts: counter("moontide_attempts_total", "Runs of scripts, whatever came of them.", &["handler"]),
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
            defects: counter("moontide_worker_defects_total", "Workers that a defect of the host ended.", &["handler"]),
            calls: Calls::new(&registry),
            info: labelled("moontide_handler_info", "1 for the version that serves.", &["handler", "version"]),
            custom: Arc::new(CustomFamilies::new(registry.clone())),
            outages: Arc::default(),
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
            defects: self.defects.with_label_values(&[handler]),
            version: Mutex::default(),
            memory: self.memory.with_label_values(&[handler]),
            attempts: self.attempts.with_label_values(&[handler]),
            pairs: Mutex::default(),
            custom: Custom::new(handler),
            last_error: Mutex::default(),
            failure_lines: Lines::default(),
            consumed_lines: Lines::default(),
            began: Instant::now(),
            heard_at: AtomicU64::new(0),
            serving: AtomicBool::new(false),
        }
    }

    /// Shows nothing of `handler` any more.
    pub fn forget(&self, handler: &str) {
        let counters = [&self.consumed, &self.received, &self.attempts, &self.outcomes, &self.dead, &self.calls.total];
        counters.into_iter().chain([&self.reloads, &self.defects]).for_each(|family| forget(family, handler));
        [&self.memory, &self.running, &self.buffered, &self.info]
            .into_iter()
            .for_each(|family| forget(family, handler));
        [&self.run_seconds, &self.settle_seconds, &self.calls.seconds]
            .into_iter()
            .for_each(|family| forget(family, handler));
        forget(&self.cpu_seconds, handler);
    }

    /// What `handler` counts of events of type `kind` in `topic`, within bounds that all handlers share.
    pub(super) fn series(&self, topic: &str, kind: &str, handler: &str) -> Series {
        Series {
            consumed: self.consumed.with_label_values(&[topic, kind, handler]),
            latency: self.latency.with_label_values(&[topic, kind]),
        }
    }

    /// Which types are counted apart.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The counters of `emits`, to be raised when they are stored.
    pub fn counted(&self, emits: &[Emit]) -> Counted {
        let mut pairs = self.published_pairs.lock();
        let counter = |topic: &str, kind: &str| self.published.with_label_values(&[topic, kind]);
        let of = |emit: &Emit| pairs.of(&self.admission, &emit.stream, &emit.event.kind, counter).clone();
        Counted(emits.iter().map(of).collect())
    }

    /// A request for `route` was answered with `code`.
    pub fn request(&self, route: &str, code: u16) {
        self.requests.with_label_values(&[route, code.to_string().as_str()]).inc();
    }

    /// How the groups stand at `now`, by the store; `None`: it does not answer.
    pub fn groups(&self, groups: Option<&[GroupStatus]>, now: Millis) {
        self.groups.set(groups, now);
    }

    /// What became of messages of channels.
    pub fn channels(&self, channels: &[ChannelStatus]) {
        self.channels.set(channels);
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a family cannot be written as text, which would be a defect here.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Events that are on their way to the store, and their counters.
#[must_use]
pub struct Counted(Vec<IntCounter>);

impl Counted {
    /// They are stored.
    pub fn now(self) {
        self.0.iter().for_each(IntCounter::inc);
    }
}

/// Removes every series of `handler`, whatever its other labels are.
fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, handler: &str)
where
    MetricVec<B>: Collector,
{
    for metric in family.collect().iter().flat_map(|family| family.get_metric()) {
        let labels: HashMap<&str, &str> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        if ["handler", "consumer"].iter().any(|name| labels.get(name) == Some(&handler)) {
            // It may have gone meanwhile: as well.
            let _ = family.remove(&labels);
        }
    }
}

fn tell_version(registry: &Registry) {
    let help = "The version that runs; always 1.";
    let opts = Opts::new("moontide_info", help).const_label("version", env!("CARGO_PKG_VERSION"));
    register(registry, IntGauge::with_opts(opts)).set(1);
}

pub(super) fn register<C: Collector + Clone + 'static>(registry: &Registry, family: prometheus::Result<C>) -> C {
    let family = family.expect("names and labels are constants");
    registry.register(Box::new(family.clone())).expect("each name is registered once");
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_handler_that_is_forgotten_nothing_is_shown_and_others_stay() {
        let metrics = Metrics::new();
        let text = || metrics.text().expect("metrics can be written");
        metrics.handler("stays").loaded("v1");
        let before = text();
        let gone = metrics.handler("gone");
        gone.loaded("v1");
        let series = metrics.series("events:a", "a", "gone");
        series.consumed.inc();
        assert!(text().matches("\"gone\"").count() > 50);
        metrics.forget("gone");
        assert!(!text().contains("\"gone\""), "{}", text());
        let of_stays = |text: &str| text.lines().filter(|line| line.contains("\"stays\"")).count();
        assert_eq!(of_stays(&text()), of_stays(&before));
    }
}
