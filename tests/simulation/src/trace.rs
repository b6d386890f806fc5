//! What happened, step by step: for whoever looks at a failure, and to compare two runs of one seed.

use std::fmt;

use moontide::bus::Answer;
use moontide::judge::Verdict;
use moontide::outcome::{Outcome, Release};

use crate::events::Number;
use crate::plan::Fault;
use crate::store::{Elapsed, ProcessId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Published(Number),
    Began(ProcessId),
    Fault(Fault),
    Killed(ProcessId),
    Thawed(ProcessId),
    Ended(ProcessId),
    Failed { process: ProcessId, call: &'static str, lost: &'static str },
    Received { process: ProcessId, number: Number, attempt: u32, orphaned: u32, deaths: u32 },
    Marked { process: ProcessId, number: Number, ours: bool },
    Run { process: ProcessId, number: Number, alone: bool },
    Ran { process: ProcessId, number: Number, outcome: &'static str },
    Settled { process: ProcessId, number: Number, verdict: &'static str, answer: &'static str },
}

/// Everything that happened, in order.
#[derive(Debug, Default, PartialEq)]
pub struct Trace(Vec<(Elapsed, Step)>);

impl Trace {
    pub fn push(&mut self, at: Elapsed, step: Step) {
        self.0.push((at, step));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last `count` lines of it.
    pub fn end(&self, count: usize) -> String {
        let lines = self.0[self.0.len().saturating_sub(count)..].iter();
        lines.map(|(at, step)| format!("{:>9.3} {step:?}\n", *at as f64 / 1000.0)).collect()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.end(usize::MAX))
    }
}

/// The name of an outcome.
pub fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) => "done",
        Outcome::Retry { .. } => "retry",
        Outcome::Snooze { .. } => "snooze",
        Outcome::Reject { .. } => "reject",
        Outcome::Failed(_) => "failed",
        Outcome::Undecodable { .. } => "undecodable",
        Outcome::Invalid { .. } => "invalid",
        Outcome::Cycle { .. } => "cycle",
        Outcome::Duplicate { .. } => "duplicate",
        Outcome::Contested { .. } => "contested",
        Outcome::Released(Release::Stopping) => "stopping",
        Outcome::Released(Release::Neighbour) => "neighbour",
        Outcome::Released(Release::StoreAway) => "store away",
        Outcome::Released(Release::Moved) => "moved",
        Outcome::Released(Release::Stuck) => "stuck",
        Outcome::Released(Release::Stale) => "stale",
        Outcome::Released(Release::Lost) => "fenced in a step",
    }
}

/// The name of a verdict.
pub fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Commit => "commit",
        Verdict::Retry { counted: true, .. } => "retry",
        Verdict::Retry { counted: false, .. } => "snooze",
        Verdict::Dead { reason, .. } => reason.as_str(),
        Verdict::Skip { .. } => "skip",
        Verdict::Release => "release",
    }
}

/// The name of an answer.
pub fn answer(answer: &Answer) -> &'static str {
    match answer {
        Answer::Done { .. } => "done",
        Answer::AlreadyMine => "already mine",
        Answer::Duplicate { .. } => "duplicate",
        Answer::Conflict { .. } => "conflict",
        Answer::Fenced => "fenced",
        Answer::StoreReset => "store reset",
        Answer::Invalid { .. } => "invalid",
    }
}
