//! What was asked for, and what was reached.

use super::table::{Table, thousands};
use crate::findings::p;
use crate::place::Bus;
use crate::record::Record;

/// One line: what, how much is asked for, and how it is counted on a bus (`None`: it has to do with none).
struct Line {
    what: &'static str,
    asked: &'static str,
    count: fn(&[&Record]) -> Option<String>,
}

const LINES: &[Line] = &[
    Line {
        what: "processes killed or stopped",
        asked: "≥ 2,000",
        count: |r| {
            let ended = fault(r, "stops", "stop") + fault(r, "terms", "term") + fault(r, "terms", "restart at once");
            some(ended + faults(r, &["kills", "failpoints", "killers"]))
        },
    },
    Line {
        what: "events meanwhile",
        asked: "≥ 500,000",
        count: |r| some(events(r, &["kills", "stops", "failpoints", "killers", "terms"])),
    },
    Line { what: "deaths at each failpoint", asked: "≥ 100", count: least_failpoint },
    Line { what: "points at which the store was cut off", asked: "≥ 5,000", count: |r| some(faults(r, &["power"])) },
    Line {
        what: "connections cut",
        asked: "≥ 10,000",
        count: |r| some(fault(r, "cuts", "cut") + fault(r, "ingest", "cut")),
    },
    Line { what: "reloads under load", asked: "≥ 10,000", count: |r| some(faults(r, &["reloads"])) },
    Line { what: "malformed inputs", asked: "≥ 10,000", count: |r| some(faults(r, &["malformed"])) },
    Line { what: "simulated histories", asked: "≥ 100,000", count: |r| figure(r, "simulation", "histories") },
    Line { what: "planted bugs that were caught", asked: "all, ≥ 25", count: caught },
    Line { what: "effects twice", asked: "0", count: |r| sum(r, |found| found.doubled) },
    Line { what: "effects lost beyond the promise", asked: "0", count: |r| sum(r, |found| found.lost) },
    Line { what: "attempts or deaths over budget", asked: "0", count: |r| sum(r, |found| found.overcharged) },
    Line { what: "panics", asked: "0", count: |r| sum(r, |found| found.panics) },
    Line {
        what: "recovery after a death, p99",
        asked: "≤ recovery time + 1 s",
        count: |r| recovery(r, "kills", "kill"),
    },
    Line { what: "recovery after SIGTERM, p99", asked: "≤ 1,000 ms", count: |r| recovery(r, "terms", "term") },
    Line { what: "memory of a process in the soak, more in an hour", asked: "< 1,024 KiB", count: slope },
    Line { what: "hours of soak", asked: "≥ 1", count: |r| figure(r, "soak", "hours") },
];

pub fn table(records: &[Record]) -> String {
    let mut table = Table::new(&["", "asked for", "Redis", "SQLite", "no bus"]);
    for line in LINES {
        let cell = |bus: Option<Bus>| {
            let of_bus: Vec<&Record> = records.iter().filter(|record| record.bus == bus).collect();
            (line.count)(&of_bus)
        };
        let cells = [Some(Bus::Redis), Some(Bus::Sqlite), None].map(cell);
        if cells.iter().all(Option::is_none) {
            table.row(vec![line.what.into(), line.asked.into(), "not run".into(), "not run".into(), String::new()]);
            continue;
        }
        let cells = cells.map(Option::unwrap_or_default);
        table.row([vec![line.what.to_owned(), line.asked.to_owned()], cells.to_vec()].concat());
    }
    table.text()
}

fn of<'r>(records: &[&'r Record], parts: &[&str]) -> impl Iterator<Item = &'r Record> + use<'r> {
    let of_parts: Vec<_> = records.iter().copied().filter(|record| parts.contains(&record.part.as_str())).collect();
    of_parts.into_iter()
}

fn some(count: u64) -> Option<String> {
    (count > 0).then(|| thousands(count))
}

fn faults(records: &[&Record], parts: &[&str]) -> u64 {
    of(records, parts).flat_map(|record| record.found.faults.values()).sum()
}

fn fault(records: &[&Record], part: &str, kind: &str) -> u64 {
    of(records, &[part]).filter_map(|record| record.found.faults.get(kind)).sum()
}

fn events(records: &[&Record], parts: &[&str]) -> u64 {
    of(records, parts).map(|record| record.found.events).sum()
}

fn sum(records: &[&Record], count: fn(&crate::findings::Findings) -> u64) -> Option<String> {
    (!records.is_empty()).then(|| thousands(records.iter().map(|record| count(&record.found)).sum()))
}

fn least_failpoint(records: &[&Record]) -> Option<String> {
    let record = of(records, &["failpoints"]).next()?;
    let least = record.found.faults.values().min()?;
    Some(format!("{} points, each at least {}", record.found.faults.len(), thousands(*least)))
}

fn caught(records: &[&Record]) -> Option<String> {
    let (planted, caught) = (fault(records, "bugs", "planted bug"), fault(records, "bugs", "caught"));
    (planted > 0).then(|| format!("{caught} of {planted}"))
}

fn recovery(records: &[&Record], part: &str, kind: &str) -> Option<String> {
    let times = of(records, &[part]).next().and_then(|record| record.found.recovery.get(kind))?;
    Some(format!("{} ms", thousands(p(99, times))))
}

fn figure(records: &[&Record], part: &str, name: &str) -> Option<String> {
    of(records, &[part]).next()?.found.figures.get(name).map(|value| decimal(*value))
}

/// Two digits after the point, where it has any.
fn decimal(value: f64) -> String {
    if value.fract() == 0.0 && value >= 0.0 { thousands(value as u64) } else { format!("{value:.2}") }
}

fn slope(records: &[&Record]) -> Option<String> {
    figure(records, "soak", "memory KiB more in an hour").map(|slope| format!("{slope} KiB"))
}
