//! Real processes on one file, killed while they work.
//!
//! The parent starts this very binary as workers, kills each with SIGKILL when the work has gone on a little, and starts the
//! next. In the end every event has had its effects once, whatever was under way when its process died.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use moontide::bus::sqlite::{Options, Place, SqliteStore, Synchronous};
use moontide::bus::{Answer, Bus, Inbox, Ledger, Overview};

use crate::conformance::{add, commit, emit, id, record, retry, run, subscription};

const EVENTS: usize = 5000;
const KILLS: usize = 100;
const WORKERS: usize = 2;
/// Where a worker finds the file; its presence makes this binary a worker.
const PLACE: &str = "MOONTIDE_TEST_PLACE";

fn open(path: &Path) -> Arc<SqliteStore> {
    let options = Options { synchronous: Synchronous::Normal, ..Options::at(Place::File(path.into())) };
    SqliteStore::open(options).expect("the store opens")
}

#[tokio::test]
#[ignore = "a worker that the next test starts and kills"]
async fn worker() {
    let path = std::env::var_os(PLACE).expect("the parent names the file");
    let store = open(Path::new(&path));
    let inbox = store.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    loop {
        work(&inbox).await;
    }
}

async fn work(inbox: &Arc<dyn Inbox>) {
    let got = inbox.receive(16).await.expect("the store can be read");
    let runs = got.into_iter().map(|delivery| {
        let delivery = Arc::new(delivery);
        let name = id(&*delivery);
        if name.ends_with('7') && delivery.attempt() == 1 {
            return run(&delivery, retry(0, "first try"));
        }
        let mut run = commit(&delivery);
        run.record = record(&name);
        run.effects.writes = vec![add("n", 1.0), add(&format!("of/{name}"), 1.0)];
        run.effects.events = vec![emit("out", &name)];
        run
    });
    let answers = inbox.settle(runs.collect()).await.expect("the store can be written");
    assert!(answers.iter().all(|answer| *answer == Answer::Done { dead: None }), "{answers:?}");
}

fn start(path: &Path) -> Child {
    let this = std::env::current_exe().expect("the test binary knows its path");
    Command::new(this)
        .args(["--exact", "kills::worker", "--ignored", "--nocapture"])
        .env(PLACE, path)
        .stdout(Stdio::null())
        .spawn()
        .expect("a worker starts")
}

async fn settled(store: &SqliteStore) -> usize {
    let values = store.read(&["n".to_owned()]).await.expect("state is readable");
    values[0].as_ref().map_or(0, |n| String::from_utf8_lossy(n).parse().expect("a number"))
}

/// Waits until `count` events are settled, with at most a minute of patience.
async fn until_settled(store: &SqliteStore, count: usize) {
    let wait = async {
        while settled(store).await < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the workers go on");
}

#[tokio::test]
async fn every_event_has_its_effects_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("moontide.db");
    let store = open(&path);
    let emits = (0..EVENTS).map(|n| emit("orders", &format!("e{n}"))).collect();
    store.publish(emits).await.expect("the events are stored");
    let mut workers: Vec<Child> = (0..WORKERS).map(|_| start(&path)).collect();
    for kill in 0..KILLS {
        until_settled(&store, kill * EVENTS / KILLS).await;
        let worker = &mut workers[kill % WORKERS];
        worker.kill().expect("the worker is killed");
        worker.wait().expect("and gone");
        *worker = start(&path);
    }
    until_settled(&store, EVENTS).await;
    for worker in &mut workers {
        worker.kill().expect("the worker is killed");
        worker.wait().expect("and gone");
    }
    check(&store).await;
}

async fn check(store: &SqliteStore) {
    assert_eq!(settled(store).await, EVENTS);
    let keys: Vec<String> = (0..EVENTS).map(|n| format!("of/e{n}")).collect();
    let each = store.read(&keys).await.expect("state is readable");
    assert!(each.iter().all(|value| value.as_deref() == Some(b"1")), "each event once");
    let out = store.history("out", None, 2 * EVENTS).await.expect("history is readable");
    assert_eq!(out.len(), EVENTS, "one event out for each event in");
    let status = store.groups().await.expect("groups are readable").remove(0);
    assert_eq!((status.lag, status.in_flight, status.dead), (0, 0, 0));
}
