//! Processes are told to end under load: they end in order, and nothing stays in their hands. Others start at once, some under
//! the name of one that is still ending, or was killed a moment ago, or lives.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use moontide_stage::process::Process;
use moontide_stage::server::Server;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::findings::Findings;
use crate::holdings::until_released;
use crate::place::Place;
use crate::pulse::{Pulse, note_ended};
use crate::stage::{Stage, UNRECORDED};
use crate::task::{Task, rng};

/// Rounds of a full run, restarts of each, and numbers that are fed between two of them.
const ROUNDS: u64 = 10;
const RESTARTS: usize = 110;
const NUMBERS: u64 = 30;
const PROCESSES: usize = 3;
/// Runs are short: they all end within this time, and what did not begin is given back.
const RELEASED_MAX: Duration = Duration::from_secs(1);
/// Consumers of a group that may be there besides those of living processes.
const BESIDES: usize = 5;
const SIGTERM: u32 = 15;
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n[sqlite]\nsynchronous = \"normal\"\n";

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

/// How one process is replaced.
#[derive(Clone, Copy)]
enum Change {
    /// It is told to end, and another one starts.
    Term,
    /// It is told to end, and another one of its name starts while it does.
    TermAndTwin,
    /// It is killed, and another one of its name starts within ten milliseconds.
    KillAndTwin,
}

async fn round(task: &Task, seed: u64) -> Findings {
    let mut stage = Stage::with(Place::new(task.bus), rng(seed), SETTINGS, UNRECORDED).await;
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| stage.start()).collect();
    // Two of one name live side by side, until one of them is replaced by somebody else.
    let twin = processes[0].0.clone();
    processes.push((twin.clone(), stage.start_as(&twin, &[])));
    let mut found = Findings::default();
    let mut ends = Vec::new();
    for _ in 0..RESTARTS {
        stage.feed(NUMBERS).await;
        stage.pause(0..90).await;
        let victim = stage.rng.random_range(0..processes.len());
        let change = *[Change::Term, Change::Term, Change::TermAndTwin, Change::KillAndTwin]
            .choose(&mut stage.rng)
            .expect("there are some");
        ends.extend(replace(&mut stage, &mut processes, victim, change, &mut found));
    }
    for end in ends {
        end.await.expect("it only waits").note(&mut found);
    }
    found.add(stage.check().await);
    note_ended(&mut found, &mut processes);
    note_piles(&stage, processes.len(), &mut found).await;
    end_all(&stage, processes, &mut found).await;
    let waited = stage.said("the grace time of");
    if waited > 0 {
        found.wrong(format!("{waited} processes waited for their grace time, and every run is short"));
    }
    found.bound("term", RELEASED_MAX);
    found
}

/// How a process that was told to end did so.
struct End {
    name: String,
    status: ExitStatus,
    /// The signal came before the process could know what signals are.
    too_early: bool,
    /// `None`: another one has its name.
    released: Option<Duration>,
}

impl End {
    fn note(self, found: &mut Findings) {
        if !self.status.success() && !self.too_early {
            found.wrong(format!("{} did not end in order: {}", self.name, self.status));
        }
        if let Some(released) = self.released {
            found.recovered("term", released);
        }
    }
}

fn replace(
    stage: &mut Stage,
    processes: &mut [(String, Process)],
    victim: usize,
    change: Change,
    found: &mut Findings,
) -> Option<JoinHandle<End>> {
    let name = processes[victim].0.clone();
    found.fault("restart", 1);
    let has_twin = processes.iter().filter(|(other, _)| *other == name).count() > 1;
    match change {
        Change::Term => {
            let heeds = terminate(&processes[victim].1);
            let release = (!has_twin).then(|| until_released(stage, &name));
            let (_, old) = std::mem::replace(&mut processes[victim], stage.start());
            found.fault("term", 1);
            Some(ending(name, old, heeds, release))
        }
        Change::TermAndTwin => {
            let heeds = terminate(&processes[victim].1);
            let old = std::mem::replace(&mut processes[victim].1, stage.start_as(&name, &[]));
            found.fault("term", 1);
            found.fault("same name twice", 1);
            Some(ending(name, old, heeds, None))
        }
        Change::KillAndTwin => {
            processes[victim].1.kill();
            processes[victim].1 = stage.start_as(&name, &[]);
            found.fault("restart at once", 1);
            None
        }
    }
}

/// Tells it to end; false: it is told before it can hear.
fn terminate(process: &Process) -> bool {
    let heeds = process.heeds(SIGTERM);
    process.signal("TERM");
    heeds
}

/// Waits until it has ended.
fn ending(name: String, mut process: Process, heeds: bool, release: Option<JoinHandle<Duration>>) -> JoinHandle<End> {
    tokio::spawn(async move {
        let status = loop {
            match process.status() {
                Some(status) => break status,
                None => sleep(Duration::from_millis(5)).await,
            }
        };
        let too_early = !heeds && status.signal() == Some(SIGTERM as i32);
        let released = match release {
            Some(release) => Some(release.await.expect("it only looks")),
            None => None,
        };
        End { name, status, too_early, released }
    })
}

/// What those who are gone left: consumers, and what is known of processes.
async fn note_piles(stage: &Stage, alive: usize, found: &mut Findings) {
    let pulse = Pulse::of(stage);
    // The checker itself is known as well.
    let known = pulse.known();
    if known > alive + 1 + BESIDES {
        found.wrong(format!("the store knows {known} processes, and {alive} live"));
    }
    if let Place::Server(server) = &stage.place {
        for (group, consumers) in consumers(server) {
            if consumers > alive + BESIDES {
                found.wrong(format!("{group} has {consumers} consumers, and {alive} processes live"));
            }
        }
    }
}

/// How many consumers each group has.
fn consumers(server: &Server) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    let groups: Vec<String> = server.get(&["SMEMBERS", "moontide:groups"]);
    let retries = groups.iter().map(|group| format!("moontide:retry:{group}"));
    let streams: Vec<String> = server.get(&["SMEMBERS", "moontide:streams"]);
    for stream in streams.into_iter().chain(retries) {
        let Ok(found) = server.try_call(&["XINFO", "GROUPS", &stream]) else { continue };
        let found: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::from_redis_value(found).expect("groups have fields");
        for mut group in found {
            let mut field = |name: &str| group.remove(name).unwrap_or(redis::Value::Nil);
            let name: String = redis::from_redis_value(field("name")).expect("a group has a name");
            let consumers = redis::from_redis_value(field("consumers")).expect("a group has consumers");
            all.push((format!("{name} of {stream}"), consumers));
        }
    }
    all
}

/// Everybody is told to end: that is in order, too, and soon.
async fn end_all(stage: &Stage, processes: Vec<(String, Process)>, found: &mut Findings) {
    let began = Instant::now();
    let ends: Vec<_> = processes
        .into_iter()
        .map(|(name, process)| {
            let heeds = terminate(&process);
            ending(name, process, heeds, None)
        })
        .collect();
    for end in ends {
        end.await.expect("it only waits").note(found);
    }
    found.recovered("term", began.elapsed());
    let known = Pulse::of(stage).known();
    if known > 1 + BESIDES {
        found.wrong(format!("everybody ended, and the store knows {known} processes"));
    }
}
