//! Keeps one worker per loaded handler: starts, swaps, stops and restarts them as the registry changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::bus::{Began, Bus, HandlerReport, Inbox, backoff};
use crate::metrics::HandlerMetrics;
use crate::registry::{self, Loaded, Registry};
use crate::script::{Mode, Program};
use crate::streams::Streams;
use crate::watch::Change;
use crate::worker::{self, Spec};

use super::{Parts, build_aside};

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
    /// Loaded, and about to start.
    starting: Vec<Arc<Program>>,
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
    reported: Vec<HandlerReport>,
}

struct Running {
    program: Arc<ArcSwap<Program>>,
    stop: CancellationToken,
    /// Starts when this one has ended: a handler that reads other streams or another group now.
    next: Option<Arc<Program>>,
}

impl Supervisor {
    pub fn new(parts: Parts, only: Vec<String>) -> Self {
        Self {
            parts,
            only,
            alone: Arc::default(),
            running: HashMap::new(),
            starting: Vec::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            reported: Vec::new(),
        }
    }

    /// Runs until the host stops and every worker has ended.
    pub async fn run(mut self, mut registry: Registry, mut changed: Receiver<Change>) {
        let mut report = tokio::time::interval(REPORT_EVERY);
        while !(self.parts.stop.is_cancelled() && self.tasks.is_empty()) {
            let stopping = self.parts.stop.is_cancelled();
            tokio::select! {
                () = self.parts.stop.cancelled(), if !stopping => self.running.values().for_each(|worker| worker.stop.cancel()),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(change) = changed.recv(), if !stopping => {
                    let built = build_aside(registry.clone(), change, self.parts.config.clone()).await;
                    self.apply(&registry, &built).await;
                    registry = built;
                }
                _ = report.tick(), if !stopping => self.report(&registry).await,
            }
        }
    }

