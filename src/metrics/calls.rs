//! Calls of handlers to services outside.
//!
//! The label `host` is what the configuration grants, as it is written there: an operator's list, and never what a script or a
//! redirect names.

use prometheus::{HistogramVec, IntCounterVec};

use super::Metrics;
use crate::outbound::{Called, Observer};

/// Where nothing was granted.
const NO_GRANT: &str = "";

/// The families of calls.
#[derive(Clone)]
pub(super) struct Calls {
    pub total: IntCounterVec,
    pub seconds: HistogramVec,
}

impl Observer for Metrics {
    fn called(&self, called: Called<'_>) {
        let Called { handler, host, result, took } = called;
        let host = host.unwrap_or(NO_GRANT);
        self.calls.total.with_label_values(&[handler, host, result]).inc();
        self.calls.seconds.with_label_values(&[handler, host]).observe(took.as_secs_f64());
    }
}
