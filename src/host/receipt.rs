//! The receipt of every change in the handlers folder: a log line and a metric.
//!
//! Says each thing once: what stands as it stood before is no news.

use crate::metrics::HandlerMetrics;
use crate::registry::{Loaded, Registry, Renamed};
use crate::script::Program;

/// Says what concerns no single handler: files that are not read, and files that have another name now.
pub(super) fn folder(before: &Registry, now: &Registry) {
    for skipped in now.skipped.iter().filter(|skipped| before.skipped.binary_search(skipped).is_err()) {
        tracing::warn!("skipped {}: {}", skipped.path.display(), skipped.reason);
    }
    now.renamed.iter().for_each(renamed);
}

fn renamed(Renamed { from, from_group, to, to_group }: &Renamed) {
    if from_group == to_group {
        tracing::info!(handler = to, was = from, group = to_group, "renamed; its group stays, and nothing is skipped");
        return;
    }
    tracing::warn!(
        handler = to,
        was = from,
        "renamed, and so is its group: what waits for {from_group} goes on waiting. To go on with it, say \
         group = {from_group:?} in the file; or stop the host and run: moontide groups move {from_group} {to_group}"
    );
}

/// Says that a file does not serve, if that is new.
pub(super) fn problem(metrics: &HandlerMetrics, name: &str, before: Option<&Loaded>, now: &Loaded) {
    let Some(problem) = &now.problem else { return };
    if before.and_then(|before| before.problem.as_ref()) == Some(problem) {
        return;
    }
    metrics.refused();
    let kept = now.program.as_ref().map(|program| program.version.to_string());
    let serves = kept.map_or("does not run".to_owned(), |version| format!("version {version} keeps serving"));
    tracing::error!(handler = name, "{serves}, its file does not load: {problem}");
}

/// Says that a version took over from another one.
pub(super) fn reloaded(metrics: &HandlerMetrics, was: &Program, now: &Program) {
    metrics.loaded(&now.version);
    tracing::info!(handler = &*now.name, version = &*now.version, was = &*was.version, "reloaded");
}

/// Says what a version asks for and does not get.
pub(super) fn ungranted(program: &Program) {
    let (handler, version) = (&*program.name, &*program.version);
    program.ungranted().iter().for_each(|warning| tracing::warn!(handler, version, "{warning}"));
}

/// Says that a handler left.
pub(super) fn removed(metrics: &HandlerMetrics, name: &str) {
    metrics.removed();
    tracing::info!(handler = name, "its file is gone; stopped, its events wait");
}