    /// Brings the workers in line with `registry` and says what changed. When it returns, the groups of new handlers are
    /// open: no event that is published from then on is skipped.
    pub async fn apply(&mut self, before: &Registry, registry: &Registry) {
        for skipped in registry.skipped.iter().filter(|skipped| !before.skipped.contains(skipped)) {
            tracing::warn!("skipped {}: {}", skipped.path.display(), skipped.reason);
        }
        for (name, loaded) in &registry.handlers {
            if !self.is_wanted(name) {
                continue;
            }
            self.tell_problem(name, before.handlers.get(name), loaded);
            if let Some(program) = &loaded.program {
                self.serve(name, program);
            }
        }
        self.start_all().await;
        for (name, running) in &mut self.running {
            let serves = registry.handlers.get(name).is_some_and(|loaded| loaded.program.is_some());
            if !serves && !running.stop.is_cancelled() {
                tracing::info!(handler = name, "its file is gone; stopped, its events wait");
                running.next = None;
                running.stop.cancel();
            }
        }
        *self.parts.registry.lock() = registry.clone();
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    fn tell_problem(&self, name: &str, before: Option<&Loaded>, now: &Loaded) {
        let Some(problem) = &now.problem else { return };
        if before.and_then(|before| before.problem.as_ref()) == Some(problem) {
            return;
        }
        let kept = now.program.as_ref().map(|program| program.version.to_string());
        let serves = kept.map_or("it does not run".to_owned(), |version| format!("version {version} keeps serving"));
        tracing::error!(handler = name, "does not load, {serves}: {problem}");
    }

    fn serve(&mut self, name: &str, program: &Arc<Program>) {
        let Some(running) = self.running.get_mut(name) else { return self.starting.push(program.clone()) };
        let current = running.program.load_full();
        if current.version == program.version && !running.stop.is_cancelled() {
            return;
        }
        if running.stop.is_cancelled() || reads(&current) != reads(program) {
            running.next = Some(program.clone());
            running.stop.cancel();
        } else {
            running.program.store(program.clone());
        }
        tracing::info!(handler = name, version = &*program.version, was = &*current.version, "reloaded");
    }

    /// Opens the groups of all handlers that start, at the same time, and sets their workers to work. A store that is away
    /// holds up nothing: those workers go on trying by themselves.
    async fn start_all(&mut self) {
        let starting = std::mem::take(&mut self.starting);
        let (bus, streams) = (self.parts.backend.bus.clone(), self.parts.config.streams.clone());
        let opening = starting.iter().map(|program| {
            let opening = subscribe(&*bus, &streams, program);
            async { tokio::time::timeout(OPEN_WAIT, opening).await.ok() }
        });
        let opened = join_all(opening).await;
        for (program, opened) in starting.into_iter().zip(opened) {
            self.start(program, opened.flatten());
        }
    }

    fn start(&mut self, program: Arc<Program>, opened: Option<Arc<dyn Inbox>>) {
        let name = program.name.to_string();
        let metrics = self.metrics_of(&name);
        let running = Running { program: Arc::new(ArcSwap::new(program)), stop: CancellationToken::new(), next: None };
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
        let task = self.tasks.spawn(serve(bus, streams, opened, spec));
        self.names.insert(task.id(), name.clone());
        self.parts.tasks.lock().insert(name.clone(), task);
        self.running.insert(name, running);
    }

    fn metrics_of(&self, name: &str) -> Arc<HandlerMetrics> {
        let mut workers = self.parts.workers.lock();
        workers.entry(name.to_owned()).or_insert_with(|| Arc::new(self.parts.metrics.handler(name))).clone()
    }

    /// A worker ended: because it was asked to, or because of a defect, after which it starts anew.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(name) = self.names.remove(&id) else { return };
        self.parts.tasks.lock().remove(&name);
        let Some(running) = self.running.remove(&name) else { return };
        if let Err(defect) = &ended {
            tracing::error!(handler = name, "its worker ended by a defect of the host, starting it anew: {defect}");
        }
        if self.parts.stop.is_cancelled() {
            return;
        }
        match running.next {
            Some(program) => self.start(program, None),
            None if ended.is_err() => self.start(running.program.load_full(), None),
            None => {}
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
            state: if loaded.problem.is_some() { "broken" } else { "live" }.to_owned(),
            last_error: loaded.problem.as_ref().map(ToString::to_string).or(last_run_error),
            instance: self.parts.instance.to_string(),
            at: 0,
        }
    }
}

/// What decides that a worker must be replaced and not only its program.
fn reads(program: &Program) -> impl PartialEq {
    let manifest = &program.manifest;
    (manifest.group.clone(), manifest.types.clone(), manifest.streams.clone())
}

/// Works; where the group could not be opened yet, tries until it can.
async fn serve(bus: Arc<dyn Bus>, streams: Arc<Streams>, opened: Option<Arc<dyn Inbox>>, spec: Spec) {
    let stop = spec.stop.clone();
    let inbox = match opened {
        Some(inbox) => Some(inbox),
        None => stop.run_until_cancelled(subscribe_at_last(&*bus, &streams, &spec.program)).await,
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

async fn subscribe_at_last(bus: &dyn Bus, streams: &Streams, program: &ArcSwap<Program>) -> Arc<dyn Inbox> {
    let mut failures = 0;
    loop {
        if let Some(inbox) = subscribe(bus, streams, &program.load_full()).await {
            return inbox;
        }
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
}

async fn subscribe(bus: &dyn Bus, streams: &Streams, program: &Program) -> Option<Arc<dyn Inbox>> {
    match bus.subscribe(registry::subscription(program, streams)).await {
        Ok(subscribed) => {
            tell_beginnings(program, &subscribed.began);
            Some(subscribed.inbox)
        }
        Err(error) => {
            tracing::error!(handler = &*program.name, "cannot open its group: {error}; trying again");
            None
        }
    }
}

fn tell_beginnings(program: &Program, began: &[Began]) {
    tracing::info!(handler = &*program.name, version = &*program.version, "live");
    for Began { stream, skipped, taken_in } in began {
        let (handler, group) = (&*program.name, &program.manifest.group);
        tracing::info!(handler, group, stream, skipped, taken_in, "new group");
    }
}
