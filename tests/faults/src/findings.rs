//! What a part counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Sums over all rounds of a part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// Faults by kind: `kill`, `stop`, `cut`.
    pub faults: BTreeMap<String, u64>,
    /// Events that a handler had to handle, those that handlers emitted included.
    pub events: u64,
    /// Effects that are missing though no promise allows it.
    pub lost: u64,
    /// Effects that are missing as the promise for this fault allows, each predicted before it was looked for.
    pub predicted: u64,
    /// Effects that are there more than once.
    pub doubled: u64,
    /// Attempts beyond a budget, and events given up for deaths that were not theirs.
    pub overcharged: u64,
    pub panics: u64,
    /// Time from a fault until nothing was left in the hands of its victim, in milliseconds, by kind of fault.
    pub recovery: BTreeMap<String, Vec<u64>>,
    /// What those times must stay below, by kind, in milliseconds.
    pub bounds: BTreeMap<String, u64>,
    /// Figures of this part alone; those of its rounds are added up.
    pub figures: BTreeMap<String, f64>,
    /// What was wrong, in words, with the line that plays it again; not all of it, if it is a lot.
    pub wrong: Vec<String>,
}

/// Texts kept of what was wrong.
const WRONG_MAX: usize = 50;

impl Findings {
    /// `count` faults of `kind` were provoked.
    pub fn fault(&mut self, kind: &str, count: u64) {
        *self.faults.entry(kind.to_owned()).or_default() += count;
    }

    pub fn recovered(&mut self, kind: &str, after: Duration) {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.recovery.entry(kind.to_owned()).or_default().push(millis);
    }

    /// Recovery from faults of `kind` must stay below `longest`.
    pub fn bound(&mut self, kind: &str, longest: Duration) {
        self.bounds.insert(kind.to_owned(), u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
    }

    pub fn wrong(&mut self, text: String) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(text);
        }
    }

    /// The same for what says why, or how to see it again: it comes first, and pushes out what is too much.
    pub fn wrong_first(&mut self, text: String) {
        self.wrong.truncate(WRONG_MAX - 1);
        self.wrong.insert(0, text);
    }

    pub fn add(&mut self, other: Self) {
        for (kind, count) in other.faults {
            self.fault(&kind, count);
        }
        self.events += other.events;
        self.lost += other.lost;
        self.predicted += other.predicted;
        self.doubled += other.doubled;
        self.overcharged += other.overcharged;
        self.panics += other.panics;
        for (kind, times) in other.recovery {
            self.recovery.entry(kind).or_default().extend(times);
        }
        self.bounds.extend(other.bounds);
        for (name, value) in other.figures {
            *self.figures.entry(name).or_default() += value;
        }
        other.wrong.into_iter().for_each(|text| self.wrong(text));
    }

    /// Whether everything that was promised was kept.
    pub fn is_clean(&self) -> bool {
        let late = |(kind, bound): (&String, &u64)| self.recovery.get(kind).is_some_and(|times| p(99, times) > *bound);
        self.is_exact() && !self.bounds.iter().any(late)
    }

    /// Whether nothing is lost, doubled or overcharged, however long it took.
    pub fn is_exact(&self) -> bool {
        self.lost + self.doubled + self.overcharged + self.panics == 0 && self.wrong.is_empty()
    }
}

/// The `percent`-th percentile of `times`; 0 of none.
pub fn p(percent: usize, times: &[u64]) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<u64> = (1..=200).rev().collect();
        assert_eq!((p(50, &times), p(99, &times), p(50, &[7]), p(99, &[])), (100, 198, 7, 0));
    }

    #[test]
    fn what_takes_too_long_is_not_clean() {
        let mut found = Findings::default();
        found.recovered("kill", Duration::from_millis(900));
        found.bounds.insert("kill".into(), 1000);
        assert!(found.is_clean());
        (0..2).for_each(|_| found.recovered("kill", Duration::from_millis(1100)));
        assert!(!found.is_clean());
    }
}
