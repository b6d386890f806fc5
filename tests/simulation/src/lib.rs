//! Thousands of histories a second of Moontide's worker, judge, registry and retries, each from one seed.
//!
//! The code is the real one: [`moontide::worker::work`] with its pace, suspects and repeated settles, `judge`, the turns on hot
//! keys, `registry::build` over changing handlers. Around it is a model: a bus over a store in memory, processes
//! that die, stand still and stop, and runs that do what a plan says instead of a script. Time is tokio's paused clock, so a
//! minute of waiting takes none, and a slot that is free for no time at all was taken at once. Every choice (plan, delays,
//! which call fails, which task is put off when it is polled) comes from one generator: the same seed is the same history, step by step.
//!
//! # Why no library
//!
//! *turmoil* simulates hosts and their network and steps all of them tick by tick: our seam is above the network, and a minute
//! would be sixty thousand steps. *madsim* is another tokio by `--cfg`, for the whole tree: everything would be compiled again into
//! something else than what is shipped. *loom* and *shuttle* replace the locks and atomics of what they look at, know no
//! time, and would see nothing of what is locked in tokio, parking_lot and arc-swap; they are for a lock, not for a worker. What
//! was missing besides tokio's own clock is small: a future that puts off polls by the seed, can stand still, and can die
//! (`process`). The worker's `select!` is biased and its sets of futures are woken in the order of time and seed, so nothing is left to chance.

mod bus;
mod capacity;
mod check;
mod editions;
mod events;
mod flaw;
mod history;
mod metrics;
mod plan;
mod process;
mod runner;
mod store;
mod summary;
mod trace;
mod truth;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{available_parallelism, scope};

pub use flaw::Flaw;
pub use history::{History, happen};
pub use summary::{Broken, Summary};
pub use trace::Trace;
pub use truth::Violation;

/// What no history contains.
pub const NOT_SIMULATED: &[&str] = &[
    "scripts: Luau, VMs, limits and script threads; a plan says how a run ends, and the watchdog's and the VM's part in it is modelled",
    "the buses' own code (SQLite, Redis, relay): a model keeps their contract, which the conformance suite tests against each",
    "the host's supervisor, which starts, swaps and stops workers: a model does it by the same rules",
    "several handlers on several processors at once: each history has one thread, so a data race within one poll is not seen",
    "sockets, files, the kernel: what they do to a call is that it is late, lost, or not answered",
    "the watch over the handlers folder: a reload begins with the sources that were read",
    "HTTP, channels, replays and operators' commands; expiry of state; shadow mode",
];

/// Histories that are worth a look.
const BROKEN_MAX: usize = 100;

/// Lets the histories of `histories` seeds from `first_seed` on happen, on `threads` threads (0: one per processor).
pub fn run(first_seed: u64, histories: u64, threads: usize) -> Summary {
    run_with(first_seed, histories, threads, None)
}

/// As [`run`], with a bug in the model; ends at the first history that shows it.
pub fn run_with(first_seed: u64, histories: u64, threads: usize, flaw: Option<Flaw>) -> Summary {
    let threads = if threads == 0 { available_parallelism().map_or(1, usize::from) } else { threads };
    let next = AtomicU64::new(0);
    let work = || {
        let mut summary = Summary::default();
        while summary.broken.len() < if flaw.is_some() { 1 } else { BROKEN_MAX } {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= histories {
                break;
            }
            let seed = first_seed + at;
            summary.add(seed, happen(seed, flaw));
        }
        summary
    };
    scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended
            .fold(Summary::default(), |all, one| all.with(one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
    })
}
