//! One round: a folder, a store, processes of the real binary, numbered events, and the look at what came of them.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moontide::bus::{BusError, DeadFilter};
use moontide::config::{self, Config, Flags};
use moontide::host::{self, Backend};
use moontide::outcome::Emit;
use moontide_stage::process::Process;
use moontide_stage::rest;
use moontide_stage::server::Server;
use rand::Rng as _;
use rand::rngs::SmallRng;

use crate::findings::Findings;
use crate::place::Place;
use crate::truth::{self, Held, Truth};

/// Longest wait for something that must happen; only a defect waits that long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The handlers of numbered events.
pub const HANDLERS: &[(&str, &str)] = &[
    ("tick", include_str!("../handlers/tick.luau")),
    ("tock", include_str!("../handlers/tock.luau")),
    ("doom", include_str!("../handlers/doom.luau")),
    ("order", include_str!("../handlers/order.luau")),
    ("step", include_str!("../handlers/step.luau")),
];

/// The same, where no idempotency record hides that one event was committed by two processes. Only for faults after which
/// the store is as it was.
pub const UNRECORDED: &[(&str, &str)] =
    &[HANDLERS[0], ("tock", include_str!("../handlers/tock_unrecorded.luau")), HANDLERS[2], HANDLERS[3], HANDLERS[4]];

/// The real binary: it lies beside this program.
pub fn binary() -> PathBuf {
    let this = std::env::current_exe().expect("the program knows its path");
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join("moontide")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no moontide beside {}: scripts/faults builds both", this.display()))
}

fn config_in(folder: &Path) -> Config {
    let flags = Flags { config: Some(folder.join("moontide.toml")), ..Flags::default() };
    config::load(&flags).unwrap_or_else(|problems| panic!("{problems}"))
}

pub struct Stage {
    pub rng: SmallRng,
    pub backend: Backend,
    pub folder: tempfile::TempDir,
    /// The first number that was not published yet.
    next: u64,
    started: u64,
    /// Last, so that the server goes after those who ask it.
    pub place: Place,
}

impl Stage {
    /// With the handlers of numbered events, and `settings` besides the place of the store.
    pub async fn new(place: Place, rng: SmallRng, settings: &str) -> Self {
        Self::with(place, rng, settings, HANDLERS).await
    }

    /// As [`Stage::new`], with other handlers (name, script).
    pub async fn with(place: Place, rng: SmallRng, settings: &str, handlers: &[(&str, &str)]) -> Self {
        Self::over(tempfile::tempdir().expect("a temporary folder"), place, rng, settings, handlers).await
    }

    /// As [`Stage::with`], over a folder in which there may be a store already.
    pub async fn over(
        folder: tempfile::TempDir,
        place: Place,
        rng: SmallRng,
        settings: &str,
        handlers: &[(&str, &str)],
    ) -> Self {
        let url = place.url(folder.path());
        let text = format!("{settings}\n[bus]\nurl = \"{url}\"\n[http]\nlisten = \"\"\n");
        std::fs::write(folder.path().join("moontide.toml"), text).expect("a file");
        let config = config_in(folder.path());
        let backend = host::open(&config, Some("checker")).await.expect("the store opens");
        let stage = Self { rng, backend, folder, next: 1, started: 0, place };
        std::fs::create_dir_all(stage.folder.path().join("handlers")).expect("a folder");
        handlers.iter().for_each(|(name, script)| stage.write_handler(name, script));
        stage
    }

    /// What its processes are configured to do.
    pub fn config(&self) -> Config {
        config_in(self.folder.path())
    }

    /// Writes a script; running processes notice by themselves.
    pub fn write_handler(&self, name: &str, script: &str) {
        let file = self.folder.path().join("handlers").join(name).with_extension("luau");
        std::fs::write(file, script).expect("a file");
    }

    pub fn server(&self) -> &Server {
        match &self.place {
            Place::Server(server) => server,
            Place::File => panic!("there is no server"),
        }
    }

    /// Starts a process under a name that none had before; answers both.
    pub fn start(&mut self) -> (String, Process) {
        self.start_with(&[])
    }

    /// As [`Stage::start`], one that meets the store at another address.
    pub fn start_at(&mut self, url: &str) -> (String, Process) {
        self.start_with(&[("MOONTIDE_BUS_URL", url)])
    }

