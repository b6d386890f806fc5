//! More files at once than the operating system can tell of.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use moontide::host;

use super::{handlers, until_seen};
use crate::reload::load::{Load, script};
use crate::reload::saved;
use crate::support::{Desk, PATIENCE, config_from, event};

/// How many events the kernel keeps for a listener that does not come.
fn queued_max() -> usize {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("Linux says it");
    limit.trim().parse().expect("a number")
}

struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(sent.expect("there is kill").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn counting(key: &str) -> String {
    format!("return {{ on = 'tick', handle = function(event, ctx) ctx.kv:add('{key}', 1) end }}")
}

async fn until_live(log: &Path, handlers: usize) {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(log).expect("it is there");
        if text.matches(" live ").count() >= handlers {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not {handlers} are live: {text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_was_saved_while_the_system_lost_count_is_live_all_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |path: &str| dir.path().join(path);
    fs::create_dir(at("handlers")).expect("a folder");
    fs::write(at("moontide.toml"), "[http]\nlisten = \"\"\n[bus]\nurl = \"sqlite:moontide.db\"\n").expect("a file");
    fs::write(at("handlers/tick.luau"), counting("old")).expect("a file");
    let child = Command::new(env!("CARGO_BIN_EXE_moontide"))
        .arg("run")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stderr(fs::File::create(at("log")).expect("a file"))
        .spawn();
    let process = Process(child.expect("the binary starts"));
    until_live(&at("log"), 1).await;

    // Nobody takes what the kernel has to tell: at some point it stops telling.
    process.signal("-STOP");
    for n in 0..queued_max().min(100_000) / 2 {
        fs::write(at(&format!("handlers/_{n}")), "x").expect("a file");
    }
    fs::write(at("handlers/tick.luau"), counting("new")).expect("a file");
    for n in 0..50 {
        fs::write(at(&format!("handlers/h{n}.luau")), counting(&format!("h{n}"))).expect("a file");
    }
    process.signal("-CONT");
    until_live(&at("log"), 51).await;

    let config = at("checker.toml");
    fs::write(&config, format!("[bus]\nurl = \"sqlite:{}\"\n", at("moontide.db").display())).expect("a file");
    let backend = host::open(&config_from(&config), Some("checker")).await.expect("the store opens");
    backend.bus.publish(vec![event("tick", 1, "{}")]).await.expect("the store takes events");
    let began = Instant::now();
    loop {
        let entries = backend.state.scan("", None, 100).await.expect("the store answers");
        let keys: Vec<String> = entries.into_iter().map(|entry| entry.key).collect();
        assert!(!keys.contains(&"old".to_owned()), "{keys:?}");
        if keys.len() == 51 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{keys:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Handlers that get an event: each then has a VM, of a quarter of a MiB.
const BUSY_MAX: usize = 50;

/// Drops `count` handlers into the folder at once, while events flow.
async fn drop_handlers(count: usize) {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    for n in 0..count {
        let text = format!("return {{ on = 'of.{n}', handle = function(event, ctx) ctx.kv:add('of/{n}', 1) end }}");
        fs::write(handlers(&desk).join(format!("h{n}.luau")), text).expect("a file");
    }
    desk.write("tick", &script("second"));
    until_seen(&desk, "second").await;
    let began = Instant::now();
    while desk.host().backend().overview.groups().await.expect("the store answers").len() <= count {
        assert!(began.elapsed() < 4 * PATIENCE, "some group is never opened");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = count.min(BUSY_MAX);
    desk.emit((0..asked).map(|n| event(&format!("of.{n}"), n, "{}")).collect()).await;
    desk.until("each has handled its event", |desk| {
        let handled = desk.host().snapshot().into_iter().filter(|row| row.name != "tick").map(|row| row.counts.done);
        handled.sum::<u64>() == asked as u64
    })
    .await;
    load.check(&desk, &saved(["first", "second"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_handlers_at_once_each_get_their_group() {
    drop_handlers(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: scripts/test twelve_thousand -- --ignored"]
async fn twelve_thousand_handlers_at_once_each_get_their_group() {
    drop_handlers(12_000).await;
}
