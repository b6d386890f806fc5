//! Wall clocks step by hours under load, forward and back: nothing waits for the hour, nothing is lost, nothing happens twice.
//!
//! On a server its clock steps, or that of one process. Processes that share a file share a machine and its clock: it steps
//! for all of them, those that publish included. What runs twice because of it is a run more, and no effect.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moontide_stage::process::Process;
use moontide_stage::server::clock::Shift;
use moontide_stage::server::{Kind, Server};
use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rusqlite::Connection;
use serde_json::json;

use crate::findings::Findings;
use crate::place::{Bus, FILE, Place};
use crate::seen::file::look;
use crate::stage::{HANDLERS, PATIENCE, Stage, binary};
use crate::task::{Task, rng};
use crate::truth;

/// Rounds of a full run, and steps of each.
const ROUNDS: u64 = 10;
const STEPS: usize = 20;
const PROCESSES: usize = 3;
/// Numbers that are published before a step, and after it.
const NUMBERS: u64 = 20;
const HOUR: i64 = 3600;
/// How far a clock is ahead of the real one, in seconds.
const AHEAD: [i64; 7] = [-6 * HOUR, -HOUR, -30, 0, 30, HOUR, 6 * HOUR];
/// All that was published must have come to rest so long after a step: far less than any of them.
const BOUND: Duration = Duration::from_secs(10);
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n[sqlite]\nsynchronous = \"normal\"\n";

pub async fn run(task: Task) -> Findings {
    match task.bus {
        Bus::Redis => super::rounds(&task, ROUNDS, of_server).await,
        Bus::Sqlite => super::rounds(&task, ROUNDS, of_machine).await,
    }
}

/// The handlers of numbered events, whose idempotency records are kept for longer than a clock steps.
fn handlers() -> Vec<(&'static str, String)> {
    let keeps = |(name, script): &(&'static str, &str)| {
        let script = match script.contains("idempotency") {
            true => script.replace("idempotency = { ", "idempotency = { window = \"7d\", "),
            false => script.replace("start = ", "idempotency = { window = \"7d\" },\n    start = "),
        };
        (*name, script)
    };
    HANDLERS.iter().map(keeps).collect()
}

async fn stage(place: Place, seed: u64) -> Stage {
    let handlers = handlers();
    let handlers: Vec<(&str, &str)> = handlers.iter().map(|(name, script)| (*name, &**script)).collect();
    Stage::with(place, rng(seed), SETTINGS, &handlers).await
}

/// Steps a clock that is `ahead` to somewhere else; answers what that is called.
fn step(rng: &mut SmallRng, whose: &str, ahead: &mut i64) -> String {
    let others: Vec<i64> = AHEAD.into_iter().filter(|other| other != ahead).collect();
    let next = *others.choose(rng).expect("there are others");
    let way = if next > *ahead { "forward" } else { "back" };
    *ahead = next;
    format!("{whose} {way}")
}

async fn of_server(seed: u64) -> Findings {
    let mut stage = stage(Place::Server(Server::with(Kind::Redis, &[])), seed).await;
    let mut clocks: Vec<(Shift, i64)> = (0..PROCESSES).map(|nth| (clock(&stage, nth), 0)).collect();
    let _processes = start(&stage, clocks.iter().map(|(clock, _)| clock));
    let (mut found, mut servers) = (Findings::default(), 0);
    for _ in 0..STEPS {
        stage.feed(NUMBERS).await;
        stage.pause(0..40).await;
        let kind = match stage.rng.random_range(0..2 * PROCESSES) {
            nth if nth < PROCESSES => {
                let (clock, ahead) = &mut clocks[nth];
                let kind = step(&mut stage.rng, "worker", ahead);
                clock.set(*ahead);
                kind
            }
            _ => {
                let kind = step(&mut stage.rng, "store", &mut servers);
                stage.server().shift(servers);
                kind
            }
        };
        let stepped = Instant::now();
        stage.feed(NUMBERS).await;
        rested(&mut found, &kind, stepped, stage.quiet().await);
    }
    found.add(stage.check().await);
    found
}

async fn of_machine(seed: u64) -> Findings {
    let mut stage = stage(Place::File, seed).await;
    // It would be a process with another clock.
    stage.backend.close().await;
    let clock = clock(&stage, 0);
    let processes = start(&stage, std::iter::repeat_n(&clock, PROCESSES));
    let (mut found, mut ahead) = (Findings::default(), 0);
    for _ in 0..STEPS {
        emit(&mut stage, &clock);
        stage.pause(0..40).await;
        let kind = step(&mut stage.rng, "store", &mut ahead);
        clock.set(ahead);
        let stepped = Instant::now();
        emit(&mut stage, &clock);
        rested(&mut found, &kind, stepped, nothing_is_left(&stage).await);
    }
    clock.set(0);
    let (last, folder) = (stage.last(), stage.folder);
    let mut stage = Stage::over(folder, Place::File, rng(seed), SETTINGS, HANDLERS).await;
    stage.goes_on_after(last);
    found.add(stage.check().await);
    drop(processes);
    found
}

fn clock(stage: &Stage, nth: usize) -> Shift {
    Shift::at(&stage.folder.path().join(format!("clock-{nth}")))
}

fn start<'c>(stage: &Stage, clocks: impl Iterator<Item = &'c Shift>) -> Vec<Process> {
    clocks.enumerate().map(|(nth, clock)| stage.start_as(&format!("p{nth}"), &clock.variables())).collect()
}

/// All came to rest, or did not, after a step.
fn rested(found: &mut Findings, kind: &str, stepped: Instant, rest: Result<(), String>) {
    found.fault(kind, 1);
    found.recovered(kind, stepped.elapsed());
    found.bounds.insert(kind.to_owned(), u64::try_from(BOUND.as_millis()).unwrap_or(u64::MAX));
    if let Err(left) = rest {
        found.lost += 1;
        found.wrong(format!("{kind}: {left}"));
    }
}

/// A process with this clock publishes the next numbers.
fn emit(stage: &mut Stage, clock: &Shift) {
    let last = stage.last() + NUMBERS;
    let mut command = Command::new(binary());
    command.args(["emit", "--config", "moontide.toml", "--file", "-"]).current_dir(stage.folder.path());
    command.envs(clock.variables()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("it is piped");
    for event in (stage.last() + 1..=last).flat_map(truth::events).map(|emit| emit.event) {
        let data: serde_json::Value =
            serde_json::from_slice(event.data.expect("it has some").bytes()).expect("it is JSON");
        let line = json!({ "id": event.id, "source": event.source, "type": event.kind, "data": data });
        writeln!(input, "{line}").expect("it reads");
    }
    drop(input);
    assert!(child.wait().expect("it is ours").success(), "the events are taken");
    stage.goes_on_after(last);
}

/// Waits until all that was published is done, as the file tells.
async fn nothing_is_left(stage: &Stage) -> Result<(), String> {
    let file = Connection::open(stage.folder.path().join(FILE)).expect("the file opens");
    let began = Instant::now();
    loop {
        let accounts = look(&file).expect("it is readable").accounts();
        let Some((unit, left)) = accounts.iter().find(|(_, account)| account.live > 0) else { return Ok(()) };
        if began.elapsed() > PATIENCE {
            return Err(format!("still {unit}: {left:?}\n{}", stage.tail()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
