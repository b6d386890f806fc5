//! A real process that cannot go on.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moontide::host::{self, EXIT_LOST};

use crate::support::{PATIENCE, config_from, event};

const TICK: &str =
    "return { on = 'tick', start = 'earliest', handle = function(event, ctx) ctx.kv:add('ticks', 1) end }";

#[tokio::test]
async fn a_process_whose_file_is_gone_for_good_ends_and_says_why() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (file, db) = (dir.path().join("moontide.toml"), dir.path().join("moontide.db"));
    let settings = format!("[bus]\nurl = \"sqlite:{}\"\n[groups]\nrecovery = \"1s\"\n", db.display());
    std::fs::create_dir(dir.path().join("handlers")).expect("a folder");
    std::fs::write(dir.path().join("handlers/tick.luau"), TICK).expect("a file");
    std::fs::write(&file, settings).expect("a file");
    let backend = host::open(&config_from(&file), Some("checker")).await.expect("the store opens");
    backend.bus.publish(vec![event("tick", 1, "{}")]).await.expect("the store takes events");
    let mut child = Command::new(env!("CARGO_BIN_EXE_moontide"))
        .arg("run")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stderr = child.stderr.take().expect("it is piped");
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let began = Instant::now();
    while backend.ledger.read(&["ticks".to_owned()]).await.expect("the store answers")[0].is_none() {
        assert!(began.elapsed() < PATIENCE, "it handles nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::remove_file(&db).expect("it is there");
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if began.elapsed() >= PATIENCE {
            child.kill().expect("it runs");
            panic!("it goes on: {:?}", said.join());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(EXIT_LOST));
    let said = said.join().expect("it does not panic").expect("the log is text");
    let last = said.lines().last().expect("it says something");
    assert!(
        last.contains("the process ends: nothing can be stored in") && last.contains("deleted or replaced"),
        "{said}"
    );
}
