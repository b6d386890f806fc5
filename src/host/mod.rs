//! Wires the parts into a running host, and owns the order in which they start and stop.
//!
//! Start: registry, ports, store (`backend`), script threads, workers, watch, HTTP. Stop: the reverse, under one shared
//! deadline; what is unfinished then goes back uncharged.

mod backend;
mod doors;
mod gone;
mod health;
mod opening;
mod receipt;
mod setbacks;
mod signals;
mod supervisor;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::BusError;
use crate::bus::promise::Promise;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::http::ListenError;
use crate::metrics::{Counts, Metrics};
use crate::outbound::Outbound;
use crate::registry::{self, Registry, Scanner};
use crate::script::{Pool, Services};
use crate::watch::{self, Change};

pub use backend::{Backend, erase, look, open, open_to_publish, promises, record_bytes};

use backend::default_instance;
use doors::Doors;
use health::Standing;
use setbacks::Setbacks;
pub use signals::Signals;
use supervisor::{Supervisor, Tasks, Workers};

/// What `run` adds to the configuration.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Only these handlers; empty: all.
    pub only: Vec<String>,
    /// Name of this process; `None`: as the configuration says.
    pub instance: Option<String>,
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] BusError),
    #[error("cannot read the handlers folder {}: {cause}; create it, or name another with --handlers", .path.display())]
    Folder { path: PathBuf, cause: std::io::Error },
    #[error("cannot start the script threads: {0}")]
    Threads(std::io::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("--only names {0}, and there is no such handler; the handlers are: {1}")]
    Only(String, String),
}

/// A running host.
pub struct Host {
    parts: Parts,
    doors: Doors,
    supervisor: JoinHandle<()>,
}

/// What the host and its supervisor share.
#[derive(Clone)]
struct Parts {
    config: Config,
    backend: Backend,
    pool: Arc<Pool>,
    clock: Arc<dyn Clock>,
    instance: Arc<str>,
    metrics: Metrics,
    /// The registry in force, for [`Host::snapshot`].
    registry: Arc<Mutex<Registry>>,
    /// The metrics of every handler; they outlive reloads, and for a while the handler's file.
    workers: Workers,
    tasks: Tasks,
    setbacks: Setbacks,
    stop: CancellationToken,
}

/// One handler as the host sees it now.
#[derive(Clone, Debug)]
pub struct HandlerSnapshot {
    pub name: String,
    pub version: String,
    /// Runs its newest version; otherwise `problem` says why not.
    pub problem: Option<String>,
    pub counts: Counts,
}

impl Host {
    /// Loads the handlers and starts their workers.
    ///
    /// # Errors
    /// When the store cannot be opened or the folder cannot be read. A handler that does not load is no error here: it is
    /// reported, and the others run.
    pub async fn start(config: Config, start: Start) -> Result<Self, StartError> {
        let mut scanner = Scanner::new(&config.handlers_dir);
        let (sources, skipped) =
            scanner.scan().map_err(|cause| StartError::Folder { path: config.handlers_dir.clone(), cause })?;
        let change = Change { sources, skipped };
        let building = build_aside(Registry::default(), change.clone(), config.clone());
        let registry = building.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        check_only(&start.only, &registry)?;
        let listeners = doors::bind(&config).await?;
        let instance: Arc<str> =
            start.instance.or_else(|| config.instance.clone()).unwrap_or_else(default_instance).into();
        let backend = open(&config, Some(&instance)).await?;
        let parts = Parts::new(config, backend, instance, registry.clone())?;
        let (changes, changed) = mpsc::channel(1);
        let (folder, scan) = (parts.config.handlers_dir.clone(), parts.config.scan);
        tokio::spawn(watch::watch(folder, scan, change, scanner, changes));
        let mut supervisor = Supervisor::new(parts.clone(), start.only);
        supervisor.apply(&Registry::default(), &registry).await;
        // The groups are open by now: what is heard finds its handlers.
        parts.backend.listen(parts.config.channels.clone());
        let supervisor = tokio::spawn(supervisor.run(registry, changed));
        let standing = Arc::new(Standing::new(parts.clone(), supervisor.abort_handle()));
        let doors = Doors::open(listeners, &parts, standing);
        Ok(Self { parts, doors, supervisor })
    }

    /// The store.
    pub fn backend(&self) -> &Backend {
        &self.parts.backend
    }

