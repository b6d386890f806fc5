//! How many events per second go the whole way through a host: receive, run a Luau handler, judge, settle.
//!
//! Beside it, interleaved and on the same disk in the same minutes, the bare loop: a program on the same store library that
//! does only what is unavoidable (read a batch, parse the JSON, and per event one idempotency record, one emitted event and
//! one acknowledgement in one transaction; no script, no claims, no checks). Only the ratio within one run means anything.
//!
//! `cargo bench --bench pipeline`; `EVENTS=n` and `ROUNDS=n` set the amount.

use std::path::Path;
use std::time::{Duration, Instant};

use moontide::config::{self, Flags};
use moontide::event::{Event, Json};
use moontide::host::{Host, Start};
use moontide::outcome::Emit;
use rusqlite::Connection;

const BATCH: usize = 256;

const EMIT: &str = r#"
return { on = "order.placed", handle = function(event, ctx)
    local order = event.data
    ctx:emit("order.accepted", { order_id = order.order_id, client = order.client.id, total = order.total })
end }
"#;
const SILENT: &str = r#"
return { on = "order.placed", handle = function(event, ctx)
    local order = event.data
    local _ = order.order_id, order.client.id, order.total
end }
"#;
const STATE: &str = r#"
return { on = "order.placed", handle = function(event, ctx)
    local order = event.data
    local key = "client/" .. order.client.id
    ctx.kv:set(key, (ctx.kv:get(key) or 0) + order.total)
    ctx:emit("order.accepted", { order_id = order.order_id, total = order.total })
end }
"#;

fn main() {
    let events = number("EVENTS", 60_000);
    let rounds = number("ROUNDS", 3);
    println!("{events} events of {} bytes, SQLite on a file, synchronous = full, {rounds} rounds", data(1).len());
    let mut rates: Vec<(&str, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        note(&mut rates, "bare loop", bare(events));
        for (name, script) in [("emit", EMIT), ("no emit", SILENT), ("state and emit", STATE)] {
            note(&mut rates, name, whole(script, events));
        }
    }
    let median = |rates: &[f64]| {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
    };
    let bare = median(&rates[0].1).0;
    for (name, rates) in &rates {
        let (median, min, max) = median(rates);
        println!("{name:>15}: {median:>8.0}/s (from {min:.0} to {max:.0}), {:.2} x the bare loop", median / bare);
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn note<'a>(rates: &mut Vec<(&'a str, Vec<f64>)>, name: &'a str, rate: f64) {
    match rates.iter_mut().find(|(known, _)| *known == name) {
        Some((_, rates)) => rates.push(rate),
        None => rates.push((name, vec![rate])),
    }
}

fn data(n: usize) -> String {
    format!(
        r#"{{"order_id":"order-{n}","client":{{"id":"client-{}","name":"Ada Example","city":"Reykjavik"}},"total":{},"lines":[{{"sku":"tea-kettle","quantity":1,"unit_price":32.5}},{{"sku":"moon-lamp","quantity":2,"unit_price":18.0}}],"note":"leave it at the door, please","emitted_at":1795198874.693}}"#,
        n % 5000,
        n % 1000
    )
}

fn event(n: usize) -> Event {
    Event {
        time: Some("2026-11-21T00:00:00Z".to_owned()),
        data: Some(Json::trusted(data(n))),
        ..Event::new(format!("event-{n}"), "bench", "order.placed")
    }
}

