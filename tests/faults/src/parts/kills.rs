//! Processes are killed at any moment, and started again: under a name of their own, or under that of the dead one.

use std::time::Duration;

use rand::Rng as _;

use crate::findings::Findings;
use crate::holdings::until_released;
use crate::place::Place;
use crate::stage::Stage;
use crate::task::{Task, rng};

/// Rounds of a full run, kills of each, and numbers that are fed between two kills.
const ROUNDS: u64 = 50;
const KILLS: usize = 44;
const NUMBERS: u64 = 95;
const PROCESSES: usize = 3;
/// `groups.recovery`, and what may be added to it.
const RECOVERY: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_secs(1);
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n[sqlite]\nsynchronous = \"normal\"\n";

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut stage = Stage::new(Place::new(task.bus), rng(seed), SETTINGS).await;
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| stage.start()).collect();
    let mut releases = Vec::new();
    for _ in 0..KILLS {
        stage.feed(NUMBERS).await;
        stage.pause(0..120).await;
        let victim = stage.rng.random_range(0..PROCESSES);
        let (name, process) = &mut processes[victim];
        process.kill();
        if stage.rng.random_bool(0.3) {
            *process = stage.start_as(name, &[]);
        } else {
            releases.push(until_released(&stage, name));
            processes[victim] = stage.start();
        }
    }
    let mut found = stage.check().await;
    found.fault("kill", KILLS as u64);
    found.bounds.insert("kill".into(), u64::try_from((RECOVERY + MARGIN).as_millis()).unwrap_or(u64::MAX));
    for release in releases {
        found.recovered("kill", release.await.expect("it only looks"));
    }
    found
}
