//! The parts of the rig: each is one kind of trouble.

pub mod killers;
pub mod kills;
pub mod malformed;
pub mod reloads;
pub mod soak;

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
            found.wrong(format!("again: {}", task.again(seed)));
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
