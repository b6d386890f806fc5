//! What really happened to each event, as only the simulation can know it, and what must never happen on the way.
//!
//! Looks at every delivery, run and applied settle. What must hold at the end is `check`'s.

use std::collections::BTreeMap;

use moontide::bus::{Answer, CRASH_BUDGET, Delivery, ORPHANED_ALONE};
use moontide::judge::{DeathReason, Verdict};

use crate::editions::{ATTEMPTS, GROUPS};
use crate::events::{CHILDREN, Number, number};
use crate::store::{Elapsed, ProcessId};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// I1 to I7 of the failures that must be survived.
    pub invariant: &'static str,
    pub text: String,
}

/// What became of one event in one group.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    pub commits: u32,
    pub letters: u32,
    pub skips: u32,
    /// Counted retries that were stored.
    pub counted: u32,
    pub snoozed: u32,
    /// Why it was given up.
    pub reason: Option<DeathReason>,
    /// Processes that it ended, and threads.
    pub killed: u32,
    pub stuck: u32,
    /// Processes that died under its mark.
    pub charged: u32,
    /// Of those: ended by another event.
    pub blamed: u32,
    /// Of those: by one that ran under its mark too.
    pub blamed_beside: u32,
    held_by: Option<ProcessId>,
    marked_by: Option<ProcessId>,
    /// Who ever wrote its mark: one that is cut off may go on with what was taken over from it.
    markers: Vec<ProcessId>,
    /// Free time of its group when it began to wait.
    waiting: Option<Elapsed>,
}

/// The event that ended a process.
#[derive(Clone, Copy, Debug)]
struct Cause {
    number: Number,
    /// It ran under its mark.
    marked: bool,
}

/// Everything that is known.
#[derive(Default)]
pub struct Truth {
    fates: [BTreeMap<Number, Fate>; GROUPS.len()],
    /// Published, and not lost with the store.
    pub published: Vec<Number>,
    /// Published and lost with the store.
    pub lost: Vec<Number>,
    /// Which event ended a process; `None`: it was a fault.
    dead: BTreeMap<ProcessId, Option<Cause>>,
    /// When each process last said that it lives.
    beats: BTreeMap<ProcessId, Elapsed>,
    /// The longest that an event waited although there was a free slot, in milliseconds.
    pub waited_max: Elapsed,
    pub violations: Vec<Violation>,
    pub tallies: BTreeMap<&'static str, u64>,
}

/// Place of a group.
pub fn place(group: &str) -> usize {
    GROUPS.iter().position(|name| *name == group).expect("every group is a handler of ours")
}

impl Truth {
    pub fn fate(&mut self, group: &str, number: Number) -> &mut Fate {
        self.fates[place(group)].entry(number).or_default()
    }

    /// Every event that is known in a group.
    pub fn fates(&self, group: &str) -> &BTreeMap<Number, Fate> {
        &self.fates[place(group)]
    }

    pub fn violation(&mut self, invariant: &'static str, text: String) {
        self.violations.push(Violation { invariant, text });
    }

    pub fn tally(&mut self, what: &'static str) {
        *self.tallies.entry(what).or_default() += 1;
    }

    /// The store is empty.
    pub fn reset(&mut self) {
        self.lost.append(&mut self.published);
        self.fates.iter_mut().for_each(BTreeMap::clear);
    }

    /// It could be claimed from now on; `free` is the free time of its group.
    pub fn ready(&mut self, group: &str, number: Number, free: Elapsed) {
        self.fate(group, number).waiting.get_or_insert(free);
    }

    /// Somebody who lives has it in hand.
    pub fn in_hand(&mut self, group: &str, number: Number) {
        self.fate(group, number).waiting = None;
    }

    /// A process died; `cause`: of an event.
    pub fn died(&mut self, process: ProcessId, cause: Option<Number>) {
        let marked = |number| {
            self.fates.iter().any(|fates| fates.get(&number).is_some_and(|fate| fate.marked_by == Some(process)))
        };
        let cause = cause.map(|number| Cause { number, marked: marked(number) });
        self.dead.insert(process, cause);
    }

    fn is_lost(&self, number: Number) -> bool {
        self.lost.contains(&number) || number.checked_sub(CHILDREN).is_some_and(|parent| self.lost.contains(&parent))
    }

    /// A process said that it lives.
    pub fn beat(&mut self, process: ProcessId, now: Elapsed) {
        self.beats.insert(process, now);
    }

