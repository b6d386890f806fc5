//! `kill -9` under load, with a checker that knows the truth from numbered events.
//!
//! Every event carries a number. The handlers add it to sums (read, add, write), mark it as seen, fail now and then, refuse
//! some, and emit one child each. However often the processes die: each event ends committed or dead, each effect is
//! there once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use moontide::bus::{DeadFilter, DeadLetter};
use moontide::host::{self, Backend};
use moontide::outcome::Emit;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::{PATIENCE, config_from, event};

const COUNT: &str = r#"
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

const SINK: &str = r#"
return { on = "tock", start = "earliest", handle = function(event, ctx) ctx.kv:add("tocks/" .. event.data.n, 1) end }
"#;

/// Asks to be killed when it meets the killer; everything else it counts.
const TRAP: &str = r#"
return {
    on = "trap",
    start = "earliest",
    handle = function(event, ctx)
        if event.data.n == 50 then
            log.warn("KILL ME")
            ctx:sleep("25s")
        end
        ctx:sleep("10ms")
        ctx.kv:add("innocent", 1)
    end,
}
"#;

/// Numbers that the handler refuses.
fn is_rejected(n: u64) -> bool {
    n % 50 == 7
}

struct Rig {
    dir: tempfile::TempDir,
    backend: Backend,
    next: u64,
    rng: SmallRng,
}

impl Rig {
    async fn new(handlers: &[(&str, &str)]) -> Self {
        Self::configured(handlers, "").await
    }

    /// With `settings` besides the place of the store.
    async fn configured(handlers: &[(&str, &str)], settings: &str) -> Self {
        let seed = rand::random();
        println!("seed {seed}");
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("handlers")).expect("a folder");
        for (name, script) in handlers {
            std::fs::write(dir.path().join("handlers").join(name).with_extension("luau"), script).expect("a file");
        }
        let backend = host::open(&config(dir.path(), settings), Some("checker")).await.expect("the store opens");
        Self { dir, backend, next: 1, rng: SmallRng::seed_from_u64(seed) }
    }

    fn start(&self) -> Worker {
        let child = Command::new(env!("CARGO_BIN_EXE_moontide"))
            .args(["run", "--config", "moontide.toml"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::options().append(true).create(true).open(self.log()).expect("a log file"))
            .spawn();
        Worker(child.expect("the binary starts"))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Publishes `count` ticks; every seventh comes twice.
    async fn feed(&mut self, count: u64) {
        let numbers = self.next..self.next + count;
        self.next += count;
        let mut emits: Vec<Emit> = numbers.clone().map(tick).collect();
        emits.extend(numbers.filter(|n| n % 7 == 0).map(tick));
        self.backend.bus.publish(emits).await.expect("the store takes events");
    }

    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        let millis = self.rng.random_range(millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Waits until nothing is left to do.
    async fn quiet(&self) {
        if !self.quiet_within(2 * PATIENCE).await {
            let groups = self.backend.overview.groups().await.expect("the store answers");
            panic!("still {groups:?}\n{}", self.tail());
        }
    }

    /// Waits until nothing is left to do, or until `patience` is over.
    async fn quiet_within(&self, patience: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience {
            let groups = self.backend.overview.groups().await.expect("the store answers");
            let left: u64 = groups.iter().map(|group| group.lag + group.in_flight).sum();
            if left == 0 && !groups.is_empty() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// How often the log says `what`.
    fn said(&self, what: &str) -> usize {
        std::fs::read_to_string(self.log()).unwrap_or_default().matches(what).count()
    }

    fn tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Compares the store with the truth.
    async fn check(&self) {
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

    async fn dead(&self) -> Vec<DeadLetter> {
        let filter = DeadFilter { limit: 100_000, ..DeadFilter::default() };
        self.backend.dead.list(filter).await.expect("the store answers")
    }

    async fn dead_reasons(&self) -> Vec<&'static str> {
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

    async fn state(&self) -> BTreeMap<String, u64> {
        let entries = self.backend.state.scan("", None, 1_000_000).await.expect("the store answers");
        let number = |value: &[u8]| serde_json::from_slice(value).expect("values are whole numbers");
        entries.into_iter().map(|entry| (entry.key, number(&entry.value))).collect()
    }
}

/// A process of the real binary; killed when dropped.
struct Worker(Child);

impl Worker {
    fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Worker {
    /// Sends it a signal by name.
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill is there").success(), "it lives");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(dir: &Path, settings: &str) -> moontide::config::Config {
    let file = dir.join("moontide.toml");
    let db = dir.join("moontide.db");
    let text = format!("{settings}\n[bus]\nurl = \"sqlite:{}\"\n[http]\nlisten = \"\"\n", db.display());
    std::fs::write(&file, text).expect("a file");
    config_from(&file)
}

fn tick(n: u64) -> Emit {
    event("tick", n, &format!("{{\"n\":{n}}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_killed_a_hundred_times() {
    let mut rig = Rig::new(&[("count", COUNT), ("sink", SINK)]).await;
    for _ in 0..100 {
        rig.feed(25).await;
        let mut worker = rig.start();
        rig.pause(40..260).await;
        worker.kill();
    }
    let _worker = rig.start();
    rig.quiet().await;
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_file_killed_in_turns() {
    let mut rig = Rig::new(&[("count", COUNT), ("sink", SINK)]).await;
    let mut workers = [rig.start(), rig.start()];
    for round in 0..30 {
        rig.feed(60).await;
        rig.pause(50..400).await;
        workers[round % 2].kill();
        workers[round % 2] = rig.start();
    }
    rig.quiet().await;
    rig.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_kills_its_process_is_given_up_and_its_neighbours_are_not() {
    let rig = Rig::new(&[("trap", TRAP)]).await;
    let events = (0..100).map(|n| event("trap", n, &format!("{{\"n\":{n}}}"))).collect();
    rig.backend.bus.publish(events).await.expect("the store takes events");
    let mut deaths = 0;
    let mut worker = rig.start();
    let began = Instant::now();
    while rig.dead_reasons().await.is_empty() {
        let asked = rig.said("KILL ME");
        if asked > deaths {
            worker.kill();
            deaths = asked;
            worker = rig.start();
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{deaths} deaths\n{}", rig.tail());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rig.quiet().await;
    assert_eq!(rig.dead_reasons().await, ["killer"]);
    assert_eq!(rig.state().await.get("innocent"), Some(&99));
    assert_eq!(deaths, 4, "twice among others, twice alone");
}

/// Longer than recovery, and patience with a process that was stopped in the middle of a write.
const STOPPED: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_process_still_does_when_it_goes_on_is_fenced() {
    let slow = COUNT.replace("local n =", "ctx:sleep('400ms') local n =");
    let settings = "[groups]\nrecovery = \"1s\"\n[sqlite]\nsynchronous = \"normal\"";
    let mut rig = Rig::configured(&[("count", &slow), ("sink", SINK)], settings).await;
    let workers = [rig.start(), rig.start()];
    let fenced = "another process took this event over";
    for round in 0.. {
        rig.feed(300).await;
        let zombie = &workers[round % 2];
        rig.pause(600..900).await;
        zombie.signal("STOP");
        // One that was stopped in the middle of a write holds SQLite's lock, and everybody waits for it.
        rig.quiet_within(STOPPED).await;
        zombie.signal("CONT");
        rig.quiet().await;
        if round >= 2 && rig.said(fenced) > 0 {
            break;
        }
        assert!(round < 10, "no process was ever stopped in the middle of a run\n{}", rig.tail());
    }
    rig.check().await;
}
