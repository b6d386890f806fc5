//! How groups stand in the store; asked for when somebody scrapes.

use prometheus::{GaugeVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::families::register;
use crate::bus::GroupStatus;
use crate::clock::Millis;

const LABELS: &[&str] = &["handler", "group"];

/// Gauges about groups.
#[derive(Clone)]
pub(super) struct Groups {
    up: IntGauge,
    lag: IntGaugeVec,
    delayed: IntGaugeVec,
    in_flight: IntGaugeVec,
    dead: IntGaugeVec,
    oldest: GaugeVec,
}

impl Groups {
    pub fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| register(registry, IntGaugeVec::new(Opts::new(name, help), LABELS));
        let oldest = Opts::new("moontide_oldest_age_seconds", "Age of the oldest event that waits to be received.");
        Self {
            up: register(registry, IntGauge::new("moontide_store_up", "Whether the store answers.")),
            lag: gauge("moontide_lag_events", "Events not yet received, delayed work included."),
            delayed: gauge("moontide_delayed_events", "Of the lag: retries and delayed events."),
            in_flight: gauge("moontide_in_flight_events", "Events received by any process and not yet settled."),
            dead: gauge("moontide_dead_letters_kept", "Dead letters that nobody replayed or discarded."),
            oldest: register(registry, GaugeVec::new(oldest, LABELS)),
        }
    }

    /// Shows how the groups stand at `now`; those that are gone are no longer shown.
    pub fn set(&self, groups: Option<&[GroupStatus]>, now: Millis) {
        self.up.set(i64::from(groups.is_some()));
        for family in [&self.lag, &self.delayed, &self.in_flight, &self.dead] {
            family.reset();
        }
        self.oldest.reset();
        for group in groups.unwrap_or_default() {
            let labels = [group.handler.as_str(), group.group.as_str()];
            let set = |family: &IntGaugeVec, count: u64| family.with_label_values(&labels).set(count as i64);
            set(&self.lag, group.lag);
            set(&self.delayed, group.delayed);
            set(&self.in_flight, group.in_flight);
            set(&self.dead, group.dead);
            let age = group.oldest.map_or(0, |oldest| now.saturating_sub(oldest).max(0));
            self.oldest.with_label_values(&labels).set(age as f64 / 1000.0);
        }
    }
}
