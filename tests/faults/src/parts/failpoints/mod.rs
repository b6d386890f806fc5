//! Processes die at named places on the way of an event, each place in turn, while another one works on beside them.
//!
//! One trial is one death: a process is started with one place armed, brought there (`plan`), and is dead when it ended by
//! the signal of its own abort. A place that is not reached is tried again, and is a finding when it never is.

mod ingest;
mod plan;
mod trial;

use std::time::Duration;

use futures_util::future::join_all;
use moontide::failpoint::{ALL, On, Point};
use rand::seq::SliceRandom as _;

use crate::findings::Findings;
use crate::place::{Bus, Place};
use crate::stage::Stage;
use crate::task::{Task, rng};

use trial::{RECOVERED, Trials};

/// Rounds of a full run; in each, a process dies once at each place.
const ROUNDS: u64 = 100;
/// Stores of a round, each with its share of the places: trials wait more than they work.
const STORES: usize = 3;
/// How often a place is tried in a round before it counts as one that cannot be reached.
const TRIES: u32 = 30;
/// `groups.recovery`, and what may be added to it.
const RECOVERY: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_secs(1);
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n[sqlite]\nsynchronous = \"normal\"\n";

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut points = points(task.bus);
    points.shuffle(&mut rng(seed));
    let shares = points.chunks(points.len().div_ceil(STORES)).enumerate();
    let trials = shares.map(|(store, points)| on_one_store(task.bus, seed.wrapping_add(store as u64), points));
    let mut all = Findings::default();
    join_all(trials).await.into_iter().for_each(|found| all.add(found));
    all.bounds.insert(RECOVERED.into(), u64::try_from((RECOVERY + MARGIN).as_millis()).unwrap_or(u64::MAX));
    all
}

async fn on_one_store(bus: Bus, seed: u64, points: &[Point]) -> Findings {
    let mut trials = Trials::begin(Stage::new(Place::new(bus), rng(seed), SETTINGS).await);
    let mut missed = Vec::new();
    for point in points {
        if !dies_at_last(&mut trials, *point).await {
            missed.push(format!("no process died at {} in {TRIES} tries", point.name));
        }
    }
    let mut found = trials.check().await;
    missed.into_iter().for_each(|text| found.wrong(text));
    found
}

async fn dies_at_last(trials: &mut Trials, point: Point) -> bool {
    for before in 0..TRIES {
        if trials.dies_at(point, before).await {
            return true;
        }
    }
    false
}

/// The places that are on `bus`.
fn points(bus: Bus) -> Vec<Point> {
    let here = match bus {
        Bus::Redis => On::Redis,
        Bus::Sqlite => On::Sqlite,
    };
    ALL.iter().filter(|point| point.on == On::Both || point.on == here).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bus_has_places_of_its_own_and_many_in_common() {
        let (redis, sqlite) = (points(Bus::Redis), points(Bus::Sqlite));
        assert!(redis.len() > 20 && sqlite.len() > 20);
        assert!(redis != sqlite && redis.iter().any(|point| sqlite.contains(point)));
    }
}
