//! Opens a handler's group and works in it, however long the store takes to be there.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Began, Bus, Inbox, backoff};
use crate::failpoint;
use crate::metrics::{HandlerMetrics, Outages};
use crate::registry;
use crate::script::Program;
use crate::streams::Streams;
use crate::worker::{self, Spec};

/// Works, after a pause; where the group could not be opened yet, tries until it can.
pub(super) async fn serve(
    bus: Arc<dyn Bus>,
    streams: Arc<Streams>,
    opened: Option<Arc<dyn Inbox>>,
    spec: Spec,
    pause: Duration,
) {
    let stop = spec.stop.clone();
    if !pause.is_zero() {
        // Stopped meanwhile: the steps that follow end at once.
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    let inbox = match opened {
        Some(inbox) => Some(inbox),
        None => stop.run_until_cancelled(subscribe_at_last(&*bus, &streams, &spec)).await,
    };
    if let Some(inbox) = inbox {
        let _serving = Serving::new(spec.metrics.clone());
        worker::work(inbox, spec).await;
    }
}

/// Says that a worker is at work, for as long as it lives.
struct Serving(Arc<HandlerMetrics>);

impl Serving {
    fn new(metrics: Arc<HandlerMetrics>) -> Self {
        metrics.serving(true);
        Self(metrics)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving(false);
    }
}

async fn subscribe_at_last(bus: &dyn Bus, streams: &Streams, spec: &Spec) -> Arc<dyn Inbox> {
    let mut failures = 0;
    loop {
        if let Some(inbox) = subscribe(bus, streams, &spec.program.load_full(), spec.metrics.outages()).await {
            return inbox;
        }
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// Opens the group of `program` and says where it begins; `None`: the store is away, and the log says so.
pub(super) async fn subscribe(
    bus: &dyn Bus,
    streams: &Streams,
    program: &Program,
    outages: &Outages,
) -> Option<Arc<dyn Inbox>> {
    let inbox = begin(bus, streams, program, outages).await?;
    tracing::info!(handler = &*program.name, version = &*program.version, "live");
    Some(inbox)
}

/// Opens the group of `program`, so that it begins here, and says where that is.
pub(super) async fn begin(
    bus: &dyn Bus,
    streams: &Streams,
    program: &Program,
    outages: &Outages,
) -> Option<Arc<dyn Inbox>> {
    failpoint::reached("open.before");
    match bus.subscribe(registry::subscription(program, streams)).await {
        Ok(subscribed) => {
            failpoint::reached("open.after");
            tell_beginnings(program, &subscribed.began);
            Some(subscribed.inbox)
        }
        Err(error) => {
            let cause = error.to_string();
            if outages.may_log(&cause) {
                tracing::error!(handler = &*program.name, "cannot open its group: {cause}; trying again");
            }
            None
        }
    }
}

fn tell_beginnings(program: &Program, began: &[Began]) {
    for Began { stream, skipped, taken_in } in began {
        let (handler, group) = (&*program.name, &program.manifest.group);
        tracing::info!(handler, group, stream, skipped, taken_in, "new group");
    }
}
