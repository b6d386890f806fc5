//! How many events per second the embedded store carries through its public seams.
//!
//! Publishes, then receives and settles in batches of 256; each event writes its idempotency record, emits one event and
//! writes one key of state. Beside it, for comparison on the same machine in the same minute: the three inserts that this takes
//! at least, as bare SQL without checks, claims or threads. Prints what it measured; asserts nothing about time. Run with `cargo bench --bench sqlite`;
//! `EVENTS=n` sets the number of events, `PLACE=memory` measures without a disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use moontide::bus::sqlite::{Options, Place, SqliteStore, Synchronous};
use moontide::bus::{Answer, Bus, Delivery, Inbox, Run, Settling, Start, Subscription};
use moontide::event::{Event, Json, TypePattern};
use moontide::judge::Verdict;
use moontide::outcome::{Change, Effects, Emit, Record, RecordKey, Write};

const BATCH: usize = 256;

#[tokio::main]
async fn main() {
    let events = std::env::var("EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("bare SQL, FULL, random record keys: {}/s", rate(events, bare(&folder.path().join("bare.db"), events)));
    for (name, synchronous) in [("FULL", Synchronous::Full), ("NORMAL", Synchronous::Normal)] {
        let place = match std::env::var("PLACE").as_deref() {
            Ok("memory") => Place::Memory,
            _ => Place::File(folder.path().join(format!("{name}.db"))),
        };
        for settles in [1, 4] {
            let place = match &place {
                Place::File(path) => Place::File(path.with_extension(format!("{settles}.db"))),
                Place::Memory => Place::Memory,
            };
            let store = SqliteStore::open(Options { synchronous, ..Options::at(place) }).expect("the store opens");
            let published = publish(&store, events).await;
            let settled = receive_and_settle(&store, events, settles).await;
            println!(
                "synchronous {name}, {settles} settles in flight: publish {}/s, receive and settle {}/s",
                rate(events, published),
                rate(events, settled),
            );
            store.close().await;
        }
    }
}

fn bare(path: &std::path::Path, events: usize) -> Duration {
    let conn = rusqlite::Connection::open(path).expect("the file opens");
    let tables = "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 8192;
        CREATE TABLE record(key BLOB PRIMARY KEY, seq INTEGER, expires INTEGER) WITHOUT ROWID;
        CREATE TABLE kv(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
        CREATE TABLE event(pos INTEGER PRIMARY KEY, id, source, type, time, data)";
    conn.execute_batch(tables).expect("the tables are made");
    let prepare = |sql| conn.prepare(sql).expect("the statement is valid");
    let mut record = prepare("INSERT INTO record VALUES(?,?,?)");
    let mut kv = prepare("INSERT OR REPLACE INTO kv VALUES(?,?)");
    let mut append = prepare("INSERT INTO event VALUES(?,?,?,?,?,?)");
    let began = Instant::now();
    for first in (0..events).step_by(BATCH) {
        conn.execute_batch("BEGIN IMMEDIATE").expect("it begins");
        for n in first..events.min(first + BATCH) {
            let event = event(n);
            let key = RecordKey::new("bench", "order.created", &event.id);
            record.execute((&key.0[..], n as i64, 0)).expect("it is written");
            kv.execute((format!("order/{}", n % 10_000), &event.id)).expect("it is written");
            let data = event.data.as_ref().map(|data| &data.bytes()[..]);
            append
                .execute((n as i64, &event.id, &event.source, &event.kind, &event.time, data))
                .expect("it is written");
        }
        conn.execute_batch("COMMIT").expect("it is committed");
    }
    began.elapsed()
}

fn rate(events: usize, took: Duration) -> u64 {
    (events as f64 / took.as_secs_f64()) as u64
}

fn event(n: usize) -> Event {
    Event {
        time: Some("2026-11-21T00:24:00.000Z".into()),
        correlation_id: Some(format!("checkout-{n}")),
        data: Some(Json::trusted(format!(
            r#"{{"order_id":{n},"customer":"c-{}","lines":[{{"sku":"sku-17","quantity":2,"price":19.90}}],"total":39.80}}"#,
            n % 1000
        ))),
        ..Event::new(format!("018f2c5e-7d3a-7c41-9d53-{n:012}"), "shop", "order.created")
    }
}

fn emit(stream: &str, event: Event) -> Emit {
    Emit { stream: stream.into(), event, delay: None }
}

async fn publish(store: &SqliteStore, events: usize) -> Duration {
    let began = Instant::now();
    for first in (0..events).step_by(BATCH) {
        let emits = (first..events.min(first + BATCH)).map(|n| emit("orders", event(n))).collect();
        store.publish(emits).await.expect("the events are stored");
    }
    began.elapsed()
}

async fn receive_and_settle(store: &SqliteStore, events: usize, settles_max: usize) -> Duration {
    let subscription = Subscription {
        handler: "bench".into(),
        group: "bench".into(),
        types: vec![TypePattern::parse("order.*").expect("the pattern is valid")],
        streams: vec!["orders".into()],
        discover: Vec::new(),
        start: Start::Earliest,
    };
    let inbox = store.subscribe(subscription).await.expect("the group is opened").inbox;
    let began = Instant::now();
    let mut under_way = FuturesUnordered::new();
    let (mut received, mut settled) = (0, 0);
    while settled < events {
        tokio::select! {
            got = inbox.receive(BATCH), if under_way.len() < settles_max && received < events => {
                let got = got.expect("the store can be read");
                received += got.len();
                under_way.push(tokio::spawn(settle(inbox.clone(), got)));
            }
            Some(done) = under_way.next(), if !under_way.is_empty() => settled += done.expect("the task ends"),
        }
    }
    began.elapsed()
}

async fn settle(inbox: Arc<dyn Inbox>, deliveries: Vec<Delivery>) -> usize {
    let runs: Vec<Run> = deliveries.into_iter().map(run).collect();
    let answers = inbox.settle(runs.into()).await.expect("the store can be written");
    assert!(answers.iter().all(|answer| *answer == Answer::Done { dead: None }));
    answers.len()
}

fn run(delivery: Delivery) -> Run {
    let event = delivery.event.clone().expect("it is an event");
    let key = event.id.clone();
    let value = Json::trusted(format!(r#"{{"seen":"{key}"}}"#));
    let write = Write { key: format!("order/{}", delivery.entry.0 % 10_000), change: Change::Set { value, ttl: None } };
    let out = Event { id: format!("{key}-out"), kind: "order.seen".into(), ..event };
    Run {
        deliveries: vec![Settling { delivery: Arc::new(delivery), verdict: Verdict::Commit }],
        reads: Vec::new(),
        effects: Effects { events: vec![emit("seen", out)], writes: vec![write], ..Effects::default() },
        record: Some(Record {
            key: RecordKey::new("bench", "order.created", &key),
            text: key,
            window: Duration::from_secs(3600),
        }),
        steps: None,
        version: "v1".into(),
    }
}