/// Events per second through a host, from the first receive to the last settle.
fn whole(script: &str, events: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("handlers")).expect("a folder");
    let header = script.replacen("on = ", "start = \"earliest\", on = ", 1);
    std::fs::write(folder.path().join("handlers/order.luau"), header).expect("a file");
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    let took = runtime.block_on(async {
        let config = configuration(folder.path());
        let backend = moontide::host::open(&config, None).await.expect("the store opens");
        for from in (0..events).step_by(1000) {
            let emit = |n| Emit { stream: "events:order.placed".to_owned(), event: event(n), delay: None };
            let emits = (from..(from + 1000).min(events)).map(emit).collect();
            backend.bus.publish(emits).await.expect("the store takes events");
        }
        backend.close().await;
        let began = Instant::now();
        let host = Host::start(config, Start::default()).await.expect("the host starts");
        while host.snapshot().iter().map(|row| row.counts.done).sum::<u64>() < events as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = began.elapsed();
        host.stop().await;
        took
    });
    events as f64 / took.as_secs_f64()
}

fn configuration(folder: &Path) -> config::Config {
    let file = folder.join("moontide.toml");
    let text = format!(
        "[bus]\nurl = \"sqlite:{}\"\n[run]\nhandlers = \"{}\"\n",
        folder.join("bench.db").display(),
        folder.join("handlers").display()
    );
    std::fs::write(&file, text).expect("a file");
    config::load(&Flags { config: Some(file), ..Flags::default() }).expect("the configuration is right")
}

/// Events per second of the bare loop.
fn bare(events: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut conn = Connection::open(folder.path().join("bare.db")).expect("the file opens");
    conn.execute_batch(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 8192;
         CREATE TABLE event(pos INTEGER PRIMARY KEY, id, source, type, time, data);
         CREATE TABLE out(pos INTEGER PRIMARY KEY, id, source, type, time, data);
         CREATE TABLE record(key BLOB PRIMARY KEY, seq INTEGER, expires INTEGER) WITHOUT ROWID;
         CREATE TABLE cursor(position INTEGER)",
    )
    .expect("the tables are made");
    let fill = conn.transaction().expect("a transaction");
    for n in 0..events {
        let event = event(n);
        let data = event.data.as_ref().map(|data| data.text().into_owned());
        fill.prepare_cached("INSERT INTO event VALUES(?,?,?,?,?,?)")
            .and_then(|mut insert| insert.execute((n as i64, event.id, event.source, event.kind, event.time, data)))
            .expect("an event is stored");
    }
    fill.commit().expect("it commits");
    let began = Instant::now();
    for from in (0..events).step_by(BATCH) {
        bare_batch(&mut conn, from);
    }
    events as f64 / began.elapsed().as_secs_f64()
}

fn bare_batch(conn: &mut Connection, from: usize) {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("a transaction");
    let rows: Vec<(i64, String, String)> = {
        let mut read = tx.prepare_cached("SELECT pos, id, data FROM event WHERE pos >= ? AND pos < ?").expect("valid");
        let rows =
            read.query_map((from as i64, (from + BATCH) as i64), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.expect("it reads").collect::<Result<_, _>>().expect("rows are whole")
    };
    for (pos, id, data) in &rows {
        let order: serde_json::Value = serde_json::from_str(data).expect("it is JSON");
        let out = serde_json::json!({
            "order_id": order["order_id"], "client": order["client"]["id"], "total": order["total"],
        });
        let key = xxhash_rust::xxh3::xxh3_128(id.as_bytes()).to_le_bytes();
        tx.prepare_cached("INSERT OR IGNORE INTO record VALUES(?,?,?)")
            .and_then(|mut insert| insert.execute((&key[..], pos, 3_600_000)))
            .expect("a record is stored");
        let emitted = uuid::Uuid::now_v7().to_string();
        tx.prepare_cached("INSERT INTO out(id, source, type, time, data) VALUES(?,?,?,?,?)")
            .and_then(|mut insert| {
                insert.execute((emitted, "bench", "order.accepted", "2026-11-21T00:00:00Z", out.to_string()))
            })
            .expect("an event is stored");
    }
    tx.prepare_cached("UPDATE cursor SET position = ?")
        .and_then(|mut update| update.execute([(from + rows.len()) as i64]))
        .expect("the position is stored");
    tx.commit().expect("it commits");
}
