//! Events that kill their process, loop for ever or take up all memory, among innocent ones.
//!
//! A killer asks in the log to be killed, and whoever it runs in is. It must be given up after two deaths among others and
//! two alone, and no innocent event with it, however many killers there are at a time.

mod volley;

use rand::Rng as _;

use crate::findings::Findings;
use crate::place::Place;
use crate::stage::{HANDLERS, Stage};
use crate::task::{Task, rng};
use crate::truth::Truth;
use volley::Volleys;

/// Rounds of a full run, and volleys of each.
const ROUNDS: u64 = 12;
const VOLLEYS: usize = 3;
const KILLERS_MAX: usize = 6;
/// Numbers that are fed, and innocent events in the handler of the killers, with each volley.
const NUMBERS: u64 = 60;
const INNOCENTS: usize = 60;
const PROCESSES: usize = 3;
const TRAP: (&str, &str) = ("trap", include_str!("../../../handlers/trap.luau"));
const SETTINGS: &str = "[groups]\nrecovery = \"1s\"\n[sqlite]\nsynchronous = \"normal\"\n\
                        [handlers.trap]\nlimits = { cpu = \"150ms\", memory = \"16 MiB\" }\n";

pub async fn run(task: Task) -> Findings {
    super::rounds(&task, ROUNDS, |seed| round(&task, seed)).await
}

async fn round(task: &Task, seed: u64) -> Findings {
    let handlers = [HANDLERS, &[TRAP]].concat();
    let mut stage = Stage::with(Place::new(task.bus), rng(seed), SETTINGS, &handlers).await;
    let mut volleys = Volleys::new((0..PROCESSES).map(|_| stage.start()).collect());
    for volley in 0..VOLLEYS {
        stage.feed(NUMBERS).await;
        // Alone, a killer's deaths can be told exactly: nobody else kills what it has not begun to run in.
        let killers = if volley == 0 { 1 } else { stage.rng.random_range(2..=KILLERS_MAX) };
        volleys.fire(&mut stage, killers, INNOCENTS).await;
    }
    let last = stage.last();
    let mut found = stage
        .check_with(|mut held| {
            let mut found = volleys.take(&mut held);
            found.add(Truth::of(last).compare(&held));
            found
        })
        .await;
    found.fault("death by an event", volleys.deaths);
    found
}
