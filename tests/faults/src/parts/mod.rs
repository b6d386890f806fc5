//! The parts of the rig: each is one kind of trouble.

pub mod clocks;
pub mod cuts;
pub mod failpoints;
pub mod ingest;
pub mod killers;
pub mod kills;
pub mod lines;
pub mod malformed;
pub mod outages;
pub mod power;
pub mod reloads;
pub mod soak;
pub mod stops;
pub mod terms;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use futures_util::FutureExt;

use crate::findings::Findings;
use crate::place::Bus;
use crate::task::Task;

type Running = Pin<Box<dyn Future<Output = Findings>>>;

/// A kind of trouble.
pub struct Part {
    pub name: &'static str,
    /// One line on what it does.
    pub what: &'static str,
    /// Where it can be made.
    pub buses: &'static [Bus],
    pub run: fn(Task) -> Running,
}

/// All of them, in the order in which a full run plays them.
pub const ALL: &[Part] = &[
    Part {
        name: "kills",
        what: "processes killed with SIGKILL at any moment, and started again",
        buses: &Bus::ALL,
        run: |task| Box::pin(kills::run(task)),
    },
    Part {
        name: "stops",
        what: "processes stopped with SIGSTOP, for less and for more than the recovery time",
        buses: &Bus::ALL,
        run: |task| Box::pin(stops::run(task)),
    },
    Part {
        name: "terms",
        what: "processes ended with SIGTERM under load, started again at once, and two of one name",
        buses: &Bus::ALL,
        run: |task| Box::pin(terms::run(task)),
    },
    Part {
        name: "cuts",
        what: "connections to the server cut after any number of bytes, again and again",
        buses: &[Bus::Redis],
        run: |task| Box::pin(cuts::run(task)),
    },
    Part {
        name: "lines",
        what: "lines to the server that are held up, or dead without a word",
        buses: &[Bus::Redis],
        run: |task| Box::pin(lines::run(task)),
    },
    Part {
        name: "ingest",
        what: "HTTP requests cut after any number of bytes, and sent again, while processes are killed",
        buses: &Bus::ALL,
        run: |task| Box::pin(ingest::run(task)),
    },
    Part {
        name: "malformed",
        what: "entries, rows, requests and lines that are no events, among good ones",
        buses: &Bus::ALL,
        run: |task| Box::pin(malformed::run(task)),
    },
    Part {
        name: "killers",
        what: "events that kill their process, loop, or take up all memory, among innocent ones",
        buses: &Bus::ALL,
        run: |task| Box::pin(killers::run(task)),
    },
    Part {
        name: "reloads",
        what: "handler files saved again and again under load, whole and broken, removed and put back",
        buses: &Bus::ALL,
        run: |task| Box::pin(reloads::run(task)),
    },
    Part {
        name: "soak",
        what: "an hour of mixed load with a fault each minute: memory, threads, descriptors, keys and consumers stay flat",
        buses: &Bus::ALL,
        run: |task| Box::pin(soak::run(task)),
    },
    Part {
        name: "clocks",
        what: "wall clocks of the store and of processes that step by hours under load",
        buses: &Bus::ALL,
        run: |task| Box::pin(clocks::run(task)),
    },
    Part {
        name: "outages",
        what: "a store that is away, full, read-only, emptied, trimmed or replaced under load",
        buses: &Bus::ALL,
        run: |task| Box::pin(outages::run(task)),
    },
    Part {
        name: "power",
        what: "what a store had written down cut at any byte, or with a bit that is another",
        buses: &Bus::ALL,
        run: |task| Box::pin(power::run(task)),
    },
    Part {
        name: "failpoints",
        what: "processes that die at each named place on the way of an event",
        buses: &Bus::ALL,
        run: |task| Box::pin(failpoints::run(task)),
    },
];

/// The part of that name.
pub fn named(name: &str) -> Option<&'static Part> {
    ALL.iter().find(|part| part.name == name)
}

/// Plays the rounds of `task`, `full` of them in a full run. A round that panics is a finding like any other, and ends nothing
/// but itself.
pub async fn rounds<R>(task: &Task, full: u64, round: impl Fn(u64) -> R) -> Findings
where
    R: Future<Output = Findings>,
{
    let mut all = Findings::default();
    for seed in task.seeds(full) {
        let mut found = AssertUnwindSafe(round(seed)).catch_unwind().await.unwrap_or_else(|panic| broken(&*panic));
        if !found.is_exact() {
            found.wrong_first(format!("again: {}", task.again(seed)));
            found.wrong.iter().for_each(|text| eprintln!("  {text}"));
        }
        all.add(found);
    }
    all
}

/// What is known of a round that panicked.
fn broken(panic: &(dyn Any + Send)) -> Findings {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let mut found = Findings::default();
    found.wrong(format!("the round broke off: {}", text.unwrap_or("nobody says why")));
    found
}

/// Adds what came of a step of a round, and says in front of what was wrong where it was.
fn merge(found: &mut Findings, mut step: Findings, place: &str) {
    step.wrong.iter_mut().for_each(|text| *text = format!("{place}: {text}"));
    found.add(step);
}
