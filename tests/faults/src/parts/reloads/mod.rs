//! Handler files saved again and again under load: whole and broken, at once and slowly, removed and put back.
//!
//! Two processes over one folder. After each wave both must say of every handler what the files then ask for; events of a
//! handler whose file is broken must go on being handled by its last good version; and in the end each number was handled
//! once, by a version that was saved as a whole.

mod check;
mod feed;
mod folder;
mod scripts;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;

use crate::findings::Findings;
use crate::place::Place;
use crate::stage::{PATIENCE, Stage};
use crate::task::{Task, rng};
use feed::{Feed, handler_of};
use folder::{Folder, HANDLERS};
use scripts::is_rejected;

/// Rounds of a full run, and waves of each.
const ROUNDS: u64 = 14;
const WAVES: usize = 12;
/// Bursts of a wave: they come so close that the processes need not see each.
const BURSTS_MAX: usize = 3;
const SETTINGS: &str = "[reload]\nscan = \"100ms\"\n[sqlite]\nsynchronous = \"normal\"\n\
                        [handlers.h47]\nlimits = { cpu = \"300ms\" }\n";

/// What shows, over all rounds, that it came to what was to be tried.
#[derive(Default)]
struct Shown {
    /// Events that were handled while their handler's file was broken.
    by_the_last_good: AtomicU64,
    /// Runs that went on after both processes had replaced their version.
    over_a_reload: AtomicU64,
}

pub async fn run(task: Task) -> Findings {
    let shown = Shown::default();
    let mut found = super::rounds(&task, ROUNDS, |seed| round(&task, seed, &shown)).await;
    for (what, count) in [
        ("events handled while a file was broken", shown.by_the_last_good),
        ("runs that went on over a reload", shown.over_a_reload),
    ] {
        found.figures.insert(what.into(), count.into_inner() as f64);
    }
    found
}

async fn round(task: &Task, seed: u64, shown: &Shown) -> Findings {
    let mut stage = Stage::with(Place::new(task.bus), rng(seed), SETTINGS, &[]).await;
    let mut folder = Folder::new(&stage.folder.path().join("handlers"), stage.config());
    let (names, _processes): (Vec<_>, Vec<_>) = (0..2).map(|_| stage.start()).unzip();
    settle(&stage, &mut folder, &names).await;
    let feed = Feed::start(stage.backend.bus.clone());
    for wave in 0..WAVES {
        if wave % 4 == 3 {
            folder.slow_burst(&mut stage.rng).await;
        } else {
            for _ in 0..stage.rng.random_range(1..=BURSTS_MAX) {
                folder.burst(&mut stage.rng);
                stage.pause(0..150).await;
            }
        }
        settle(&stage, &mut folder, &names).await;
        let handled = handled_meanwhile(&stage, &folder, feed.sent()).await;
        shown.by_the_last_good.fetch_add(handled, Ordering::Relaxed);
    }
    folder.mend();
    settle(&stage, &mut folder, &names).await;
    let end = feed.stop().await;
    let mut found = stage.check_with(|held| check::compare(&folder, end, &held)).await;
    let log = stage.log_text();
    count(&mut found, &log, names.len());
    shown.over_a_reload.fetch_add(went_on(&log, names.len()), Ordering::Relaxed);
    found
}

/// Waits until both processes say of every handler what its file asks for.
async fn settle(stage: &Stage, folder: &mut Folder, processes: &[String]) {
    let began = Instant::now();
    loop {
        let reports = stage.backend.overview.reports().await.expect("the store answers");
        let Some(wrong) = folder.settle(processes, &reports) else { return };
        assert!(began.elapsed() < PATIENCE, "{wrong}\n{}", stage.tail());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until each handler that is broken and serves has handled a number that was published since `sent`; answers how many.
async fn handled_meanwhile(stage: &Stage, folder: &Folder, sent: u64) -> u64 {
    let handlers = folder.broken_and_serving();
    let of = |handler: &usize| {
        let mut numbers = (sent..).filter(|n| handler_of(*n) == *handler && !is_rejected(*n));
        numbers.next().expect("one of them is not refused")
    };
    let keys: Vec<String> = handlers.iter().map(|handler| format!("times/{}", of(handler))).collect();
    let began = Instant::now();
    loop {
        let found = stage.backend.ledger.read(&keys).await.expect("the store answers");
        let waiting = handlers.iter().zip(found).filter(|(_, value)| value.is_none()).map(|(handler, _)| handler);
        let waiting: Vec<_> = waiting.collect();
        if waiting.is_empty() {
            return keys.len() as u64;
        }
        assert!(began.elapsed() < PATIENCE, "broken, and do not serve: {waiting:?}\n{}", stage.tail());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Counts what `processes` processes say in their log.
fn count(found: &mut Findings, log: &str, processes: usize) {
    // The first versions are no reloads.
    let first = (processes * HANDLERS) as u64;
    let said = |what: &str| log.matches(what).count() as u64;
    found.fault("reloaded", said(" reloaded ") + said(" live ").saturating_sub(first));
    found.fault("refused", said("its file does not load: "));
    found.fault("removed", said("its file is gone"));
}

/// Runs that went on after all `processes` processes had replaced their version.
fn went_on(log: &str, processes: usize) -> u64 {
    let mut replaced = BTreeMap::<&str, usize>::new();
    let mut runs = 0;
    for line in log.lines() {
        let field = |name: &str| line.split_once(name)?.1.split([' ', '"']).find(|text| !text.is_empty());
        if line.contains(" reloaded ") {
            *replaced.entry(field(" was=").unwrap_or_default()).or_default() += 1;
        } else if line.contains(" went on ") {
            let version = field(" version=").unwrap_or_default();
            runs += u64::from(replaced.get(version).is_some_and(|times| *times >= processes));
        }
    }
    runs
}