    /// Where HTTP is served, if it is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.doors.http_address()
    }

    /// Where metrics alone are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.doors.metrics_address()
    }

    /// All metrics of this process.
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// The handlers and what they did so far, by name.
    pub fn snapshot(&self) -> Vec<HandlerSnapshot> {
        let workers = self.parts.workers.lock();
        let registry = self.parts.registry.lock();
        let rows = registry.handlers.iter().map(|(name, loaded)| HandlerSnapshot {
            name: name.clone(),
            version: loaded.program.as_ref().map(|program| program.version.to_string()).unwrap_or_default(),
            problem: loaded.problem.as_ref().map(ToString::to_string),
            counts: workers.get(name).map(|metrics| metrics.counts()).unwrap_or_default(),
        });
        rows.collect()
    }

    /// The `[handlers."…"]` tables that fit no handler.
    fn idle_patterns(&self) -> Vec<String> {
        let registry = self.parts.registry.lock();
        let idle = self.parts.config.idle_patterns(registry.handlers.keys().map(String::as_str));
        idle.into_iter().map(str::to_owned).collect()
    }

    /// Waits until this process can go on no more, and answers why; only a new one helps.
    pub async fn lost(&mut self) -> String {
        tokio::select! {
            why = self.parts.backend.lost() => format!("nothing can be stored in {} any more: {why}", self.parts.config.bus.url),
            _ = &mut self.supervisor => "what looks after the workers ended by a defect of Moontide".into(),
        }
    }

    /// Stops receiving, finishes what runs within the grace time, gives the rest back and closes the store.
    pub async fn stop(self) {
        self.parts.backend.stop_listening();
        self.parts.stop.cancel();
        let grace = self.parts.config.grace;
        let closing = tokio::spawn(tokio::time::timeout(grace, self.doors.close()));
        let mut supervisor = self.supervisor;
        if tokio::time::timeout(grace, &mut supervisor).await.is_err() {
            tracing::warn!(
                "the grace time of {:?} is over; unfinished runs go back uncharged",
                self.parts.config.grace
            );
            self.parts.pool.release_all();
            let _ = tokio::time::timeout(grace, &mut supervisor).await;
        }
        // What a client was promised is stored before the store closes; who was too slow was promised nothing.
        let _ = closing.await;
        self.parts.backend.close().await;
    }
}

/// Exit code of a process that could not go on.
pub const EXIT_LOST: i32 = 5;

/// Runs a host until SIGINT or SIGTERM; a second signal ends the process at once, and so does what it cannot go on without
/// ([`EXIT_LOST`]): nothing could be given back then, and whoever started it starts it again.
///
/// # Errors
/// As [`Host::start`].
pub async fn run(config: Config, start: Start) -> Result<(), StartError> {
    // First: who is told to end while it starts has something in its hands already, and ends in order as soon as it can.
    let signals = Signals::listen();
    let mut again = signals.clone();
    tokio::select! {
        ended = serve(config, start, signals) => ended,
        () = again.told(2) => std::process::exit(130),
    }
}

async fn serve(config: Config, start: Start, mut signals: Signals) -> Result<(), StartError> {
    let handlers = config.handlers_dir.clone();
    let bus = config.bus.url.to_string();
    config.chosen().iter().for_each(|line| tracing::info!("{line}"));
    let promises = promises(&config).await?;
    config.in_vain().iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut host = Host::start(config, start).await?;
    host.idle_patterns().iter().for_each(|pattern| tracing::warn!("[handlers.{pattern:?}] fits no handler"));
    for Promise { when, holds } in promises {
        tracing::info!("when {when}: {holds}");
    }
    match host.snapshot().len() {
        0 => tracing::warn!("no handler in {} yet; a file that is dropped there starts by itself", handlers.display()),
        count => tracing::info!(count, "handlers from {}, events in {bus}", handlers.display()),
    }
    tokio::select! {
        () = signals.told(1) => {}
        why = host.lost() => {
            tracing::error!("the process ends: {why}");
            std::process::exit(EXIT_LOST);
        }
    }
    tracing::info!("stopping; a second signal stops at once");
    host.stop().await;
    Ok(())
}

impl Parts {
    fn new(config: Config, backend: Backend, instance: Arc<str>, registry: Registry) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Metrics::new();
        let services = Services {
            ledger: backend.ledger.clone(),
            streams: config.streams.clone(),
            clock: clock.clone(),
            instance: instance.clone(),
            source: config.bus.source.as_str().into(),
            outbound: Some(Outbound::new(Arc::new(metrics.clone()))),
        };
        let pool = Pool::start(config.script_threads(), services).map_err(StartError::Threads)?;
        Ok(Self {
            config,
            backend,
            pool: Arc::new(pool),
            clock,
            instance,
            metrics,
            registry: Arc::new(Mutex::new(registry)),
            workers: Workers::default(),
            tasks: Tasks::default(),
            setbacks: Setbacks::default(),
            stop: CancellationToken::new(),
        })
    }
}

fn check_only(only: &[String], registry: &Registry) -> Result<(), StartError> {
    let missing = only.iter().find(|name| !registry.handlers.contains_key(*name));
    let known = || registry.handlers.keys().cloned().collect::<Vec<_>>().join(", ");
    missing.map_or(Ok(()), |name| Err(StartError::Only(name.clone(), known())))
}

/// Compiles on a thread of its own, off every hot path.
fn build_aside(previous: Registry, change: Change, config: Config) -> JoinHandle<Registry> {
    tokio::task::spawn_blocking(move || registry::build(&previous, change.sources, change.skipped, &config))
}

/// Reads the handlers folder once, as `run` would.
///
/// # Errors
/// When the folder cannot be read.
pub fn load_folder(path: &Path, config: &Config) -> Result<Registry, StartError> {
    let scanned = Scanner::new(path).scan();
    let (sources, skipped) = scanned.map_err(|cause| StartError::Folder { path: path.to_owned(), cause })?;
    Ok(registry::build(&Registry::default(), sources, skipped, config))
}
