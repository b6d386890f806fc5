//! Processes are stopped for less and for more than the recovery time, several at a time, and go on: what they still do by
//! then is refused.

use std::time::Duration;

use moontide_stage::process::Process;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::findings::Findings;
use crate::holdings::until_released;
use crate::place::{Bus, Place};
use crate::pulse::{Pulse, note_ended};
use crate::stage::{Stage, UNRECORDED};
use crate::task::{Task, rng};

/// Rounds of a full run, and moments of each in which some are stopped.
const ROUNDS: u64 = 20;
const MOMENTS: usize = 6;
const PROCESSES: usize = 6;
/// How many are stopped at a time.
const STOPPED: std::ops::RangeInclusive<usize> = 1..=4;
/// For how long, in milliseconds; the recovery time is 1000.
const LASTS: std::ops::Range<u64> = 100..2800;
/// After the recovery time and a second the others have what the stopped one held.
const RELEASED_MAX: Duration = Duration::from_secs(2);
/// One that was stopped in the middle of a write to a file holds SQLite's lock. When it goes on, so do the others.
const UNLOCKED_MAX: Duration = Duration::from_secs(1);
/// While somebody writes, some heart beats within this time.
const BEAT: Duration = Duration::from_millis(400);
const SETTINGS: &str = "[groups]\nrecovery = \"1s\"\n[sqlite]\nsynchronous = \"normal\"\n";
/// What the log says when a zombie's work is refused.
const FENCED: &str = "another process took this event over";

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut stage = Stage::with(Place::new(task.bus), rng(seed), SETTINGS, UNRECORDED).await;
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| stage.start()).collect();
    stage.until_started(PROCESSES).await;
    let mut found = Findings::default();
    for _ in 0..MOMENTS {
        stage.feed(300).await;
        stage.pause(0..60).await;
        play(&mut stage, task.bus, &mut processes, &mut found).await;
    }
    found.add(stage.check().await);
    note_ended(&mut found, &mut processes);
    found.fault("late commit", stage.said(FENCED));
    found.bound("stop", RELEASED_MAX);
    found.bound("stop in a write", UNLOCKED_MAX);
    found
}

/// One that is stopped.
struct Stopped<'a> {
    process: &'a Process,
    since: Instant,
    until: Instant,
    release: JoinHandle<Duration>,
}

async fn play(stage: &mut Stage, bus: Bus, processes: &mut [(String, Process)], found: &mut Findings) {
    processes.shuffle(&mut stage.rng);
    let count = stage.rng.random_range(STOPPED);
    let mut stopped = Vec::new();
    for (name, process) in &processes[..count] {
        stage.pause(0..5).await;
        process.signal("STOP");
        let since = Instant::now();
        let until = since + Duration::from_millis(stage.rng.random_range(LASTS));
        stopped.push(Stopped { process, since, until, release: until_released(stage, name) });
    }
    found.fault("stop", count as u64);
    let pulse = Pulse::of(stage);
    stopped.sort_by_key(|stopped| stopped.until);
    // Nobody else can do anything as long as one of them holds SQLite's lock.
    let locked = bus == Bus::Sqlite && !beats(&pulse).await;
    for Stopped { process, since, until, release } in stopped {
        sleep_until(until).await;
        let lasted = since.elapsed();
        if release.is_finished() {
            let released = release.await.expect("it only looks");
            if !locked {
                found.recovered("stop", released);
            }
        } else {
            release.abort();
            if !locked && lasted > RELEASED_MAX {
                found.recovered("stop", lasted);
            }
        }
        process.signal("CONT");
    }
    if locked {
        found.fault("stop in a write", 1);
        let went_on = Instant::now();
        stage.until("somebody can write", async || beats(&pulse).await).await;
        found.recovered("stop in a write", went_on.elapsed().saturating_sub(BEAT));
    }
}

/// Whether some heart beats.
async fn beats(pulse: &Pulse) -> bool {
    let before = pulse.beats();
    sleep(BEAT).await;
    pulse.beats() != before
}
