//! Power that fails, and servers that crash: what a server's log holds is enough, wherever it ends.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moontide::bus::redis::{Address, Options, RedisBus};
use moontide::bus::{Answer, Bus, Inbox};

use crate::conformance::{PATIENCE, add, commit, emit, id, record, record_key, reject, retry, run, subscription};
use crate::rig::{COUNT, Place, Rig, SINK};
use moontide_stage::server::{Kind, Server};

const EVENTS: usize = 60;
/// Settles that the cuts go through, and how many deliveries each has.
const CUT_SETTLES: usize = 3;
const SETTLED: usize = 5;
/// After one of so many cuts, the rest is done as well.
const FINISHED_EVERY: usize = 40;

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Committed,
    /// At its first attempt.
    Retried,
    Dead,
}

fn fate(name: &str) -> Fate {
    match name.as_bytes().last() {
        Some(b'3') => Fate::Retried,
        Some(b'7') => Fate::Dead,
        _ => Fate::Committed,
    }
}

async fn open(server: &Server) -> Arc<RedisBus> {
    let address = Address::parse(&server.url()).expect("the address is valid");
    RedisBus::open(Options::at(address)).await.expect("the server can be used")
}

/// Settles one batch.
async fn work(inbox: &Arc<dyn Inbox>) {
    let got = tokio::time::timeout(PATIENCE, inbox.receive(SETTLED)).await.expect("there is something");
    let got = got.expect("the server answers");
    let runs = got.into_iter().map(|delivery| {
        let delivery = Arc::new(delivery);
        let name = id(&*delivery);
        let mut run = match fate(&name) {
            Fate::Retried if delivery.attempt() == 1 => return run(&delivery, retry(0, "first try")),
            Fate::Dead => run(&delivery, reject("no")),
            _ => commit(&delivery),
        };
        run.record = record(&name);
        if fate(&name) != Fate::Dead {
            run.effects.writes = vec![add("n", 1.0), add(&format!("of/{name}"), 1.0)];
            run.effects.events = vec![emit("out", &name)];
        }
        run
    });
    let answers = inbox.settle(runs.collect()).await.expect("the server answers");
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Done { .. })), "{answers:?}");
}

/// What the server holds, as far as it tells of events.
struct Seen {
    acknowledged: HashSet<String>,
    /// By event: `n` of it, events out of it, its record, its dead letters, and how often it waits for its next attempt.
    counted: HashMap<String, u64>,
    out: Vec<String>,
    records: HashMap<String, String>,
    dead: Vec<String>,
    waiting: Vec<String>,
    sum: u64,
}

type Rows = Vec<(String, HashMap<String, String>)>;

impl Seen {
    fn look(server: &Server) -> Self {
        let rows = |stream: &str| server.get::<Rows>(&["XRANGE", stream, "-", "+"]);
        let ids = |stream: &str| rows(stream).into_iter().map(|(_, fields)| fields["id"].clone()).collect::<Vec<_>>();
        let text = |key: &str| server.get::<Option<String>>(&["GET", key]);
        let number = |key: &str| text(key).map_or(0, |text| text.parse().expect("it is a number"));
        let delivered = delivered(server);
        let pending: Vec<(String, String, i64, i64)> = server.get(&["XPENDING", "orders", "group", "-", "+", "1000"]);
        let pending: HashSet<String> = pending.into_iter().map(|(entry, ..)| entry).collect();
        let mut seen = Self {
            acknowledged: HashSet::new(),
            counted: HashMap::new(),
            out: ids("out"),
            records: HashMap::new(),
            dead: ids("moontide:dead"),
            waiting: [ids("moontide:parked"), ids("moontide:retry:group")].concat(),
            sum: number("state:n"),
        };
        for (entry, fields) in rows("orders") {
            let name = fields["id"].clone();
            let key = format!("moontide:record:{:032x}", u128::from_be_bytes(record_key(&name).0));
            if place(&entry) <= delivered && !pending.contains(&entry) {
                seen.acknowledged.insert(name.clone());
            }
            seen.counted.insert(name.clone(), number(&format!("state:of/{name}")));
            text(&key).and_then(|record| seen.records.insert(name, record));
        }
        seen
    }

