//! Real processes over one store, killed and stopped while they work, and a checker that knows the truth from numbered events.
//!
//! Every event carries a number. The handlers add it to sums (read, add, write), mark it as seen, fail now and then, refuse
//! some, and emit one child each. However often the processes die: each event ends committed or dead, each effect is
//! there once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moontide::bus::{DeadFilter, DeadLetter};
use moontide::host::{self, Backend};
use moontide::outcome::Emit;
use moontide_stage::process::Process;
use moontide_stage::rest;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::{PATIENCE, config_from, event};
use moontide_stage::server::{Kind, Server};

pub const COUNT: &str = r#"
return {
    on = "tick",
    start = "earliest",
    retry = { attempts = 20, delay = "20ms", factor = 1, jitter = 0 },
    handle = function(event, ctx)
        local n = event.data.n
        if n % 50 == 7 then
            ctx:reject("number " .. n)
        end
        if n % 10 == 3 and ctx.attempt == 1 then
            error("flaky " .. n)
        end
        local sum = "sum/" .. n % 5
        ctx.kv:set(sum, (ctx.kv:get(sum) or 0) + n)
        ctx.kv:add("ticks/" .. n, 1)
        ctx:emit("tock", { n = n })
        if n % 4 == 0 then
            ctx:emit("tock", { n = -n }, { delay = "30ms" })
        end
    end,
}
"#;

pub const SINK: &str = r#"
return { on = "tock", start = "earliest", handle = function(event, ctx) ctx.kv:add("tocks/" .. event.data.n, 1) end }
"#;

/// Numbers that the handler refuses.
fn is_rejected(n: u64) -> bool {
    n % 50 == 7
}

/// Where the store is.
pub enum Place {
    File,
    Server(Server),
}

impl Place {
    /// A server that keeps nothing on disk.
    pub fn server(kind: Kind) -> Self {
        Self::Server(Server::with(kind, &[]))
    }
}

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub backend: Backend,
    pub rng: SmallRng,
    next: u64,
    /// Last, so that the server goes after those who ask it.
    place: Place,
}

impl Rig {
    pub async fn new(place: Place, handlers: &[(&str, &str)]) -> Self {
        Self::configured(place, handlers, "").await
    }

