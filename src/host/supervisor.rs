//! Keeps one worker per loaded handler: starts, swaps, stops and restarts them as the registry changes.
//!
//! Owns that a group has at most one worker in this process: one that takes over a group waits until the other has ended; and
//! that a worker which a defect ended comes back after a pause.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::task::{AbortHandle, Id, JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::bus::{HandlerReport, Inbox};
use crate::clock::Millis;
use crate::failpoint;
use crate::metrics::HandlerMetrics;
use crate::registry::{Loaded, Registry};
use crate::script::{Mode, Program};
use crate::watch::Change;
use crate::worker::Spec;

use super::gone::Gone;
use super::opening::{begin, serve, subscribe};
use super::{Parts, build_aside, receipt};

/// Metrics by handler name.
pub(super) type Workers = Arc<Mutex<BTreeMap<String, Arc<HandlerMetrics>>>>;

/// The task of every worker, by handler name: for whoever asks whether they live.
pub(super) type Tasks = Arc<Mutex<BTreeMap<String, AbortHandle>>>;

/// How long a start waits for the store.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// How often the state of handlers is written to the store, if it changed.
const REPORT_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Supervisor {
    parts: Parts,
    only: Vec<String>,
    /// See [`Spec::alone`].
    alone: Arc<tokio::sync::Mutex<()>>,
    running: HashMap<String, Running>,
    /// Loaded, and about to start: at once, or when a worker of that name or group has ended.
    starting: BTreeMap<String, Arc<Program>>,
    /// Since when the version of each handler serves.
    since: HashMap<String, Millis>,
    /// How long the next worker of a handler pauses before it begins.
    pauses: HashMap<String, Duration>,
    gone: Gone,
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
    reported: Vec<HandlerReport>,
}

struct Running {
    program: Arc<ArcSwap<Program>>,
    stop: CancellationToken,
}

