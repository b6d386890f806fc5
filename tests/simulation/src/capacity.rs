//! Who could run something right now: the free time of each group, for which nothing may wait for long.
//!
//! Virtual time stands still while anybody can do something, so that this is exact: a slot that is free for no time at
//! all was taken at once.

use std::collections::BTreeMap;

use crate::editions::GROUPS;
use crate::store::{Elapsed, ProcessId};

/// What one process can do for one group.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Runs in flight that its version allows; 0: nobody serves.
    pub concurrency: usize,
    pub running: usize,
    /// Its last call for more failed: it waits before the next one.
    pub failing: bool,
    /// It waits for the answer to a mark.
    pub marking: bool,
    /// Alive, not standing still, not cut off, not about to end.
    pub well: bool,
    free: Clock,
}

/// Time that passed while something was so.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    total: Elapsed,
    since: Option<Elapsed>,
}

impl Clock {
    fn set(&mut self, runs: bool, now: Elapsed) {
        match (runs, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => (self.total, self.since) = (self.total + now - since, None),
            _ => {}
        }
    }

    fn at(&self, now: Elapsed) -> Elapsed {
        self.total + self.since.map_or(0, |since| now - since)
    }
}

/// All processes and groups.
#[derive(Default)]
pub struct Capacity {
    loads: [BTreeMap<ProcessId, Load>; GROUPS.len()],
    free: [Clock; GROUPS.len()],
}

impl Capacity {
    /// Changes what a process can do for a group.
    pub fn change(&mut self, group: usize, process: ProcessId, now: Elapsed, change: impl FnOnce(&mut Load)) {
        let load = self.loads[group].entry(process).or_default();
        change(load);
        let has_room = load.well && load.running < load.concurrency;
        load.free.set(has_room && !load.marking, now);
        let free = self.loads[group].values().any(|load| load.well && !load.failing && load.running < load.concurrency);
        self.free[group].set(free, now);
    }

    /// As [`Capacity::change`], for all groups of a process.
    pub fn change_all(&mut self, process: ProcessId, now: Elapsed, change: impl Fn(&mut Load)) {
        (0..GROUPS.len()).for_each(|group| self.change(group, process, now, &change));
    }

    /// How long anybody had room for the group.
    pub fn free(&self, group: usize, now: Elapsed) -> Elapsed {
        self.free[group].at(now)
    }

    /// How long this process had.
    pub fn free_at(&self, group: usize, process: ProcessId, now: Elapsed) -> Elapsed {
        self.loads[group].get(&process).map_or(0, |load| load.free.at(now))
    }
}
