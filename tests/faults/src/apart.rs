//! Parts that have to do with no bus: the simulation, and fuzzing.

use moontide_simulation::{Summary, run};

use crate::findings::Findings;
use crate::fuzz;

/// Histories of a full run.
const HISTORIES: u64 = 200_000;

/// A part that is played on no bus.
pub struct Apart {
    pub name: &'static str,
    /// One line on what it does.
    pub what: &'static str,
    /// From a seed, so much of a full run.
    pub run: fn(seed: u64, share: f64) -> Findings,
}

/// All of them.
pub const ALL: &[Apart] = &[
    Apart {
        name: "simulation",
        what: "the worker's real code against a model bus, in virtual time: histories from one seed each",
        run: simulate,
    },
    Apart { name: "fuzz", what: "any bytes where bytes come in, guided by the code that they reach", run: fuzz::run },
];

/// The part of that name.
pub fn named(name: &str) -> Option<&'static Apart> {
    ALL.iter().find(|part| part.name == name)
}

fn simulate(seed: u64, share: f64) -> Findings {
    let histories = ((HISTORIES as f64 * share) as u64).max(1000);
    let Summary { histories, events, lost, steps, faults, virtual_time, waited_max, broken, .. } =
        run(seed, histories, 0);
    let mut found = Findings { events, predicted: lost, ..Findings::default() };
    for (kind, count) in faults {
        found.fault(kind, count);
    }
    let figures = [
        ("histories", histories as f64),
        ("steps", steps as f64),
        ("hours of virtual time", virtual_time.as_secs_f64() / 3600.0),
        ("longest wait with a free slot, s", waited_max.as_secs_f64()),
    ];
    found.figures.extend(figures.map(|(name, value)| (name.to_owned(), value)));
    broken.iter().for_each(|broken| found.wrong(broken.to_string()));
    found
}
