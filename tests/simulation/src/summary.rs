//! What many histories came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::history::History;
use crate::plan::Plan;
use crate::truth::Violation;

/// Lines of a trace that are kept of a broken history.
const TRACE_LINES: usize = 60;

/// What many histories came to.
#[derive(Debug, Default)]
pub struct Summary {
    pub histories: u64,
    /// Published from outside, children not counted.
    pub events: u64,
    /// Of those: lost with a store that was reset, as predicted.
    pub lost: u64,
    pub steps: u64,
    /// By name.
    pub faults: BTreeMap<&'static str, u64>,
    /// How long the histories took, in their own time.
    pub virtual_time: Duration,
    /// The longest that an event waited although a slot was free for it.
    pub waited_max: Duration,
    /// The longest from the last fault until everything had ended.
    pub quiet_after_max: Duration,
    pub broken: Vec<Broken>,
}

/// A history in which something was that must not be.
#[derive(Debug)]
pub struct Broken {
    pub seed: u64,
    pub violations: Vec<Violation>,
    /// Its last steps.
    pub trace: String,
}

impl Summary {
    /// Takes in a history.
    pub fn add(&mut self, seed: u64, history: History) {
        let millis = |millis: i64| Duration::from_millis(millis.unsigned_abs());
        let History { truth, trace, lasted, quiet_after, events } = history;
        self.histories += 1;
        self.events += events;
        self.lost += truth.lost.len() as u64;
        self.steps += trace.len() as u64;
        self.virtual_time += millis(lasted);
        self.waited_max = self.waited_max.max(millis(truth.waited_max));
        self.quiet_after_max = self.quiet_after_max.max(millis(quiet_after));
        for (fault, count) in Plan::of(seed).tallies().into_iter().chain(truth.tallies) {
            *self.faults.entry(fault).or_default() += count;
        }
        if !truth.violations.is_empty() {
            self.broken.push(Broken { seed, violations: truth.violations, trace: trace.end(TRACE_LINES) });
        }
    }

    /// Both together.
    pub fn with(mut self, other: Self) -> Self {
        self.histories += other.histories;
        self.events += other.events;
        self.lost += other.lost;
        self.steps += other.steps;
        self.virtual_time += other.virtual_time;
        self.waited_max = self.waited_max.max(other.waited_max);
        self.quiet_after_max = self.quiet_after_max.max(other.quiet_after_max);
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.broken.extend(other.broken);
        self.broken.sort_by_key(|broken| broken.seed);
        self
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histories, events, lost, steps, .. } = self;
        writeln!(f, "{histories} histories, {events} events ({lost} lost with a store, as predicted), {steps} steps")?;
        writeln!(f, "virtual time {:.1} h", self.virtual_time.as_secs_f64() / 3600.0)?;
        writeln!(f, "longest wait with a free slot {:?}", self.waited_max)?;
        writeln!(f, "longest from the last fault to the end {:?}", self.quiet_after_max)?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {count:>10} {fault}")?;
        }
        writeln!(f, "{} histories broke a promise", self.broken.len())?;
        self.broken.iter().take(5).try_for_each(|broken| write!(f, "{broken}"))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nseed {}:", self.seed)?;
        for Violation { invariant, text } in &self.violations {
            writeln!(f, "  {invariant}: {text}")?;
        }
        writeln!(f, "the end of its trace:\n{}", self.trace)?;
        let seed = self.seed;
        writeln!(f, "repeat it: cargo run --release -p moontide-simulation -- --seed {seed} --histories 1 --trace")
    }
}