impl Supervisor {
    pub fn new(parts: Parts, only: Vec<String>) -> Self {
        Self {
            parts,
            only,
            alone: Arc::default(),
            running: HashMap::new(),
            starting: BTreeMap::new(),
            since: HashMap::new(),
            pauses: HashMap::new(),
            gone: Gone::default(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            reported: Vec::new(),
        }
    }

    /// Runs until the host stops and every worker has ended.
    pub async fn run(mut self, mut registry: Registry, mut changed: Receiver<Change>) {
        let mut report = tokio::time::interval(REPORT_EVERY);
        let mut building: Option<JoinHandle<Registry>> = None;
        let mut stopping = false;
        while !(stopping && self.tasks.is_empty()) {
            tokio::select! {
                () = self.parts.stop.cancelled(), if !stopping => {
                    // Only here, also where it was cancelled before this loop came to look: else nobody tells the workers.
                    stopping = true;
                    self.running.values().for_each(|worker| worker.stop.cancel());
                }
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(change) = changed.recv(), if !stopping && building.is_none() => {
                    building = Some(build_aside(registry.clone(), change, self.parts.config.clone()));
                }
                built = built(&mut building), if !stopping => {
                    building = None;
                    if let Some(built) = built {
                        failpoint::reached("reload.built");
                        self.apply(&registry, &built).await;
                        failpoint::reached("reload.after");
                        registry = built;
                        report.reset_immediately();
                    }
                }
                _ = report.tick(), if !stopping => self.report(&registry).await,
            }
        }
    }

    /// Brings the workers in line with `registry` and says what changed. When it returns, the groups of new handlers are
    /// open: no event that is published from then on is skipped.
    pub async fn apply(&mut self, before: &Registry, registry: &Registry) {
        receipt::folder(before, registry);
        self.remove(registry);
        self.forget(before, registry);
        for (name, loaded) in &registry.handlers {
            if !self.is_wanted(name) {
                continue;
            }
            receipt::problem(&self.metrics_of(name), name, before.handlers.get(name), loaded);
            if let Some(program) = &loaded.program {
                self.serve(name, program);
            }
        }
        self.start_all().await;
        self.reserve().await;
        *self.parts.registry.lock() = registry.clone();
    }

    /// Stops the workers of handlers that are gone.
    fn remove(&mut self, registry: &Registry) {
        let serves = |name: &str| registry.handlers.get(name).is_some_and(|loaded| loaded.program.is_some());
        let running = self.running.iter().filter(|(_, running)| !running.stop.is_cancelled()).map(|(name, _)| name);
        let mut gone: Vec<_> = running.chain(self.starting.keys()).filter(|name| !serves(name)).cloned().collect();
        gone.dedup();
        for name in gone {
            self.starting.remove(&name);
            self.since.remove(&name);
            self.pauses.remove(&name);
            self.parts.setbacks.forget(&name);
            if let Some(running) = self.running.get(&name) {
                running.stop.cancel();
            }
            receipt::removed(&self.metrics_of(&name), &name);
        }
    }

    /// Lets go of what handlers counted that are long gone.
    fn forget(&mut self, before: &Registry, registry: &Registry) {
        for name in self.gone.take_up(before, registry) {
            self.parts.workers.lock().remove(&name);
            self.parts.metrics.forget(&name);
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    fn serve(&mut self, name: &str, program: &Arc<Program>) {
        let current = self.current(name);
        if current.as_ref().is_some_and(|current| current.version == program.version) {
            return;
        }
        self.since.insert(name.to_owned(), self.parts.clock.now());
        receipt::ungranted(program);
        match &current {
            Some(current) => receipt::reloaded(&self.metrics_of(name), current, program),
            None => self.metrics_of(name).loaded(&program.version),
        }
        match self.running.get(name) {
            Some(running) if !running.stop.is_cancelled() && reads(&running.program.load()) == reads(program) => {
                running.program.store(program.clone());
                failpoint::reached("reload.swapped");
            }
            running => {
                running.inspect(|running| running.stop.cancel());
                self.starting.insert(name.to_owned(), program.clone());
            }
        }
    }

    /// What serves under this name, or is about to.
    fn current(&self, name: &str) -> Option<Arc<Program>> {
        let running = || self.running.get(name).filter(|running| !running.stop.is_cancelled());
        self.starting.get(name).cloned().or_else(|| running().map(|running| running.program.load_full()))
    }

    /// Opens the groups of all handlers that can start now, at the same time, and sets their workers to work. A store that
    /// is away holds up nothing: those workers go on trying by themselves.
    async fn start_all(&mut self) {
        let starting = self.startable();
        let (bus, streams) = (self.parts.backend.bus.clone(), self.parts.config.streams.clone());
        let opening = starting.iter().map(|program| {
            let opening = subscribe(&*bus, &streams, program, &self.parts.metrics.outages);
            async { tokio::time::timeout(OPEN_WAIT, opening).await.ok() }
        });
        let opened = join_all(opening).await;
        for (program, opened) in starting.into_iter().zip(opened) {
            self.start(program, opened.flatten());
        }
    }

    /// Opens the groups of handlers that have to wait for their old worker, and lets go of them again: what is published from
    /// now on is theirs, however long the old worker takes.
    async fn reserve(&self) {
        let (bus, streams) = (&self.parts.backend.bus, &self.parts.config.streams);
        let opening = self.starting.values().map(|program| {
            tokio::time::timeout(OPEN_WAIT, begin(&**bus, streams, program, &self.parts.metrics.outages))
        });
        join_all(opening).await;
    }

    /// Takes those of `starting` whose name and group no worker has any more.
    fn startable(&mut self) -> Vec<Arc<Program>> {
        let groups: HashSet<String> = self.running.values().map(|running| group_of(&running.program.load())).collect();
        let free = |name: &String, program: &Program| {
            !self.running.contains_key(name) && !groups.contains(&program.manifest.group)
        };
        let (now, later) =
            std::mem::take(&mut self.starting).into_iter().partition(|(name, program)| free(name, program));
        self.starting = later;
        let now: BTreeMap<String, Arc<Program>> = now;
        now.into_values().collect()
    }

    fn start(&mut self, program: Arc<Program>, opened: Option<Arc<dyn Inbox>>) {
        let name = program.name.to_string();
        let metrics = self.metrics_of(&name);
        let running = Running { program: Arc::new(ArcSwap::new(program)), stop: CancellationToken::new() };
        let spec = Spec {
            program: running.program.clone(),
            runner: self.parts.pool.clone(),
            metrics,
            clock: self.parts.clock.clone(),
            alone: self.alone.clone(),
            mode: Mode::Live,
            seed: rand::random(),
            stop: running.stop.clone(),
        };
        let (bus, streams) = (self.parts.backend.bus.clone(), self.parts.config.streams.clone());
        let pause = self.pauses.remove(&name).unwrap_or_default();
        let task = self.tasks.spawn(serve(bus, streams, opened, spec, pause));
        self.names.insert(task.id(), name.clone());
        self.parts.tasks.lock().insert(name.clone(), task);
        self.running.insert(name, running);
    }

    fn metrics_of(&self, name: &str) -> Arc<HandlerMetrics> {
        let mut workers = self.parts.workers.lock();
        workers.entry(name.to_owned()).or_insert_with(|| Arc::new(self.parts.metrics.handler(name))).clone()
    }

    /// A worker ended: because it was asked to, or because of a defect, after which it starts anew, if not at once.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(name) = self.names.remove(&id) else { return };
        self.parts.tasks.lock().remove(&name);
        let Some(running) = self.running.remove(&name) else { return };
        if let Err(defect) = &ended {
            let pause = self.parts.setbacks.note(&name, Instant::now());
            self.metrics_of(&name).defect();
            tracing::error!(
                handler = name,
                "its worker ended by a defect of the host, starting it anew in {pause:?}: {defect}"
            );
            self.pauses.insert(name.clone(), pause);
        }
        if self.parts.stop.is_cancelled() {
            return;
        }
        if ended.is_err() && !running.stop.is_cancelled() {
            self.starting.insert(name, running.program.load_full());
        }
        for program in self.startable() {
            self.start(program, None);
        }
    }

    async fn report(&mut self, registry: &Registry) {
        let wanted = registry.handlers.iter().filter(|(name, _)| self.is_wanted(name));
        let mut reports: Vec<_> = wanted.map(|(name, loaded)| self.report_of(name, loaded)).collect();
        if reports == self.reported {
            return;
        }
        self.reported.clone_from(&reports);
        let now = self.parts.clock.now();
        reports.iter_mut().for_each(|report| report.at = now);
        if let Err(error) = self.parts.backend.overview.report(reports).await {
            tracing::debug!("the state of handlers was not written: {error}");
            self.reported.clear();
        }
    }

    fn report_of(&self, name: &str, loaded: &Loaded) -> HandlerReport {
        let program = loaded.program.as_ref();
        let last_run_error = self.parts.workers.lock().get(name).and_then(|metrics| metrics.last_error());
        HandlerReport {
            handler: name.to_owned(),
            group: program.map(|program| program.manifest.group.clone()).unwrap_or_default(),
            version: program.map(|program| program.version.to_string()).unwrap_or_default(),
            since: self.since.get(name).copied().unwrap_or(0),
            state: if loaded.problem.is_some() { "broken" } else { "live" }.to_owned(),
            last_error: loaded.problem.as_ref().map(ToString::to_string).or(last_run_error),
            instance: self.parts.instance.to_string(),
            at: 0,
        }
    }
}

/// What is being built, when it is.
async fn built(building: &mut Option<JoinHandle<Registry>>) -> Option<Registry> {
    let Some(building) = building else { return pending().await };
    match building.await {
        Ok(built) => Some(built),
        Err(defect) => {
            tracing::error!("loading ended by a defect of the host; what is loaded goes on serving: {defect}");
            None
        }
    }
}

fn group_of(program: &Program) -> String {
    program.manifest.group.clone()
}

/// What decides that a worker must be replaced and not only its program.
fn reads(program: &Program) -> impl PartialEq {
    let manifest = &program.manifest;
    (manifest.group.clone(), manifest.types.clone(), manifest.streams.clone())
}
