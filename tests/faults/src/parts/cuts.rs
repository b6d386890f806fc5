//! Connections between processes and their server are cut at any byte, in either direction, again and again.

use std::time::Duration;

use moontide_stage::proxy::{Proxy, Storm};
use rand::Rng as _;

use crate::findings::Findings;
use crate::place::Place;
use crate::pulse::{Pulse, note_ended};
use crate::stage::{Stage, UNRECORDED};
use crate::task::{Task, rng};

/// Rounds of a full run, cuts of each at the least, and processes that share them.
const ROUNDS: u64 = 50;
const CUTS: u64 = 205;
const PROCESSES: usize = 8;
/// Cuts come after fewer bytes than this.
const BYTES_MAX: usize = 8 << 10;
/// Only requests that settle have these words.
const SETTLE: &str = "moontide:receipts:";
/// After the storm every process is there again within the longest pause between two attempts, one heartbeat, and a little.
const HEARD_MAX: Duration = Duration::from_millis(2000);
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n";

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut stage = Stage::with(Place::new(task.bus), rng(seed), SETTINGS, UNRECORDED).await;
    let proxy = Proxy::before(stage.server().port()).await;
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| stage.start_at(&proxy.url())).collect();
    let names: Vec<String> = processes.iter().map(|(name, _)| name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pulse = Pulse::of(&stage);
    stage.until_started(PROCESSES).await;
    proxy.storm(Storm { seed, words: SETTLE, bytes_max: BYTES_MAX });
    while proxy.cuts() < CUTS {
        let numbers = stage.rng.random_range(1..12);
        stage.feed(numbers).await;
        stage.pause(0..30).await;
    }
    proxy.heal();
    let heard = pulse.until_heard(&names, &pulse.beats()).await;
    let mut found = stage.check().await;
    note_ended(&mut found, &mut processes);
    found.fault("cut", proxy.cuts());
    found.recovered("cut", heard);
    found.bound("cut", HEARD_MAX);
    found
}
