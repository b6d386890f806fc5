//! A save every 200 ms under 1,000 events a second, good and broken versions mixed: nothing lost, nothing twice, no event on
//! half a file, memory flat.

use std::time::{Duration, Instant};

use moontide::event::Json;
use moontide::outcome::{Change, Write};

use super::load::{Load, script};
use super::{handlers, saved, saves, until_seen};
use crate::hostile::resident;
use crate::support::Desk;

const SAVE_EVERY: Duration = Duration::from_millis(200);
const SAVES_PER_SAMPLE: usize = 5;
/// Until SQLite's cache of the writer (64 MiB, `CACHE_KIB`) is full, resident memory grows with the file, by 120 bytes an event:
/// it is filled before, so that what grows is what should not.
const FILLED_BYTES: usize = 80 << 20;
/// The allocator keeps pages for each thread and size, and up to a dozen MiB more after a hard moment of the machine, once: what
/// is alive in them stays below 3 MiB (counted over 20 minutes).
const GROWTH_BYTES_MAX: u64 = 16 << 20;

const BROKEN: [&str; 4] = [
    "return { on = 'tick', handle = function(event, ctx)",
    "error('at the top')",
    "return { on = 'tick', hanlde = function() end }",
    "",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_save_every_200_ms_for_a_while() {
    // Memory is the whole process', and other tests are at work in it.
    soak(&Desk::new(&[("tick", &script("first"))]).await, Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes, or SOAK_SECONDS: scripts/test soak_five_minutes -- --ignored --nocapture"]
async fn soak_five_minutes() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(300, |seconds| seconds.parse().expect("a number of seconds"));
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    fill_cache(&desk).await;
    check_flat(&soak(&desk, Duration::from_secs(seconds)).await);
}

/// Saves for so long, and checks every event; answers the resident memory after every few saves, in bytes.
async fn soak(desk: &Desk, length: Duration) -> Vec<u64> {
    let load = Load::start(desk);
    let path = handlers(desk).join("tick.luau");
    let (began, mut versions, mut samples) = (Instant::now(), saved(["first"]), Vec::new());
    let mut every = tokio::time::interval(SAVE_EVERY);
    for n in 0.. {
        every.tick().await;
        if began.elapsed() >= length {
            break;
        }
        if n % SAVES_PER_SAMPLE == 0 {
            samples.push(resident());
        }
        match n % 5 {
            4 => std::fs::write(&path, BROKEN[n / 5 % BROKEN.len()]).expect("a file"),
            _ => {
                let version = format!("n{n}");
                // Not the one that takes as long as a save may.
                let ways: Vec<_> = saves::WAYS.iter().filter(|(way, _)| *way != "halves").collect();
                ways[n % ways.len()].1(&path, &script(&version));
                versions.insert(version);
            }
        }
    }
    desk.write("tick", &script("last"));
    versions.insert("last".to_owned());
    until_seen(desk, "last").await;
    let by = load.check(desk, &versions).await;
    assert!(by.len() > 3, "several versions were at work: {by:?}");
    let (events, saves, saw) = (by.values().sum::<u64>(), versions.len(), by.len());
    println!("{events} events, each once; {saw} of {saves} good versions saw some");
    samples
}

async fn fill_cache(desk: &Desk) {
    let state = &desk.host().backend().state;
    let value = Json::trusted(format!("{:?}", "x".repeat(1 << 20)));
    for n in 0..FILLED_BYTES >> 20 {
        let change = Change::Set { value: value.clone(), ttl: None };
        state.write(vec![Write { key: format!("filled/{n}"), change }]).await.expect("the store takes it");
    }
}

/// After a third to warm up, the least that is in use in the last third is what it was in the one before.
fn check_flat(samples: &[u64]) {
    let third = samples.len() / 3;
    let least = |part: &[u64]| part.iter().copied().min().expect("it is long enough");
    let (before, after) = (least(&samples[third..2 * third]), least(&samples[2 * third..]));
    let per_sample = slope(&samples[third..]) / 1024.0;
    let per_1000_saves = per_sample * 1000.0 / SAVES_PER_SAMPLE as f64;
    let (from, to) = (before >> 10, after >> 10);
    println!("memory at least {from} KiB, then {to} KiB; {per_1000_saves:.0} KiB more with every 1,000 saves");
    assert!(after < before + GROWTH_BYTES_MAX, "memory grew from {from} to {to} KiB");
}

/// Of the straight line that lies nearest to `values`, per value.
fn slope(values: &[u64]) -> f64 {
    let count = values.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, values.iter().sum::<u64>() as f64 / count);
    let off = |at: usize| at as f64 - middle;
    let along: f64 = values.iter().enumerate().map(|(at, value)| off(at) * (*value as f64 - mean)).sum();
    along / (0..values.len()).map(|at| off(at).powi(2)).sum::<f64>()
}

#[test]
#[should_panic(expected = "memory grew from")]
fn a_soak_that_leaks_a_vm_with_every_save_is_not_flat() {
    // A VM has some 200 KiB; bursts come and go.
    let leaking = (0..300).map(|n: u64| (100 << 20) + n * 5 * (200 << 10) + n % 7 * (9 << 20));
    check_flat(&leaking.collect::<Vec<_>>());
}

#[test]
fn a_soak_with_bursts_is_flat() {
    let bursts = (0..300).map(|n: u64| (100 << 20) + n % 7 * (9 << 20) + if n > 150 { 10 << 20 } else { 0 });
    check_flat(&bursts.collect::<Vec<_>>());
}
