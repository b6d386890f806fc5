//! `kill -9` under load, with a checker that knows the truth from numbered events.
//!
//! Every event carries a number. The handlers add it to sums (read, add, write), mark it as seen, fail now and then, refuse
//! some, and emit one child each. However often the processes die: each event ends committed or dead, each effect is
//! there once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use moontide::bus::{DeadFilter, Overview};
use moontide::event::{Event, Json};
use moontide::host::{self, Backend};
use moontide::outcome::Emit;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const COUNT: &str = r#"
return {
    on = "tick",
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
return { on = "tock", handle = function(event, ctx) ctx.kv:add("tocks/" .. event.data.n, 1) end }
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
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let handlers = dir.path().join("handlers");
        std::fs::create_dir(&handlers).expect("a folder");
        std::fs::write(handlers.join("count.luau"), COUNT).expect("a file");
        std::fs::write(handlers.join("sink.luau"), SINK).expect("a file");
        let backend = host::open(&config(dir.path()), Some("checker")).expect("the store opens");
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
        let began = Instant::now();
        loop {
            let groups = self.backend.overview.groups().await.expect("the store answers");
            let left: u64 = groups.iter().map(|group| group.lag + group.in_flight).sum();
            if left == 0 && groups.len() == 2 {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "still {groups:?}\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
        assert!(wrong.is_empty() && extra.is_empty(), "wrong (expected): {wrong:?}; extra: {extra:?}\n{}", self.tail());
        self.check_dead().await;
    }

    async fn check_dead(&self) {
        let filter = DeadFilter { limit: 100_000, ..DeadFilter::default() };
        let dead = self.backend.dead.list(filter).await.expect("the store answers");
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

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(dir: &Path) -> moontide::config::Config {
    let file = dir.join("moontide.toml");
    let text = format!(
        "[bus]\nurl = \"sqlite:{}\"\n[handlers]\n",
        dir.join("moontide.db").display(),
    );
    std::fs::write(&file, text).expect("a file");
    crate::support::config_from(&file)
}

fn tick(n: u64) -> Emit {
    Emit {
        stream: "events:tick".to_owned(),
        delay: None,
        event: Event {
            id: n.to_string(),
            source: "checker".to_owned(),
            kind: "tick".to_owned(),
            subject: None,
            time: None,
            dataschema: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            ext: None,
            data: Some(Json::trusted(format!("{{\"n\":{n}}}"))),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_killed_a_hundred_times() {
    let mut rig = Rig::new(rand::random());
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
    let mut rig = Rig::new(rand::random());
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
