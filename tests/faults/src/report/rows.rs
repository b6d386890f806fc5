//! Row by row of what must be survived: what the rig did about it, and which tests do.

use serde::Deserialize;

use super::table::{Table, thousands};
use crate::findings::p;
use crate::place::Bus;
use crate::record::Record;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub id: String,
    pub what: String,
    /// `part`, or `part:kind of fault`.
    #[serde(default)]
    pub rig: Vec<String>,
    #[serde(default)]
    pub tests: String,
}

#[derive(Deserialize)]
struct File {
    row: Vec<Row>,
}

pub fn all() -> Vec<Row> {
    let file: File = toml::from_str(include_str!("../../rows.toml")).expect("rows.toml is valid: a test reads it");
    file.row
}

/// What of the records belongs to a row, on one bus or without any.
#[derive(Default)]
struct Sum {
    faults: u64,
    events: u64,
    lost: u64,
    predicted: u64,
    doubled: u64,
    recovery: Vec<u64>,
}

pub fn table(records: &[Record]) -> String {
    let mut table = Table::new(&[
        "row",
        "what happens",
        "bus",
        "faults",
        "events",
        "lost",
        "predicted",
        "doubled",
        "recovery p50, p99 ms",
        "tests",
    ]);
    for row in all() {
        let mut first = true;
        for bus in [Some(Bus::Redis), Some(Bus::Sqlite), None] {
            let Some(sum) = sum(&row, records, bus) else { continue };
            let (id, what) = if first { (row.id.clone(), row.what.clone()) } else { (String::new(), String::new()) };
            let tests = if first { row.tests.clone() } else { String::new() };
            first = false;
            let recovery = match sum.recovery.as_slice() {
                [] => String::new(),
                times => format!("{}, {}", thousands(p(50, times)), thousands(p(99, times))),
            };
            let counts = [sum.faults, sum.events, sum.lost, sum.predicted, sum.doubled].map(thousands);
            let name = bus.map(|bus| bus.to_string()).unwrap_or_default();
            table.row([vec![id, what, name], counts.to_vec(), vec![recovery, tests]].concat());
        }
        if first {
            let run = if row.tests.is_empty() { "not run" } else { "not by the rig" };
            let mut cells = vec![row.id, row.what, run.into()];
            cells.extend(std::iter::repeat_n(String::new(), 6));
            cells.push(row.tests);
            table.row(cells);
        }
    }
    table.text()
}

/// `None`: nothing of it was run on that bus.
fn sum(row: &Row, records: &[Record], bus: Option<Bus>) -> Option<Sum> {
    let mut sum = None;
    for record in records.iter().filter(|record| record.bus == bus) {
        let kinds: Vec<_> = row.rig.iter().filter_map(|rig| kind(rig, &record.part)).collect();
        let counts = record
            .found
            .faults
            .iter()
            .filter(|(name, _)| kinds.iter().any(|kind| kind.is_none_or(|kind| kind == *name)));
        let faults: u64 = counts.map(|(_, count)| count).sum();
        if faults == 0 {
            continue;
        }
        let sum = sum.get_or_insert_with(Sum::default);
        sum.faults += faults;
        sum.events += record.found.events;
        sum.lost += record.found.lost;
        sum.predicted += record.found.predicted;
        sum.doubled += record.found.doubled;
        let times = record
            .found
            .recovery
            .iter()
            .filter(|(name, _)| kinds.iter().any(|kind| kind.is_none_or(|kind| kind == *name)));
        sum.recovery.extend(times.flat_map(|(_, times)| times));
    }
    sum
}

/// Which kind of fault of `part` is meant (`None`: any), if that part is.
fn kind<'r>(rig: &'r str, part: &str) -> Option<Option<&'r str>> {
    match rig.split_once(':') {
        Some((name, kind)) => (name == part).then_some(Some(kind)),
        None => (rig == part).then_some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{apart, parts};

    #[test]
    fn every_row_names_parts_that_there_are() {
        for row in all() {
            for rig in &row.rig {
                let part = rig.split(':').next().unwrap_or_default();
                let known = parts::named(part).is_some() || apart::named(part).is_some();
                assert!(known, "{}: there is no part {part}", row.id);
            }
        }
    }
}
