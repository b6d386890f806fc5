//! What is to happen in a history, drawn from its seed: events, what each does when it is run, faults, and how slow and
//! unreliable everything is.
//!
//! A plan is data; a seed is a plan and every choice made on the way, so that the same seed is the same history.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::editions::{ATTEMPTS, COUNT, KINDS};
use crate::events::Number;
use crate::store::Elapsed;

/// Faults begin, and events are published, within so many milliseconds.
pub const SPAN: Elapsed = 15_000;
/// State keys that many events count in.
const SUMS: u8 = 2;

/// A history before it happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub processes: usize,
    /// A process that was silent for so many milliseconds is dead.
    pub recovery: Elapsed,
    pub events: Vec<Planned>,
    /// By when.
    pub faults: Vec<(Elapsed, Fault)>,
    /// Each way of each call takes up to so many milliseconds.
    pub latency_max: u64,
    /// How many of a hundred calls fail.
    pub failing: u32,
    /// How many of a hundred settles arrive very late.
    pub late: u32,
    /// How many of a hundred polls are put off.
    pub shaken: u32,
    /// How long a process that died stays away at most.
    pub restart_max: u64,
    /// Others may take dead letters away.
    pub shared_letters: bool,
}

/// An event that is published from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub at: Elapsed,
    pub kind: &'static str,
    pub script: Script,
    /// The number whose id it has: its own, or that of an earlier event of its kind with the same script.
    pub same_as: Number,
}

/// What a run of an event does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Script {
    Count,
    /// Reads a key that others write, and adds to what it read.
    Sum {
        key: u8,
    },
    /// The same with all keys, in the one order or the other.
    SumAll {
        backwards: bool,
    },
    Emit {
        delay: u64,
    },
    Slow {
        millis: u64,
    },
    /// Fails in its first attempts.
    Fail {
        times: u32,
    },
    /// Asks for another attempt.
    Ask {
        times: u32,
        millis: u64,
    },
    Snooze {
        times: u32,
        millis: u64,
    },
    Reject,
    /// It is no event.
    Garbage,
    /// It has no idempotency key.
    NoKey,
    /// Adds to what is no number.
    AddToText,
    /// Ends the process that runs it.
    Kill {
        times: u32,
    },
    /// Cannot be interrupted and costs its thread.
    Stuck {
        times: u32,
    },
    /// Takes all memory of its VM.
    Bomb {
        times: u32,
    },
}

/// What happens to processes, the store, and what is between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Kill {
        slot: usize,
    },
    /// Stands still for so many milliseconds, and goes on.
    Stall {
        slot: usize,
        millis: u64,
    },
    /// Is asked to end.
    Stop {
        slot: usize,
    },
    /// The handlers folder becomes another one.
    Reload {
        slot: usize,
        folder: usize,
    },
    StoreClock {
        millis: i64,
    },
    ProcessClock {
        slot: usize,
        millis: i64,
    },
    /// Calls are not answered, or refused at once; `None`: to all.
    Cut {
        slot: Option<usize>,
        millis: u64,
        silent: bool,
    },
    /// Everything that is stored is gone.
    Reset,
    /// Dead letters are refused.
    RefuseLetters {
        millis: u64,
    },
}

impl Fault {
    /// Its name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill { .. } => "process killed",
            Self::Stall { .. } => "process stalled",
            Self::Stop { .. } => "process stopped",
            Self::Reload { .. } => "handlers reloaded",
            Self::StoreClock { .. } => "store clock stepped",
            Self::ProcessClock { .. } => "process clock stepped",
            Self::Cut { slot: Some(_), .. } => "process cut off",
            Self::Cut { slot: None, .. } => "store away",
            Self::Reset => "store reset",
            Self::RefuseLetters { .. } => "dead letters refused",
        }
    }
}

impl Script {
    /// Whether a run that comes to its end emits a child.
    pub fn emits(self) -> bool {
        matches!(self, Self::Emit { .. } | Self::Sum { .. } | Self::Fail { .. } | Self::Kill { .. })
    }

