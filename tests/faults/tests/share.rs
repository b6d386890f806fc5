//! A small share of what the rig does, with every test run: one round of each part, on each bus.
//!
//! How long things take is not looked at here: machines that test are busy.

use moontide_faults::parts::{self, Part};
use moontide_faults::place::Bus;
use moontide_faults::task::Task;

/// One round.
const SHARE: f64 = 0.0;

async fn play(part: &Part, bus: Bus) {
    let seed = rand::random();
    println!("{} on {bus}, seed {seed}", part.name);
    let task = Task { part: part.name, bus, seed, share: SHARE };
    let found = (part.run)(task.clone()).await;
    assert!(found.is_exact(), "{}\n{found:#?}", task.again(seed));
    assert!(found.faults.values().sum::<u64>() > 0, "{} makes no fault", part.name);
}

async fn play_all(bus: Bus) {
    for part in parts::ALL.iter().filter(|part| part.buses.contains(&bus)) {
        play(part, bus).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_round_of_everything_on_redis() {
    play_all(Bus::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_round_of_everything_on_sqlite() {
    play_all(Bus::Sqlite).await;
}
