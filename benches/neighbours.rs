//! What busy handlers cost their neighbours: the time of a light event, from its publication to what it emits in the hands
//! of the next one, while so many runs of another handler burn processor time.
//!
//! The levels take turns in every round, so that what else the machine does meets all of them; only the ratios within one run mean
//! anything, and only where they are larger than the spread of the baseline itself.
//!
//! `cargo bench --bench neighbours`; `ROUNDS=n` and `SECONDS=n` (per level and round) set the amount.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moontide::bus::{Inbox, Start as From, Subscription};
use moontide::clock::{Clock, SystemClock};
use moontide::config::{self, Flags};
use moontide::event::{Event, Json, TypePattern};
use moontide::host::{Host, Start};
use moontide::outcome::Emit;

const LIGHT: &str = "return { on = 'tick', handle = function(event, ctx) ctx:emit('tock', event.data) end }";
const BUSY: &str = "return { on = 'burn', retry = { attempts = 1 }, timeout = '10m', handle = function(event, ctx)
    while time.now() < event.data do for n = 1, 1000 do end end
end }";
/// Between two light events.
const PAUSE: Duration = Duration::from_millis(2);
/// How much longer than the light events the busy runs go on, so that the last of them has busy neighbours too.
const LONGER: Duration = Duration::from_millis(500);

fn main() {
    let (rounds, level) = (number("ROUNDS", 5), Duration::from_secs(number("SECONDS", 2) as u64));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let levels = [0, 1, threads, 2 * threads, 8 * threads];
    println!("{threads} script threads, {rounds} rounds of {level:?} per level");
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    let times = runtime.block_on(measure(&levels, rounds, level));
    let baseline = Level::of(&times[0]);
    for (busy, rounds) in levels.iter().zip(&times) {
        let level = Level::of(rounds);
        println!(
            "{busy:>3} busy runs: p50 {:6.2} ms, {:5.2} x; p99 {:6.2} ms ({:.2} to {:.2} by round), {:5.2} x the baseline",
            level.p50,
            level.p50 / baseline.p50,
            level.p99,
            level.p99_least,
            level.p99_most,
            level.p99 / baseline.p99,
        );
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Milliseconds: over all rounds, and the 99th percentile by round, of which the median counts: one round in which the
/// machine did something else spoils only itself.
struct Level {
    p50: f64,
    p99: f64,
    p99_least: f64,
    p99_most: f64,
}

impl Level {
    fn of(rounds: &[Vec<f64>]) -> Self {
        let p99: Vec<f64> = rounds.iter().map(|times| quantile(times, 0.99)).collect();
        Self {
            p50: quantile(&rounds.concat(), 0.5),
            p99: quantile(&p99, 0.5),
            p99_least: quantile(&p99, 0.0),
            p99_most: quantile(&p99, 1.0),
        }
    }
}

fn quantile(times: &[f64], at: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}

/// The times of each level, by round.
async fn measure(levels: &[usize], rounds: usize, level: Duration) -> Vec<Vec<Vec<f64>>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let host = Host::start(configuration(folder.path()), Start::default()).await.expect("the host starts");
    let tocks = observe(&host).await;
    let mut times = vec![Vec::new(); levels.len()];
    light(&host, &*tocks, level).await;
    for _ in 0..rounds {
        for (busy, times) in levels.iter().zip(&mut times) {
            burn(&host, *busy, level + LONGER).await;
            times.push(light(&host, &*tocks, level).await);
            until_running(&host, 0).await;
        }
    }
    host.stop().await;
    times
}

/// Starts so many busy runs, each for a time.
async fn burn(host: &Host, count: usize, time: Duration) {
    let until = SystemClock.now() as f64 / 1000.0 + time.as_secs_f64();
    let emits = (0..count).map(|_| event("burn", until.to_string())).collect();
    host.backend().bus.publish(emits).await.expect("the store takes events");
    until_running(host, count as u64).await;
}

async fn until_running(host: &Host, count: u64) {
    while host.snapshot().iter().find(|row| row.name == "busy").is_none_or(|row| row.counts.running != count) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Milliseconds of each light event, one after the other for a time.
async fn light(host: &Host, tocks: &dyn Inbox, time: Duration) -> Vec<f64> {
    let (first, mut times) = (Instant::now(), Vec::new());
    while first.elapsed() < time {
        let began = Instant::now();
        host.backend().bus.publish(vec![event("tick", "1".to_owned())]).await.expect("the store takes events");
        let got = tocks.receive(1).await.expect("the store gives events");
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(got.len(), 1, "each is handed out by itself");
        tokio::time::sleep(PAUSE).await;
    }
    times
}

fn event(kind: &str, data: String) -> Emit {
    let id = uuid::Uuid::now_v7().to_string();
    let event = Event { data: Some(Json::trusted(data)), ..Event::new(id, "bench", kind.to_owned()) };
    Emit { stream: format!("events:{kind}"), event, delay: None }
}

async fn observe(host: &Host) -> Arc<dyn Inbox> {
    let subscription = Subscription {
        handler: "observer".into(),
        group: "observer".into(),
        types: vec![TypePattern::parse("tock").expect("a type")],
        streams: vec!["events:tock".to_owned()],
        discover: Vec::new(),
        start: From::Latest,
    };
    host.backend().bus.subscribe(subscription).await.expect("the store answers").inbox
}

fn configuration(folder: &Path) -> config::Config {
    let handlers = folder.join("handlers");
    std::fs::create_dir(&handlers).expect("a folder");
    std::fs::write(handlers.join("light.luau"), LIGHT).expect("a file");
    std::fs::write(handlers.join("busy.luau"), BUSY).expect("a file");
    let file = folder.join("moontide.toml");
    let text = format!(
        "[bus]\nurl = \"sqlite:{}\"\n[run]\nhandlers = \"{}\"\n[limits]\ncpu = \"10m\"\n[http]\nlisten = \"\"\n",
        folder.join("bench.db").display(),
        handlers.display()
    );
    std::fs::write(&file, text).expect("a file");
    config::load(&Flags { config: Some(file), ..Flags::default() }).expect("the configuration is right")
}