    /// Which sums a run that comes to its end adds one to.
    pub fn sums(self) -> Vec<u8> {
        match self {
            Self::Sum { key } => vec![key],
            Self::SumAll { backwards: false } => (0..SUMS).collect(),
            Self::SumAll { backwards: true } => (0..SUMS).rev().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it may be given up as a killer.
    pub fn is_killer(self) -> bool {
        matches!(self, Self::Kill { .. } | Self::Stuck { .. })
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let processes = rng.random_range(1..=3);
        let recovery = rng.random_range(2..=6) * 1000;
        let events = events(rng);
        let shared_letters = rng.random_bool(0.3);
        Self {
            processes,
            recovery,
            events,
            faults: faults(rng, processes, recovery, shared_letters),
            latency_max: *[0, 3, 40].choose(rng).expect("there are some"),
            failing: *[0, 0, 3, 12].choose(rng).expect("there are some"),
            late: *[0, 0, 2].choose(rng).expect("there are some"),
            shaken: *[0, 20, 50].choose(rng).expect("there are some"),
            restart_max: *[0, 500, 8000].choose(rng).expect("there are some"),
            shared_letters,
        }
    }

    /// Whether no process ends.
    pub fn is_calm(&self) -> bool {
        self.faults.is_empty() && !self.events.iter().any(|event| matches!(event.script, Script::Kill { .. }))
    }

    /// How often each kind of fault is planned.
    pub fn tallies(&self) -> Vec<(&'static str, u64)> {
        let faults = self.faults.iter().map(|(_, fault)| (fault.name(), 1));
        let duplicates = self.events.iter().enumerate().filter(|(number, event)| event.same_as != *number).count();
        let of = |is: fn(Script) -> bool| self.events.iter().filter(|event| is(event.script)).count() as u64;
        let scripts = [
            ("duplicate published", duplicates as u64),
            ("event that kills", of(|script| matches!(script, Script::Kill { .. }))),
            ("event that is stuck", of(|script| matches!(script, Script::Stuck { .. }))),
            ("event that takes all memory", of(|script| matches!(script, Script::Bomb { .. }))),
        ];
        faults.chain(scripts).collect()
    }
}

fn events(rng: &mut SmallRng) -> Vec<Planned> {
    let count = rng.random_range(6..=28);
    // A storm: nearly everything wants the same keys.
    let storm = rng.random_bool(0.2);
    let poison = *[0.0, 0.1, 0.4].choose(rng).expect("there are some");
    let mut events: Vec<Planned> = Vec::new();
    let mut at = 0;
    for number in 0..count {
        // In bursts.
        if rng.random_bool(0.4) {
            at += rng.random_range(0..2 * SPAN / count as Elapsed);
        }
        let at = at.min(SPAN);
        let kind = *KINDS.choose(rng).expect("there are some");
        let script = script(rng, storm, poison);
        let twin = (number > 0 && rng.random_bool(0.08)).then(|| rng.random_range(0..number));
        events.push(match twin.filter(|twin| has_key(events[*twin].script)) {
            Some(twin) => Planned { at, same_as: events[twin].same_as, ..events[twin].clone() },
            None => Planned { at, kind, script, same_as: number },
        });
    }
    events
}

/// Whether it has an idempotency key at all.
fn has_key(script: Script) -> bool {
    !matches!(script, Script::Garbage | Script::NoKey)
}

fn script(rng: &mut SmallRng, storm: bool, poison: f64) -> Script {
    let times = |rng: &mut SmallRng| rng.random_range(1..=ATTEMPTS + 1);
    let millis = |rng: &mut SmallRng| rng.random_range(1..3000);
    if rng.random_bool(poison) {
        let deaths = *[1, 2, 3, u32::MAX].choose(rng).expect("there are some");
        return match rng.random_range(0..4) {
            0 | 1 => Script::Kill { times: deaths },
            2 => Script::Stuck { times: deaths },
            _ => Script::Bomb { times: times(rng) },
        };
    }
    if storm && rng.random_bool(0.8) {
        return Script::Sum { key: 0 };
    }
    match rng.random_range(0..14) {
        0 | 1 => Script::Count,
        2 | 3 => Script::Sum { key: rng.random_range(0..SUMS) },
        4 => Script::SumAll { backwards: rng.random() },
        5 => Script::Emit { delay: if rng.random() { 0 } else { millis(rng) } },
        6 => Script::Slow { millis: millis(rng) },
        7 | 8 => Script::Fail { times: times(rng) },
        9 => Script::Ask { times: times(rng), millis: millis(rng) },
        10 => Script::Snooze { times: times(rng), millis: millis(rng) },
        11 => Script::Reject,
        12 => Script::AddToText,
        _ => *[Script::Garbage, Script::NoKey].choose(rng).expect("there are some"),
    }
}

fn faults(rng: &mut SmallRng, processes: usize, recovery: Elapsed, shared_letters: bool) -> Vec<(Elapsed, Fault)> {
    let count = *[0, 2, 4, 8].choose(rng).expect("there are some");
    // An event whose key a letter holds asks again until it is old enough, ten times a second while the clock says it is not.
    let step_max = if shared_letters { 60_000 } else { 3_600_000 };
    let mut faults: Vec<_> =
        (0..count).map(|_| (rng.random_range(0..=SPAN), fault(rng, processes, recovery, step_max))).collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn fault(rng: &mut SmallRng, processes: usize, recovery: Elapsed, step_max: i64) -> Fault {
    let slot = rng.random_range(0..processes);
    let recovery = recovery as u64;
    match rng.random_range(0..20) {
        0..=4 => Fault::Kill { slot },
        5..=7 => Fault::Stall { slot, millis: rng.random_range(1..3 * recovery) },
        8 | 9 => Fault::Stop { slot },
        10..=13 => Fault::Reload { slot, folder: rng.random_range(0..COUNT) },
        14 => Fault::StoreClock { millis: rng.random_range(-step_max..=step_max) },
        15 => Fault::ProcessClock { slot, millis: rng.random_range(-86_400_000..=86_400_000) },
        16 => Fault::Cut { slot: Some(slot), millis: rng.random_range(1..2 * recovery), silent: rng.random() },
        17 => Fault::Cut { slot: None, millis: rng.random_range(1..2 * recovery), silent: rng.random() },
        18 => Fault::RefuseLetters { millis: rng.random_range(1..8000) },
        _ if rng.random_bool(0.5) => Fault::Reset,
        _ => Fault::Kill { slot },
    }
}
