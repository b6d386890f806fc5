//! A save every 200 ms under 1,000 events a second, good and broken versions mixed: nothing lost, nothing twice, no event on
//! half a file, memory flat.

use std::time::{Duration, Instant};

use super::load::{Load, script};
use super::{handlers, saved, saves, until_seen};
use crate::support::Desk;

const SAVE_EVERY: Duration = Duration::from_millis(200);
/// Growth of resident memory that is not a leak: caches that fill, arenas that stay.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

const BROKEN: [&str; 4] = [
    "return { on = 'tick', handle = function(event, ctx)",
    "error('at the top')",
    "return { on = 'tick', hanlde = function() end }",
    "",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_save_every_200_ms_for_a_while() {
    soak(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes: scripts/test soak_five_minutes -- --ignored"]
async fn soak_five_minutes() {
    soak(Duration::from_secs(300)).await;
}

async fn soak(length: Duration) {
    let desk = Desk::new(&[("tick", &script("first"))]).await;
    let load = Load::start(&desk);
    let path = handlers(&desk).join("tick.luau");
    let (began, mut versions, mut settled) = (Instant::now(), saved(["first"]), None);
    let mut every = tokio::time::interval(SAVE_EVERY);
    for n in 0.. {
        every.tick().await;
        if began.elapsed() >= length {
            break;
        }
        if began.elapsed() >= length / 3 && settled.is_none() {
            settled = resident_bytes();
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
    until_seen(&desk, "last").await;
    let (before, after) = (settled.expect("it was measured"), resident_bytes().expect("it can be measured"));
    assert!(after < before + GROWTH_BYTES_MAX, "memory grew from {before} to {after} bytes");
    let by = load.check(&desk, &versions).await;
    assert!(by.len() > 3, "several versions were at work: {by:?}");
    let (events, saves, saw) = (by.values().sum::<u64>(), versions.len(), by.len());
    let (before, after) = (before >> 20, after >> 20);
    println!(
        "{events} events, each once; {saw} of {saves} good versions saw some; memory {before} MiB, at the end {after} MiB"
    );
}

/// Resident memory of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}