    /// As [`Stage::start`], with these variables.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) -> (String, Process) {
        self.started += 1;
        let name = format!("p{}", self.started);
        let process = self.start_as(&name, variables);
        (name, process)
    }

    /// Starts a process under this name, with these variables besides.
    pub fn start_as(&self, name: &str, variables: &[(&str, &str)]) -> Process {
        let log = std::fs::File::options().append(true).create(true).open(self.log()).expect("a log file");
        let mut command = Command::new(binary());
        command.args(["run", "--config", "moontide.toml", "--name", name]).current_dir(self.folder.path());
        command.envs(variables.iter().copied());
        Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Waits until `count` processes have started in all: whoever meets no store while it starts ends.
    pub async fn until_started(&self, count: usize) {
        self.until("all are there", async || self.said("INFO handlers from ") >= count as u64).await;
    }

    /// How often the log says `what`.
    pub fn said(&self, what: &str) -> u64 {
        self.log_text().matches(what).count() as u64
    }

    /// All that its processes have said.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Whole lines of the log after the first `bytes` bytes, which are counted on.
    pub fn log_after(&self, bytes: &mut u64) -> String {
        let mut text = Vec::new();
        let mut file = std::fs::File::open(self.log()).expect("somebody was started");
        file.seek(SeekFrom::Start(*bytes)).expect("it was read up to there");
        file.read_to_end(&mut text).expect("a file of ours");
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        *bytes += text.len() as u64;
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines of the log.
    pub fn tail(&self) -> String {
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The last number that was published.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// What the store has are the numbers up to `last`.
    pub fn goes_on_after(&mut self, last: u64) {
        self.next = last + 1;
    }

    /// Publishes the events of the next `count` numbers.
    pub async fn feed(&mut self, count: u64) {
        let events = self.draw(count);
        self.publish(events).await;
    }

    /// The events of the next `count` numbers, for whoever gives them to the store in another way.
    pub fn draw(&mut self, count: u64) -> Vec<Emit> {
        let numbers = self.next..self.next + count;
        self.next += count;
        numbers.flat_map(truth::events).collect()
    }

    /// Until the store says that it has them: what it took without saying so comes twice, and must have its effects once.
    pub async fn publish(&self, emits: Vec<Emit>) {
        self.until("the store takes events", async || self.backend.bus.publish(emits.clone()).await.is_ok()).await;
    }

    pub async fn pause(&mut self, millis: std::ops::Range<u64>) {
        let millis = self.rng.random_range(millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Waits until nothing is left to do; what is left when patience is over is lost.
    pub async fn quiet(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let left = self.left().await;
            match left {
                None => return Ok(()),
                Some(left) if began.elapsed() > PATIENCE => return Err(format!("still {left}\n{}", self.tail())),
                Some(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// What is left to do, if anything is.
    async fn left(&self) -> Option<String> {
        let groups = self.backend.overview.groups().await;
        let groups = match groups {
            Ok(groups) => groups,
            Err(error) => return Some(error.to_string()),
        };
        if let Place::Server(server) = &self.place {
            let left = rest::left(server);
            return (!left.is_empty()).then(|| left.join("\n"));
        }
        let left: u64 = groups.iter().map(|group| group.lag + group.in_flight).sum();
        (left > 0 || groups.is_empty()).then(|| format!("{groups:?}"))
    }

    /// Waits until `done` says so.
    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !done().await {
            assert!(began.elapsed() < PATIENCE, "never: {what}\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for rest, and compares what the store holds with the truth about all that was published.
    pub async fn check(&self) -> Findings {
        self.check_against(&Truth::of(self.last())).await
    }

    /// As [`Stage::check`], with a truth of the caller's own.
    pub async fn check_against(&self, truth: &Truth) -> Findings {
        self.check_with(|held| truth.compare(&held)).await
    }

    /// Waits for rest, and has `compare` look at what the store holds.
    pub async fn check_with(&self, compare: impl FnOnce(Held) -> Findings) -> Findings {
        let rest = self.quiet().await;
        let mut found = compare(self.held().await.expect("the store answers"));
        if let Err(left) = rest {
            found.lost += 1;
            found.wrong_first(left);
        }
        found.panics += self.said("panicked at");
        if !found.is_exact() {
            found.wrong_first(self.tail());
        }
        found
    }

    /// What the store holds.
    pub async fn held(&self) -> Result<Held, BusError> {
        let entries = self.backend.state.scan("", None, usize::MAX >> 1).await?;
        let value = |value: &[u8]| serde_json::from_slice(value).unwrap_or_default();
        let state: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.key, value(&entry.value))).collect();
        let dead = self.backend.dead.list(DeadFilter { limit: usize::MAX >> 1, ..DeadFilter::default() }).await?;
        Ok(Held { state, dead })
    }
}
