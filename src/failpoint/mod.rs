//! Named places on the way of an event at which the process can be told to die.
//!
//! Owns the names, and what passing one means. Only a build with the feature `failpoints` can be told anything; in every
//! other one these functions are empty and the names are not in the binary. The fault rig walks through [`ALL`], and
//! `tests/suite/failpoints.rs` holds that every name is placed once on each bus, and no other.

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(not(feature = "failpoints"))]
mod idle;

#[cfg(feature = "failpoints")]
pub use armed::{after, arm, during, is_switch, reached};
#[cfg(not(feature = "failpoints"))]
pub use idle::{after, arm, during, is_switch, reached};

/// A place, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub name: &'static str,
    pub on: On,
    /// What was done when it is passed, and what not yet.
    pub meaning: &'static str,
}

/// The buses on which a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Both,
    Redis,
    Sqlite,
}

const fn both(name: &'static str, meaning: &'static str) -> Point {
    Point { name, on: On::Both, meaning }
}

const fn redis(name: &'static str, meaning: &'static str) -> Point {
    Point { name, on: On::Redis, meaning }
}

const fn sqlite(name: &'static str, meaning: &'static str) -> Point {
    Point { name, on: On::Sqlite, meaning }
}

/// Every place. `sent`: on Redis the request has left and its answer is not heard; on SQLite the work is done in the writer's
/// transaction, which is not committed.
pub const ALL: &[Point] = &[
    both("ingest.before", "events came over HTTP and are not stored"),
    both("ingest.after", "events from HTTP are stored, and the client has no answer"),
    both("publish.sent", "events without a key are on their way to the store"),
    both("publish.after", "the store has events without a key, and nobody was told"),
    both("intake.sent", "events with a key are on their way to the store"),
    both("intake.after", "the store has events with a key, and nobody was told"),
    both("open.before", "a handler's group is about to be opened"),
    both("open.sent", "the opening of a group is on its way"),
    both("open.after", "a group is open, and nobody works in it"),
    both("receive.before", "the worker asks for more, for the first time or for the next"),
    both("receive.after", "the worker was given deliveries and has looked at none"),
    both("claim.before", "the bus is about to claim new entries"),
    both("claim.sent", "a claim is on its way"),
    both("claim.after", "entries are claimed, and not in the inbox' books"),
    both("run.before", "deliveries are about to be handed to the scripts"),
    both("run.read", "a run has read state"),
    both("run.mid", "a run has emitted an event into its buffer"),
    both("step.before", "a step has done its work, and what it came to is not recorded"),
    both("step.sent", "what a step came to is on its way"),
    both("step.after", "what a step came to is recorded, and its run does not know"),
    both("run.after", "a run has ended, and its worker does not know"),
    both("judge.before", "a run's outcome has no verdict"),
    both("judge.after", "a run has a verdict that waits to be settled"),
    both("settle.before", "a batch is about to be settled"),
    both("retry.before", "a retry is about to be written into a settle"),
    both("dead.before", "a dead letter is about to be written into a settle"),
    both("release.before", "a delivery is about to be given back by a settle"),
    both("settle.sent", "a settle is on its way"),
    both("settle.answered", "a settle is in the store, and its inbox has just been told"),
    both("settle.after", "the worker has the answers of a settle and has looked at none"),
    both("retry.after", "a retry is stored and not reported"),
    both("dead.after", "a dead letter is stored and not reported"),
    both("release.after", "a delivery was given back, and that is not reported"),
    both("conflict.before", "state moved under a run, which is about to be repeated"),
    both("next.before", "everything of a settle is reported, and nothing more was asked for"),
    both("takeover.before", "there are entries of the dead, or given back, to be taken over"),
    both("takeover.sent", "a take-over is on its way"),
    redis("takeover.after", "entries were taken over, and are not in the inbox' books"),
    both("recovery.after", "the worker was given an entry of a dead process"),
    both("mark.before", "a suspect has the process to itself, and no mark"),
    both("mark.sent", "a suspect's mark is on its way"),
    both("mark.after", "a suspect is marked and does not run yet"),
    both("due.before", "due work is about to be looked for"),
    both("due.sent", "moving due work is on its way"),
    both("due.after", "due work was moved, and nobody was told"),
    both("reload.read", "the folder was read and has changed"),
    both("reload.built", "a new registry is built and not in force"),
    both("reload.swapped", "a worker has a new program, and others still have their old ones"),
    both("reload.after", "all workers are in line with the folder"),
    both("beat.before", "the heartbeat is about to be raised"),
    both("beat.sent", "a raised heartbeat is on its way"),
    both("beat.after", "the heartbeat is raised, and what others did was not looked at"),
    both("upkeep.before", "a round of upkeep begins"),
    both("upkeep.sent", "trimming is on its way"),
    both("upkeep.after", "a round of upkeep is over"),
    both("stop.before", "a worker is to stop and has given back nothing"),
    both("stop.after", "a worker has nothing in hand any more"),
    both("give_back.before", "a closed inbox held something that is about to go back"),
    both("give_back.sent", "what a closed inbox held is on its way back"),
    both("give_back.after", "what a closed inbox held has gone back"),
    both("farewell.before", "the process is about to take leave of the others"),
    both("farewell.sent", "the leave is on its way"),
    both("farewell.after", "the process has taken leave and still lives"),
    sqlite("commit.before", "a transaction is complete and not committed"),
    sqlite("commit.after", "a transaction is committed, and nobody was told"),
];
