//! How this process stands, for whoever asks over HTTP.
//!
//! Ready means progress, or provably nothing to do: the store takes events, every worker is at work and stays so, and nothing
//! has waited for one that does nothing. Asked on demand; what the store says is kept for a moment, so that asking often costs little.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Parts;
use crate::bus::{BusError, GroupStatus};
use crate::clock::Millis;
use crate::http::{Health, Status, Work};
use crate::metrics::HandlerMetrics;
use crate::registry::{self, Row};

/// How long what the store said of its groups is good.
const FRESH: Duration = Duration::from_secs(1);
/// How long the store may take to answer.
const ANSWER_TIME: Duration = Duration::from_millis(1500);
/// Events that wait this long for a worker that does nothing: it hangs.
const HANGS_AFTER: Duration = Duration::from_millis(1500);

/// What the host knows of itself.
pub(super) struct Standing {
    parts: Parts,
    supervisor: AbortHandle,
    groups: Mutex<Option<(Instant, Arc<[GroupStatus]>)>>,
    /// Held while the gauges of groups are set anew and read: nobody sees them half done.
    scrape: Mutex<()>,
}

impl Standing {
    pub fn new(parts: Parts, supervisor: AbortHandle) -> Self {
        Self { parts, supervisor, groups: Mutex::default(), scrape: Mutex::default() }
    }

    /// How the groups stand, or stood a moment ago. One asks, the others wait for its answer.
    async fn groups(&self) -> Result<Arc<[GroupStatus]>, String> {
        let mut kept = self.groups.lock().await;
        if let Some((at, groups)) = &*kept
            && at.elapsed() < FRESH
        {
            return Ok(groups.clone());
        }
        *kept = None;
        let groups: Arc<[GroupStatus]> = answer(self.parts.backend.overview.groups()).await?.into();
        *kept = Some((Instant::now(), groups.clone()));
        Ok(groups)
    }

    /// Whether the store takes events; publishing nothing goes the whole way of a publish.
    async fn takes_events(&self) -> Result<(), String> {
        answer(self.parts.backend.bus.publish(Vec::new())).await.map(drop)
    }

    /// What is wrong with our own tasks.
    fn defects(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.supervisor.is_finished() && !self.parts.stop.is_cancelled() {
            problems.push("nobody looks after the workers any more".to_owned());
        }
        if self.parts.backend.is_closed() && !self.parts.stop.is_cancelled() {
            problems.push("nobody writes to the store any more; start this process again".to_owned());
        }
        let tasks = self.parts.tasks.lock();
        let dead = tasks.iter().filter(|(_, task)| task.is_finished()).map(|(name, _)| name);
        problems.extend(dead.map(|name| format!("the worker of {name} is dead")));
        problems
    }

    /// The workers that run here, by handler.
    fn working(&self) -> Vec<(String, Arc<HandlerMetrics>)> {
        let (tasks, workers) = (self.parts.tasks.lock(), self.parts.workers.lock());
        tasks.keys().filter_map(|name| Some((name.clone(), workers.get(name)?.clone()))).collect()
    }

    fn subscribed(&self, working: &[(String, Arc<HandlerMetrics>)]) -> Vec<String> {
        let registry = self.parts.registry.lock();
        let programs = working.iter().filter_map(|(name, _)| registry.handlers.get(name)?.program.as_ref());
        let types = programs.flat_map(|program| program.manifest.types.iter().map(|types| types.as_str().to_owned()));
        types.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Whether events have waited too long for a worker that was idle for so long.
fn hangs(idle: Duration, group: &GroupStatus, now: Millis) -> bool {
    let waits = group.oldest.map_or(0, |oldest| now.saturating_sub(oldest));
    let waits = Duration::from_millis(u64::try_from(waits).unwrap_or(0));
    group.lag > group.delayed && waits > HANGS_AFTER && idle > HANGS_AFTER
}

async fn answer<T>(asked: impl Future<Output = Result<T, BusError>>) -> Result<T, String> {
    match timeout(ANSWER_TIME, asked).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the store has not answered within {ANSWER_TIME:?}")),
    }
}

#[async_trait]
impl Status for Standing {
    async fn metrics(&self) -> Result<String, String> {
        let groups = self.groups().await;
        if let Err(problem) = &groups {
            tracing::debug!("metrics without the groups: {problem}");
        }
        let _alone = self.scrape.lock().await;
        self.parts.metrics.groups(groups.as_deref().ok(), self.parts.clock.now());
        self.parts.metrics.channels(&self.parts.backend.overview.channels());
        self.parts.metrics.text().map_err(|error| format!("metrics cannot be written: {error}"))
    }

    fn alive(&self) -> Health {
        Health::of(self.defects())
    }

    async fn ready(&self) -> Health {
        let mut problems = self.defects();
        if self.parts.stop.is_cancelled() {
            problems.push("stopping".to_owned());
        }
        let working = self.working();
        for (name, _) in working.iter().filter(|(_, metrics)| !metrics.is_serving()) {
            problems.push(format!("the group of {name} is not open yet"));
        }
        for (name, count) in self.parts.setbacks.red(Instant::now()) {
            problems.push(format!("the worker of {name} keeps ending by a defect of the host, {count} times in a row"));
        }
        let (takes, groups) = tokio::join!(self.takes_events(), self.groups());
        let connected = takes.is_ok() && groups.is_ok();
        let now = self.parts.clock.now();
        let by_handler: HashMap<&str, &GroupStatus> =
            groups.iter().flat_map(|groups| groups.iter()).map(|group| (&*group.handler, group)).collect();
        let of = |name: &str| by_handler.get(name).copied();
        for (name, metrics) in &working {
            if of(name).is_some_and(|group| hangs(metrics.idle(), group, now)) {
                problems.push(format!("events wait for {name}, which does nothing"));
            }
        }
        let pending = working.iter().filter_map(|(name, _)| Some((name.clone(), of(name)?)));
        let pending_messages = pending.map(|(name, group)| (name, group.lag + group.in_flight)).collect();
        let subscribed_events = self.subscribed(&working);
        problems.extend([takes.err(), groups.err()].into_iter().flatten());
        problems.dedup();
        Health { work: Some(Work { connected, subscribed_events, pending_messages }), ..Health::of(problems) }
    }

    async fn handlers(&self) -> Result<Vec<Row>, BusError> {
        let registry = self.parts.registry.lock().clone();
        let overview = &self.parts.backend.overview;
        Ok(registry::rows(&registry, overview.groups().await?, overview.reports().await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_hangs_only_if_something_due_waits_and_it_does_nothing() {
        let group = |lag, delayed, oldest| GroupStatus {
            group: "g".into(),
            handler: "h".into(),
            lag,
            in_flight: 0,
            delayed,
            dead: 0,
            lost: 0,
            oldest,
        };
        let (long, now) = (Duration::from_secs(2), 10_000);
        for (idle, group, expected) in [
            (long, group(1, 0, Some(8_000)), true),
            (Duration::ZERO, group(1, 0, Some(8_000)), false),
            (long, group(1, 0, Some(9_900)), false),
            (long, group(3, 3, None), false),
            (long, group(0, 0, None), false),
            (long, group(1, 0, Some(99_000)), false),
        ] {
            assert_eq!(hangs(idle, &group, now), expected, "{idle:?} {group:?}");
        }
    }
}