    /// A living process got it.
    pub fn received(
        &mut self,
        group: &str,
        process: ProcessId,
        delivery: &Delivery,
        (now, recovery): (Elapsed, Elapsed),
    ) {
        let number = number(delivery);
        let from = self.fate(group, number).held_by.replace(process).filter(|from| *from != process);
        if let Some(from) = from
            && self.beats.get(&from).is_some_and(|beat| now - beat < recovery)
        {
            self.violation("I6", format!("{group} of {process} took {number} from {from}, which is alive"));
        }
        let marked_by = self.fate(group, number).marked_by.take_if(|by| *by != process);
        if let Some(by) = marked_by {
            let cause = self.dead.get(&by).copied().flatten().filter(|cause| cause.number != number);
            let fate = self.fate(group, number);
            fate.charged += 1;
            fate.blamed += u32::from(cause.is_some());
            fate.blamed_beside += u32::from(cause.is_some_and(|cause| cause.marked));
        }
        let charged = self.fate(group, number).charged;
        if delivery.deaths != charged {
            let text = format!("{group} is told that {number} has {} deaths, and it has {charged}", delivery.deaths);
            self.violation("I3", text);
        }
    }

    /// A suspect is marked as running alone.
    pub fn marked(&mut self, group: &str, process: ProcessId, number: Number) {
        let fate = self.fate(group, number);
        fate.marked_by = Some(process);
        fate.markers.push(process);
    }

    /// The process's inbox closed: it holds nothing any more, and what it had marked counts no more.
    pub fn gave_back(&mut self, group: &str, process: ProcessId) {
        for fate in self.fates[place(group)].values_mut() {
            fate.held_by.take_if(|by| *by == process);
            fate.marked_by.take_if(|by| *by == process);
        }
    }

    /// A run begins; `free` is the free time of its group, `bound` how much of it is too much.
    pub fn runs(&mut self, group: &str, process: ProcessId, delivery: &Delivery, free: Elapsed, bound: Elapsed) {
        let number = number(delivery);
        let suspect = delivery.orphaned >= ORPHANED_ALONE || delivery.deaths > 0;
        let fate = self.fate(group, number);
        let (waiting, marked) = (fate.waiting.take(), fate.markers.contains(&process));
        if suspect && !marked && !self.is_lost(number) {
            self.violation("I3", format!("{group} runs the suspect {number} without its mark"));
        }
        if delivery.deaths >= CRASH_BUDGET {
            self.violation("I3", format!("{group} runs {number}, which has used up its crash budget"));
        }
        if delivery.attempt() > ATTEMPTS {
            self.violation("I3", format!("{group} runs {number} for the {}. time", delivery.attempt()));
        }
        let Some(waited) = waiting.filter(|_| !suspect).map(|since| free - since) else { return };
        self.waited_max = self.waited_max.max(waited);
        if waited > bound {
            let text = format!("{number} waited {waited} ms for {group} although it had room, more than {bound} ms");
            self.violation("I4", text);
        }
    }

    /// A settle was applied, or refused.
    pub fn settled(&mut self, group: &str, delivery: &Delivery, verdict: &Verdict, answer: &Answer) {
        let number = number(delivery);
        let fate = self.fate(group, number);
        match answer {
            Answer::Done { .. } => {}
            Answer::Duplicate { .. } => {
                fate.skips += 1;
                return fate.ended();
            }
            _ => return,
        }
        let attempt = fate.counted + 1;
        match verdict {
            Verdict::Commit => fate.commits += 1,
            Verdict::Skip { .. } => fate.skips += 1,
            Verdict::Retry { counted: true, .. } => fate.counted += 1,
            Verdict::Retry { .. } => fate.snoozed += 1,
            Verdict::Dead { reason, .. } => (fate.letters, fate.reason) = (fate.letters + 1, Some(*reason)),
            Verdict::Release => return fate.given_back(),
        }
        if matches!(verdict, Verdict::Retry { .. }) {
            // Another entry, which nothing is known of yet.
            fate.charged = 0;
        }
        fate.ended();
        if delivery.attempt() != attempt {
            let text =
                format!("{group} takes this for attempt {} of {number}, and it is {attempt}", delivery.attempt());
            self.violation("I3", text);
        }
    }
}

impl Fate {
    fn given_back(&mut self) {
        (self.held_by, self.marked_by) = (None, None);
    }

    fn ended(&mut self) {
        (self.held_by, self.marked_by, self.waiting) = (None, None, None);
    }

    /// How often it ended.
    pub fn ends(&self) -> u32 {
        self.commits + self.letters + self.skips
    }
}
