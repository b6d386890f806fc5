//! `moontide demo`: the example handlers at work on made-up checkouts, and the proof that it adds up.
//!
//! Owns the order of the show: start, feed, wait until nothing is left to do, audit. What is fed and what must come of it
//! is `demo`'s; nothing here judges.

use std::io::{IsTerminal, Stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tempfile::TempDir;

use super::{FAILED, logging, output};
use crate::bus::{BusError, GroupStatus};
use crate::clock::{Clock, SystemClock};
use crate::config::{BusUrl, Config};
use crate::demo::audit::Audit;
use crate::demo::examples;
use crate::demo::feed::Plan;
use crate::demo::live::{Live, Row};
use crate::demo::observe::Doors;
use crate::demo::report;
use crate::event::Event;
use crate::host::{self, Host, Start};
use crate::outcome::Emit;
use crate::streams::Streams;

/// How often the table is redrawn and the store is asked whether it has come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Nothing moved for so long: something is wrong with a handler, and waiting on would tell nobody.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// `run.handlers` unless it is configured.
const DEFAULT_HANDLERS: &str = "handlers";
/// Events per publish.
const BATCH: usize = 500;

/// Arguments of `moontide demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  moontide demo                      shows it and proves that it adds up, then cleans up after itself
  moontide demo --keep               goes on serving: edit a handler, emit more events
  moontide demo --checkouts 20000    more of them
  moontide demo --bus redis://localhost/9    in an empty database of a server; what it stores stays there

Uses ./handlers if the example handlers are there, otherwise its own copy of them; events go to a temporary file unless
--bus names a server.
Exit code 1 if a sum does not hold.")]
pub struct DemoArgs {
    /// Go on serving, so that you can edit handlers and emit events
    #[arg(long)]
    pub keep: bool,
    /// How many checkouts to feed
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub checkouts: u32,
    /// What the checkouts are made of: the same number gives the same ones
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Where the demo takes place.
struct Stage {
    /// Removed when this is dropped, unless the demo is to be kept.
    folder: TempDir,
    handlers: PathBuf,
}

/// Runs the demo on a store of its own, or on the server that the command line names (`on_server`); of `config` everything
/// counts but the bus, and the handlers folder if the example
/// handlers are not in it.
///
/// # Errors
/// When the host does not start, a handler does not load, the store fails, nothing moves any more, or it is interrupted.
pub async fn run(args: DemoArgs, mut config: Config, on_server: bool) -> anyhow::Result<ExitCode> {
    let stage = Stage::set(args.keep, &config.handlers_dir)?;
    if on_server {
        refuse_used(&config).await?;
    } else {
        config.bus.url = BusUrl::SqliteFile(stage.file());
    }
    let bus = config.bus.url.to_string();
    config.handlers_dir = stage.handlers.clone();
    if !args.keep {
        (config.http.listen, config.metrics_listen) = (None, None);
    }
    let streams = config.streams.clone();
    let quiet = logging::hush();
    let host = Host::start(config, Start::default()).await?;
    let result = tokio::select! {
        result = Show::new(&host, streams).play(&args, &stage) => result,
        () = host::signal() => Err(anyhow!("interrupted: nothing was checked")),
    };
    drop(quiet);
    let shown = match result {
        Ok(_) if args.keep => serve(&stage, &bus).await,
        _ => Ok(()),
    };
    host.stop().await;
    shown?;
    if on_server {
        output::say(&format!("\nWhat it stored stays in {bus}"))?;
    }
    Ok(if result? { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Says what can be done with a host that goes on, and waits until it shall stop.
async fn serve(stage: &Stage, bus: &str) -> anyhow::Result<()> {
    let called = std::env::args().next().unwrap_or_else(|| "moontide".to_owned());
    output::say(&format!("\n{}", report::invitation(&called, bus, &stage.handlers)))?;
    host::signal().await;
    output::say(&format!("\nHandlers and files stay in {}", stage.folder.path().display()))?;
    Ok(())
}

/// The demo's sums hold only where nobody else has put anything.
async fn refuse_used(config: &Config) -> anyhow::Result<()> {
    let backend = host::open(config, None).await?;
    let (groups, state) = (backend.overview.groups().await, backend.state.scan("", None, 1).await);
    backend.close().await;
    if !groups?.is_empty() || !state?.is_empty() {
        bail!(
            "{} is in use; the demo needs an empty database: name another by its number, redis://HOST/9",
            config.bus.url
        );
    }
    Ok(())
}

impl Stage {
    fn set(keep: bool, configured: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("moontide-demo-").disable_cleanup(keep).tempdir();
        let folder = folder.context("cannot make a temporary folder; TMPDIR names a place for it")?;
        let handlers = choose_handlers(configured, folder.path())?;
        Ok(Self { folder, handlers })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("moontide.db")
    }
}

/// The configured folder where the examples are in it; in place of a default folder without them, a copy.
fn choose_handlers(configured: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let Some(missing) = examples::missing_from(configured) else { return Ok(configured.to_owned()) };
    if configured != Path::new(DEFAULT_HANDLERS) {
        bail!("{} has no {missing}, which the demo needs; without --handlers it brings its own", configured.display());
    }
    let copy = folder.join("handlers");
    examples::write_to(&copy).with_context(|| format!("cannot write the example handlers to {}", copy.display()))?;
    Ok(copy)
}

struct Show<'a> {
    host: &'a Host,
    streams: Arc<Streams>,
    live: Live<Stdout>,
}

impl<'a> Show<'a> {
    fn new(host: &'a Host, streams: Arc<Streams>) -> Self {
        let out = std::io::stdout();
        let terminal: Option<fn() -> (u16, u16)> = if out.is_terminal() { Some(output::terminal_size) } else { None };
        Self { host, streams, live: Live::new(out, terminal) }
    }

    async fn play(mut self, args: &DemoArgs, stage: &Stage) -> anyhow::Result<bool> {
        let plan = Plan::new(args.seed, args.checkouts as usize, SystemClock.now());
        let (checkouts, handlers) = (plan.cases.len(), stage.handlers.display());
        output::say(&format!("{checkouts} checkouts (seed {}) for the handlers in {handlers}\n", args.seed))?;
        self.wait_until_open().await?;
        self.feed(&plan.deliveries).await?;
        self.feed(&plan.checkouts).await?;
        self.live.finish(&self.rows(&self.groups().await?))?;
        let backend = self.host.backend();
        let doors =
            Doors { state: backend.state.clone(), dead: backend.dead.clone(), overview: backend.overview.clone() };
        let audit = Audit::new(&plan, &doors.observe(&self.streams).await?);
        output::say(&format!("\n{}", report::render(&plan, &audit)))?;
        Ok(audit.holds())
    }

    async fn groups(&self) -> Result<Vec<GroupStatus>, BusError> {
        self.host.backend().overview.groups().await
    }

    /// Waits until every handler's group is open: what is published before that, a new group does not see.
    async fn wait_until_open(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let handlers = self.host.snapshot();
            if let Some((name, problem)) = handlers.iter().find_map(|it| Some((&it.name, it.problem.as_ref()?))) {
                bail!("handler {name} does not load: {problem}");
            }
            let groups = self.groups().await?;
            let missing = handlers.iter().find(|it| groups.iter().all(|group| group.handler != it.name));
            let Some(missing) = missing else { return Ok(()) };
            if since.elapsed() > STALLED_AFTER {
                bail!("handler {} does not start; --log info says more", missing.name);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Publishes `events` and waits until everything that comes of them is done.
    async fn feed(&mut self, events: &[Event]) -> anyhow::Result<()> {
        for batch in events.chunks(BATCH) {
            let emit = |event: &Event| Emit { stream: self.streams.of(&event.kind), event: event.clone(), delay: None };
            self.host.backend().bus.publish(batch.iter().map(emit).collect()).await?;
        }
        self.wait_for_quiet().await
    }

    /// Quiet is: nothing to do, seen twice with nothing done in between. Groups are not all looked at in one moment, so what
    /// passes from one to the next can slip through a single look.
    async fn wait_for_quiet(&mut self) -> anyhow::Result<()> {
        let (mut last, mut since) = (Vec::new(), Instant::now());
        loop {
            let rows = self.rows(&self.groups().await?);
            self.live.draw(&rows)?;
            if rows == last {
                if rows.iter().all(|row| row.lag + row.in_flight == 0) {
                    return Ok(());
                }
                if since.elapsed() > STALLED_AFTER {
                    let waiting = rows.iter().filter(|row| row.lag + row.in_flight > 0).map(|row| row.name.as_str());
                    let waiting: Vec<_> = waiting.collect();
                    bail!("nothing moves any more, but events wait for {}; --log info says more", waiting.join(", "));
                }
            } else {
                (last, since) = (rows, Instant::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What the process counted, and what waits in the store. Lag includes delayed work.
    fn rows(&self, groups: &[GroupStatus]) -> Vec<Row> {
        let row = |it: host::HandlerSnapshot| {
            let group = groups.iter().find(|group| group.handler == it.name);
            Row {
                done: it.counts.done,
                retried: it.counts.retried,
                duplicates: it.counts.duplicates,
                dead: it.counts.dead,
                in_flight: group.map_or(0, |group| group.in_flight),
                lag: group.map_or(0, |group| group.lag),
                name: it.name,
            }
        };
        self.host.snapshot().into_iter().map(row).collect()
    }
}
