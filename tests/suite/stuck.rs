//! Real processes whose scripts hold their threads and cannot be interrupted.
//!
//! Builds with debug assertions have `debug.block` for it, where the environment asks.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use moontide::bus::DeadFilter;
use moontide::host::{self, Backend};
use moontide::judge::DeathReason;
use moontide::script::EXIT_STUCK;

use crate::support::{PATIENCE, config_from, event};

const HANG: &str = "return { on = 'hang', start = 'earliest', handle = function(event, ctx) debug.block('1h') end }";
const TICK: &str =
    "return { on = 'tick', start = 'earliest', handle = function(event, ctx) ctx.kv:add('ticks', 1) end }";

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn prepare(dir: &Path) -> Backend {
    let settings = "[bus]\nurl = \"sqlite:moontide.db\"\n[run]\nthreads = 2\n[limits]\ncpu = \"50ms\"\n";
    std::fs::create_dir(dir.join("handlers")).expect("a folder");
    std::fs::write(dir.join("moontide.toml"), settings).expect("a file");
    std::fs::write(dir.join("handlers/hang.luau"), HANG).expect("a file");
    std::fs::write(dir.join("handlers/tick.luau"), TICK).expect("a file");
    let own = dir.join("own.toml");
    std::fs::write(&own, settings.replace("moontide.db", &dir.join("moontide.db").display().to_string()))
        .expect("a file");
    host::open(&config_from(&own), Some("checker")).await.expect("the store opens")
}

fn start(dir: &Path) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_moontide"))
        .args(["run"])
        .current_dir(dir)
        .env("LET_SCRIPTS_BLOCK", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(child.expect("the binary starts"))
}

async fn exit_of(process: &mut Process) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = process.0.try_wait().expect("it is our child") {
            return status;
        }
        assert!(began.elapsed() < PATIENCE, "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_event_that_costs_two_threads_is_a_dead_letter_and_its_neighbours_go_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let backend = prepare(dir.path()).await;
    let ticks = (0..200).map(|n| event("tick", n, "{}"));
    let emits = std::iter::once(event("hang", 1, "{}")).chain(ticks).collect();
    backend.bus.publish(emits).await.expect("the store takes events");
    let _process = start(dir.path());
    let began = Instant::now();
    let dead = loop {
        let dead =
            backend.dead.list(DeadFilter { limit: 9, ..DeadFilter::default() }).await.expect("the store answers");
        if !dead.is_empty() {
            break dead;
        }
        assert!(began.elapsed() < PATIENCE, "it is never given up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((dead.len(), dead[0].handler.as_str(), dead[0].reason), (1, "hang", DeathReason::Killer.into()));
    let ticks = backend.ledger.read(&["ticks".to_owned()]).await.expect("the store answers");
    assert_eq!(ticks[0].as_deref(), Some(&b"200"[..]), "the neighbour is done long before");
}

#[tokio::test]
async fn too_many_lost_threads_end_the_process_and_lose_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let backend = prepare(dir.path()).await;
    let emits = (0..8).map(|n| event("hang", n, "{}")).collect();
    backend.bus.publish(emits).await.expect("the store takes events");
    let mut process = start(dir.path());
    assert_eq!(exit_of(&mut process).await.code(), Some(EXIT_STUCK));
    let groups = backend.overview.groups().await.expect("the store answers");
    let left: u64 = groups.iter().map(|group| group.lag + group.in_flight).sum();
    assert_eq!(left, 8, "{groups:?}");
}
