//! The metrics of handlers, made once per thread: a history looks at none of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use moontide::metrics::{HandlerMetrics, Metrics};

use crate::editions::GROUPS;

thread_local! {
    static METRICS: BTreeMap<&'static str, Arc<HandlerMetrics>> = {
        let metrics = Metrics::new();
        GROUPS.into_iter().map(|name| (name, Arc::new(metrics.handler(name)))).collect()
    };
}

/// Those of a handler.
pub fn of(handler: &str) -> Arc<HandlerMetrics> {
    METRICS.with(|metrics| metrics[handler].clone())
}
