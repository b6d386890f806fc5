//! Calls of handlers to services outside.
//!
//! The label `host` is what the configuration grants, as it is written there: an operator's list, and never what a script or a
//! redirect names.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, exponential_buckets};

use super::Metrics;
use super::families::register;
use crate::outbound::{Called, Observer};

/// Where nothing was granted.
const NO_GRANT: &str = "";

/// The families of calls.
#[derive(Clone)]
pub(super) struct Calls {
    pub total: IntCounterVec,
    pub seconds: HistogramVec,
}

impl Calls {
    pub fn new(registry: &Registry) -> Self {
        let total = Opts::new(
            "moontide_calls_total",
            "Calls of handlers to services outside, by the grant they used and what came of them.",
        );
        let buckets = exponential_buckets(0.000_5, 4.0, 11).expect("start and factor are positive");
        let seconds = HistogramOpts::new(
            "moontide_call_seconds",
            "From a call's beginning until its whole answer was there, or it failed.",
        );
        Self {
            total: register(registry, IntCounterVec::new(total, &["handler", "host", "result"])),
            seconds: register(registry, HistogramVec::new(seconds.buckets(buckets), &["handler", "host"])),
        }
    }
}

impl Observer for Metrics {
    fn called(&self, called: Called<'_>) {
        let Called { handler, host, result, took } = called;
        let host = host.unwrap_or(NO_GRANT);
        self.calls.total.with_label_values(&[handler, host, result]).inc();
        self.calls.seconds.with_label_values(&[handler, host]).observe(took.as_secs_f64());
    }
}