    /// With `settings` besides the place of the store.
    pub async fn configured(place: Place, handlers: &[(&str, &str)], settings: &str) -> Self {
        let seed = rand::random();
        println!("seed {seed}");
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("handlers")).expect("a folder");
        for (name, script) in handlers {
            std::fs::write(dir.path().join("handlers").join(name).with_extension("luau"), script).expect("a file");
        }
        let config = config(dir.path(), &place, settings);
        let backend = host::open(&config, Some("checker")).await.expect("the store opens");
        Self { dir, backend, place, next: 1, rng: SmallRng::seed_from_u64(seed) }
    }

    pub fn server(&self) -> &Server {
        match &self.place {
            Place::Server(server) => server,
            Place::File => panic!("there is no server"),
        }
    }

    pub fn start(&self) -> Process {
        self.start_with(&[])
    }

    /// With these arguments besides.
    pub fn start_with(&self, arguments: &[&str]) -> Process {
        let log = std::fs::File::options().append(true).create(true).open(self.log()).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
        command.args(["run", "--config", "moontide.toml"]).args(arguments).current_dir(self.dir.path());
        Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
    }

    /// Runs the command with these arguments to its end, and answers what it printed.
    pub fn moontide(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
        let run = command.args(arguments).current_dir(self.dir.path()).output().expect("the binary starts");
        let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{arguments:?}: {out}\n{err}");
        out.into_owned()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Publishes `count` ticks; every seventh comes twice.
    pub async fn feed(&mut self, count: u64) {
        let numbers = self.next..self.next + count;
        self.next += count;
        let mut emits: Vec<Emit> = numbers.clone().map(tick).collect();
        emits.extend(numbers.filter(|n| n % 7 == 0).map(tick));
        self.publish(emits).await;
    }

    /// Until the store says that it has them: events that it took without saying so come twice.
    pub async fn publish(&self, emits: Vec<Emit>) {
        self.until("the store takes events", async || self.backend.bus.publish(emits.clone()).await.is_ok()).await;
    }

    pub async fn pause(&mut self, millis: std::ops::Range<u64>) {
        let millis = self.rng.random_range(millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Waits until nothing is left to do.
    pub async fn quiet(&self) {
        if !self.quiet_within(2 * PATIENCE).await {
            panic!("still {}\n{}", self.left().await.unwrap_or_default(), self.tail());
        }
    }

    /// Waits until nothing is left to do, or until `patience` is over.
    pub async fn quiet_within(&self, patience: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience {
            if self.left().await.is_none() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// What is left to do, if anything is.
    async fn left(&self) -> Option<String> {
        if let Place::Server(server) = &self.place {
            let left = rest::left(server);
            // A server that was away is found again a little later by the bus than by a new connection.
            let found = self.backend.overview.groups().await.map(drop);
            let away = found.err().map(|error| error.to_string());
            return (!left.is_empty() || away.is_some())
                .then(|| left.into_iter().chain(away).collect::<Vec<_>>().join("\n"));
        }
        let groups = self.backend.overview.groups().await.expect("the store answers");
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

    /// How often the log says `what`.
    pub fn said(&self, what: &str) -> usize {
        std::fs::read_to_string(self.log()).unwrap_or_default().matches(what).count()
    }

    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Compares the store with the truth.
    pub async fn check(&self) {
        let state = self.state().await;
        let committed: Vec<u64> = (1..self.next).filter(|n| !is_rejected(*n)).collect();
        let mut expected = BTreeMap::new();
        for &n in &committed {
            *expected.entry(format!("sum/{}", n % 5)).or_insert(0) += n;
            expected.insert(format!("ticks/{n}"), 1);
            expected.insert(format!("tocks/{n}"), 1);
            if n % 4 == 0 {
                expected.insert(format!("tocks/-{n}"), 1);
            }
        }
        let wrong: Vec<_> = expected.iter().filter(|(key, value)| state.get(*key) != Some(value)).collect();
        let extra: Vec<_> = state.keys().filter(|key| !expected.contains_key(*key)).collect();
        self.check_dead().await;
        assert!(wrong.is_empty() && extra.is_empty(), "wrong (expected): {wrong:?}; extra: {extra:?}\n{}", self.tail());
    }

    pub async fn dead(&self) -> Vec<DeadLetter> {
        let filter = DeadFilter { limit: 100_000, ..DeadFilter::default() };
        self.backend.dead.list(filter).await.expect("the store answers")
    }

    pub async fn dead_reasons(&self) -> Vec<&'static str> {
        self.dead().await.iter().map(|letter| letter.reason.as_str()).collect()
    }

    async fn check_dead(&self) {
        let dead = self.dead().await;
        let mut numbers: Vec<u64> = dead
            .iter()
            .map(|letter| {
                assert_eq!(letter.reason.as_str(), "rejected", "{letter:?}");
                letter.event.as_ref().expect("it is an event").id.parse().expect("ids are numbers")
            })
            .collect();
        numbers.sort_unstable();
        let expected: Vec<u64> = (1..self.next).filter(|n| is_rejected(*n)).collect();
        assert_eq!(numbers, expected);
    }

    pub async fn state(&self) -> BTreeMap<String, u64> {
        let entries = self.backend.state.scan("", None, 1_000_000).await.expect("the store answers");
        let number = |value: &[u8]| serde_json::from_slice(value).expect("values are whole numbers");
        entries.into_iter().map(|entry| (entry.key, number(&entry.value))).collect()
    }
}

fn config(dir: &Path, place: &Place, settings: &str) -> moontide::config::Config {
    let file = dir.join("moontide.toml");
    let url = match place {
        Place::File => format!("sqlite:{}", dir.join("moontide.db").display()),
        Place::Server(server) => server.url(),
    };
    let text = format!("{settings}\n[bus]\nurl = \"{url}\"\n[http]\nlisten = \"\"\n");
    std::fs::write(&file, text).expect("a file");
    config_from(&file)
}

fn tick(n: u64) -> Emit {
    event("tick", n, &format!("{{\"n\":{n}}}"))
}
