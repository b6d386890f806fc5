//! Tells what happened: metrics and log lines, from what settle answered and never from what was hoped.

use std::time::Duration;

use crate::bus::{Answer, BusError, DeadId, Delivery, Run};
use crate::clock::Millis;
use crate::failpoint;
use crate::judge::Verdict;
use crate::metrics::HandlerMetrics;
use crate::outcome::Failure;
use crate::script::Usage;

use super::batch::Judged;

/// A settle answered `answer` for `judged`, at `now`.
pub(super) fn settled(
    metrics: &HandlerMetrics,
    handler: &str,
    judged: &Judged,
    run: &Run,
    answer: &Answer,
    now: Millis,
) {
    if judged.usage != Usage::default() {
        metrics.ran(judged.usage);
    }
    match answer {
        Answer::Done { dead } => applied(metrics, handler, judged, run, *dead, now),
        Answer::AlreadyMine => applied(metrics, handler, judged, run, None, now),
        Answer::Duplicate { by } => duplicate(metrics, handler, judged, by),
        Answer::Conflict { key } => {
            metrics.conflict();
            tracing::debug!(handler, event = id(judged), key, "state moved since it was read; running again");
        }
        Answer::Fenced => {
            metrics.fenced();
            if metrics.may_log() {
                tracing::warn!(handler, event = id(judged), "another process took this event over; our run is dropped");
            }
        }
        Answer::StoreReset => {
            metrics.fenced();
            // One of possibly thousands of events in hand, and of all handlers.
            if metrics.outages().may_log("the group vanished") {
                tracing::error!(handler, event = id(judged), "the group vanished from the store; it was created again");
            }
        }
        Answer::Invalid { reason } if matches!(judged.verdict, Verdict::Dead { .. }) => {
            tracing::error!(
                handler,
                event = id(judged),
                reason,
                "not even its dead letter can be stored; trying again"
            );
        }
        // Its dead letter is next, and says why.
        Answer::Invalid { .. } => {}
    }
}

fn applied(metrics: &HandlerMetrics, handler: &str, judged: &Judged, run: &Run, dead: Option<DeadId>, now: Millis) {
    let delivery = &*judged.delivery;
    match &judged.verdict {
        Verdict::Commit => {
            metrics.done(delivery, &judged.measures, &run.effects.events, now);
            consumed_line(metrics, handler, judged, delivery);
        }
        Verdict::Retry { delay, counted, failure } => {
            failpoint::reached("retry.after");
            metrics.retried(*counted);
            if *counted {
                metrics.failed(place(failure));
            }
            if metrics.may_log() {
                retry_line(handler, judged, delivery, failure, *counted, *delay);
            }
        }
        Verdict::Dead { reason, failure } => {
            failpoint::reached("dead.after");
            metrics.dead(*reason);
            metrics.failed(place(failure));
            if metrics.may_log() {
                tracing::error!(
                    handler,
                    version = &*judged.version,
                    event = id(judged),
                    attempt = delivery.attempt(),
                    reason = reason.as_str(),
                    dead_letter = dead.map(tracing::field::display),
                    "given up: {}",
                    place(failure)
                );
            }
        }
        Verdict::Skip { by } => duplicate(metrics, handler, judged, by),
        Verdict::Release => {
            failpoint::reached("release.after");
            metrics.released();
        }
    }
}

/// Operators look for this word to see whether events arrive; a flood of them says no more than some.
fn consumed_line(metrics: &HandlerMetrics, handler: &str, judged: &Judged, delivery: &Delivery) {
    let Ok(event) = &delivery.event else { return };
    if !tracing::enabled!(tracing::Level::INFO) || !metrics.may_log_consumed() {
        return;
    }
    let (version, attempt, correlation) = (&*judged.version, delivery.attempt(), event.correlation_id.as_deref());
    tracing::info!(handler, version, event = event.id, r#type = event.kind, attempt, correlation, "consumed");
}

fn retry_line(handler: &str, judged: &Judged, delivery: &Delivery, failure: &Failure, counted: bool, delay: Duration) {
    let (version, event, attempt) = (&*judged.version, id(judged), delivery.attempt());
    let after = rounded(delay);
    if counted {
        tracing::warn!(handler, version, event, attempt, "failed, again in {after:?}: {}", place(failure));
    } else {
        tracing::info!(handler, version, event, attempt, "snoozed for {after:?}: {}", failure.message);
    }
}

/// What people want to know of a delay: milliseconds of a short one, seconds of a longer one.
fn rounded(delay: Duration) -> Duration {
    match delay.as_secs() {
        0 => Duration::from_millis(delay.as_millis() as u64),
        seconds => Duration::from_secs(seconds + u64::from(delay.subsec_millis() >= 500)),
    }
}

fn duplicate(metrics: &HandlerMetrics, handler: &str, judged: &Judged, by: &str) {
    metrics.duplicate();
    tracing::debug!(handler, event = id(judged), by, "a duplicate; acknowledged without effects");
}

/// The store did not answer. Whichever handler meets an outage first says so for all.
pub(super) fn store_away(metrics: &HandlerMetrics, handler: &str, error: &BusError) {
    let cause = error.to_string();
    if metrics.outages().may_log(&cause) {
        tracing::error!(handler, "{cause}; nothing is lost, trying again");
    }
}

fn id(judged: &Judged) -> &str {
    judged.delivery.event.as_ref().map_or("(undecodable)", |event| &event.id)
}

fn place(failure: &Failure) -> String {
    match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: {}", failure.message),
        (Some(file), None) => format!("{file}: {}", failure.message),
        _ => failure.message.clone(),
    }
}
