//! Three processes on one server work off the demo's checkouts while one of them is killed and started again every second.
//!
//! In the end every checkout has ended exactly once, the stock adds up, and nothing is left anywhere on the server.

use std::time::{Duration, Instant};

use moontide::clock::{Clock, SystemClock};
use moontide::demo::audit::Audit;
use moontide::demo::examples;
use moontide::demo::feed::Plan;
use moontide::demo::observe::Doors;
use moontide::event::Event;
use moontide::outcome::Emit;
use moontide::streams::Streams;
use rand::Rng as _;

use crate::rig::{Place, Rig};
use moontide_stage::process::Process;
use moontide_stage::server::Kind;

const PROCESSES: usize = 3;
/// Those of the demo.
const HANDLERS: usize = 7;
const KILL_EVERY: Duration = Duration::from_secs(1);
/// Checkouts that come in per second: enough that there is work at any time.
const PER_SECOND: usize = 150;

/// A storm of so many seconds.
async fn storm(kind: Kind, seconds: usize) {
    let mut rig = Rig::new(Place::server(kind), &[]).await;
    examples::write_to(&rig.dir.path().join("handlers")).expect("the examples are written");
    let plan = Plan::new(rig.rng.random(), seconds * PER_SECOND, SystemClock.now());
    let mut workers: Vec<Process> = (0..PROCESSES).map(|_| rig.start()).collect();
    let groups = async || rig.backend.overview.groups().await.expect("the server answers").len();
    rig.until("all groups are open", async || groups().await == HANDLERS).await;
    feed(&rig, &plan.deliveries).await;
    rig.quiet().await;
    let mut kills = 0;
    for part in plan.checkouts.chunks(plan.checkouts.len().div_ceil(seconds)) {
        let next = Instant::now() + KILL_EVERY;
        feed(&rig, part).await;
        rig.pause(0..200).await;
        let victim = rig.rng.random_range(0..PROCESSES);
        workers[victim].kill();
        workers[victim] = rig.start();
        kills += 1;
        tokio::time::sleep_until(next.into()).await;
    }
    rig.quiet().await;
    let doors = Doors {
        state: rig.backend.state.clone(),
        dead: rig.backend.dead.clone(),
        overview: rig.backend.overview.clone(),
    };
    let audit = Audit::new(&plan, &doors.observe(&Streams::default()).await.expect("the server answers"));
    assert!(audit.holds(), "after {kills} kills: {:#?}\n{}", audit.problems, rig.tail());
    consumers_do_not_pile_up(&rig, PROCESSES).await;
}

async fn feed(rig: &Rig, events: &[Event]) {
    let emit = |event: &Event| Emit { stream: format!("events:{}", event.kind), event: event.clone(), delay: None };
    rig.publish(events.iter().map(emit).collect()).await;
}

/// What dead processes left is gone: consumers, heartbeats, and what they said about themselves.
pub async fn consumers_do_not_pile_up(rig: &Rig, alive: usize) {
    // The checker's own heartbeat, too.
    let beats = || rig.server().get::<usize>(&["HLEN", "moontide:beats"]);
    rig.until("the dead are buried", async || beats() <= alive + 1).await;
    let streams: Vec<String> = rig.server().get(&["SMEMBERS", "moontide:streams"]);
    for stream in streams {
        let groups: Vec<redis::Value> = rig.server().get(&["XINFO", "GROUPS", &stream]);
        let consumers: Vec<usize> = groups.iter().map(consumers).collect();
        assert!(consumers.iter().all(|count| *count <= alive + 2), "{stream} has {consumers:?} consumers");
    }
}

/// How many consumers a group has.
fn consumers(group: &redis::Value) -> usize {
    let fields: std::collections::HashMap<String, redis::Value> =
        redis::from_redis_value(group.clone()).expect("it has fields");
    redis::from_redis_value(fields["consumers"].clone()).expect("it is a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    storm(Kind::Redis, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_valkey() {
    storm(Kind::Valkey, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "five minutes"]
async fn five_minutes_on_redis() {
    storm(Kind::Redis, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "five minutes"]
async fn five_minutes_on_valkey() {
    storm(Kind::Valkey, 300).await;
}
