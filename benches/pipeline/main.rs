//! How many events per second go the whole way through a host: receive, run a Luau handler, judge, settle.
//!
//! Beside it, interleaved and on the same store in the same minutes, the bare loop: a program on the same store library that
//! does only what is unavoidable (read a batch, parse the JSON, and per event one idempotency record, one emitted event and
//! one acknowledgement in one transaction or server script; no Luau, no claims, no checks). Only the ratio within one run
//! means anything.
//!
//! `cargo bench --bench pipeline`; `EVENTS=n` and `ROUNDS=n` set the amount, `BUS=sqlite` or `BUS=redis` takes one of them.

mod on_redis;
mod on_sqlite;

use std::path::Path;
use std::time::{Duration, Instant};

use moontide::config::{self, Flags};
use moontide::event::{Event, Json};
use moontide::host::{Host, Start};
use moontide::outcome::Emit;

/// Events in one batch of a bare loop.
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
    let wanted = std::env::var("BUS").ok();
    for bus in ["sqlite", "redis"].into_iter().filter(|bus| wanted.as_deref().is_none_or(|wanted| wanted == *bus)) {
        compare(bus, events, rounds);
    }
}

fn compare(bus: &str, events: usize, rounds: usize) {
    let promise = if bus == "sqlite" { "on a file, synchronous = full" } else { "in memory, nothing on disk" };
    println!("{events} events of {} bytes, {bus} {promise}, {rounds} rounds", data(1).len());
    let mut rates: Vec<(&str, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        note(&mut rates, "bare loop", if bus == "sqlite" { on_sqlite::bare(events) } else { on_redis::bare(events) });
        for (name, script) in [("emit", EMIT), ("no emit", SILENT), ("state and emit", STATE)] {
            note(&mut rates, name, whole(bus, script, events));
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
fn whole(bus: &str, script: &str, events: usize) -> f64 {
    let server = (bus == "redis").then(on_redis::Server::start);
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("handlers")).expect("a folder");
    let header = script.replacen("on = ", "start = \"earliest\", on = ", 1);
    std::fs::write(folder.path().join("handlers/order.luau"), header).expect("a file");
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    let took = runtime.block_on(async {
        let url = server.as_ref().map(on_redis::Server::url);
        let config = configuration(folder.path(), url);
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

fn configuration(folder: &Path, url: Option<String>) -> config::Config {
    let url = url.unwrap_or_else(|| format!("sqlite:{}", folder.join("bench.db").display()));
    let file = folder.join("moontide.toml");
    let text = format!("[bus]\nurl = \"{url}\"\n[run]\nhandlers = \"{}\"\n", folder.join("handlers").display());
    std::fs::write(&file, text).expect("a file");
    config::load(&Flags { config: Some(file), ..Flags::default() }).expect("the configuration is right")
}