    /// All or nothing, for each event.
    fn check(&self, cut: u64) {
        for (name, counted) in &self.counted {
            let times = |list: &[String]| list.iter().filter(|id| *id == name).count() as u64;
            let (out, dead, waiting) = (times(&self.out), times(&self.dead), times(&self.waiting));
            let record = self.records.get(name).map(|record| record.split(' ').next().unwrap_or_default());
            let found = (*counted, out, dead, waiting, record);
            let settled = self.acknowledged.contains(name);
            let right = match (settled, fate(name)) {
                (false, _) => found == (0, 0, 0, 0, None),
                (true, Fate::Dead) => found == (0, 0, 1, 0, Some("dead")),
                (true, Fate::Committed) => found == (1, 1, 0, 0, Some("committed")),
                (true, Fate::Retried) => [(1, 1, 0, 0, Some("committed")), (0, 0, 0, 1, None)].contains(&found),
            };
            assert!(right, "cut at {cut}: {name}, acknowledged: {settled}, has {found:?}");
        }
        assert_eq!(self.sum, self.out.len() as u64, "cut at {cut}");
    }
}

fn place(entry: &str) -> (u64, u64) {
    let (ms, seq) = entry.split_once('-').expect("it is an id");
    (ms.parse().expect("a number"), seq.parse().expect("a number"))
}

/// What was delivered last.
fn delivered(server: &Server) -> (u64, u64) {
    let groups: Vec<HashMap<String, redis::Value>> = server.get(&["XINFO", "GROUPS", "orders"]);
    let last = groups[0]["last-delivered-id"].clone();
    place(&redis::from_redis_value::<String>(last).expect("it is an id"))
}

fn log(server: &Server) -> PathBuf {
    let folder = server.folder().join("appendonlydir");
    let files = std::fs::read_dir(folder).expect("it has a log").flatten().map(|entry| entry.path());
    let mut incremental = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
    incremental.next().expect("it is appended to")
}

fn length(log: &Path) -> u64 {
    std::fs::metadata(log).expect("it is there").len()
}

/// Cuts the log of the last settles at every `step`th byte.
async fn cut(kind: Kind, step: impl Fn(u64) -> usize) {
    let server = Server::with(kind, &["--appendonly", "yes", "--appendfsync", "always"]);
    let bus = open(&server).await;
    let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    let emits = (0..EVENTS).map(|n| emit("orders", &format!("e{n}"))).collect();
    bus.publish(emits).await.expect("the events are stored");
    let log = log(&server);
    for _ in 0..EVENTS / SETTLED / 2 {
        work(&inbox).await;
    }
    let begin = length(&log);
    for _ in 0..CUT_SETTLES {
        work(&inbox).await;
    }
    server.kill();
    // As a crash would: nothing is tidied.
    drop(bus);
    drop(inbox);
    let whole = std::fs::read(&log).expect("it is readable");
    let step = step(whole.len() as u64 - begin);
    let cuts: Vec<usize> = (begin as usize..=whole.len()).step_by(step).collect();
    println!("{} cuts in {} bytes", cuts.len(), whole.len() as u64 - begin);
    let mut settled = HashSet::new();
    for (nth, cut) in cuts.into_iter().enumerate() {
        std::fs::write(&log, &whole[..cut]).expect("it is written");
        server.start();
        let seen = Seen::look(&server);
        seen.check(cut as u64);
        settled.insert((seen.acknowledged.len(), seen.out.len(), seen.waiting.len()));
        if nth % FINISHED_EVERY == 0 {
            finish(&server).await;
        }
        server.kill();
    }
    assert!(settled.len() >= CUT_SETTLES, "the cuts took back different settles: {settled:?}");
}

/// What was taken back is done again, and all of it once.
async fn finish(server: &Server) {
    let bus = open(server).await;
    let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    loop {
        let seen = Seen::look(server);
        if seen.acknowledged.len() == EVENTS && seen.waiting.is_empty() {
            let committed = (0..EVENTS).filter(|n| fate(&format!("e{n}")) != Fate::Dead).count();
            assert_eq!((seen.out.len(), seen.dead.len()), (committed, EVENTS - committed));
            return seen.check(0);
        }
        work(&inbox).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_log_ends_each_event_has_all_its_effects_or_none() {
    cut(Kind::Redis, |bytes| (bytes / 200).max(1) as usize).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn wherever_the_log_ends_at_every_byte() {
    for kind in [Kind::Redis, Kind::Valkey] {
        cut(kind, |_| 1).await;
    }
}

/// A server that crashes has written down what it said it had, and work goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_under_load_loses_nothing() {
    let server = Server::with(Kind::Redis, &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut rig = Rig::new(Place::Server(server), &[("count", COUNT), ("sink", SINK)]).await;
    let _workers = [rig.start(), rig.start()];
    for _ in 0..5 {
        rig.feed(100).await;
        rig.pause(50..500).await;
        rig.server().kill();
        rig.pause(0..200).await;
        rig.server().start();
    }
    rig.quiet().await;
    // What the checker asked last broke off, perhaps.
    rig.until("the checker has found the server", async || rig.backend.overview.groups().await.is_ok()).await;
    rig.check().await;
}
