//! `docs/reliability.md`, written from the records of the last runs.
//!
//! Pure: from records to text. What was not run is shown as not run, and what was run for a smaller share than a full run says
//! so.

mod figures;
mod rows;
mod table;

use std::fmt::Write as _;

use crate::findings::p;
use crate::record::Record;
use table::{Table, thousands};

const INTRODUCTION: &str = "# Reliability

What Moontide was put through, and what was lost or doubled. This page is written by the fault rig (`scripts/faults report`)
from its last runs: processes of the real binary over real stores, numbered events, faults from a seed, and a checker that
compares what a store holds in the end with what it must hold. `scripts/faults run` plays everything again, which takes
some hours (in pieces, with `--add` and `--share`, where there is less time); `scripts/faults list` says what there is, and
`scripts/test` plays a small share of it with every test run. What the page is written from lies in `docs/reliability`.

Words: an effect is *lost* if it is missing though nothing allows that. It is *predicted* if the promise for that fault allows
its loss (a server that keeps nothing on disk and is flushed, a log that was cut off), and the rig said before it looked
that it would be missing. It is *doubled* if it is there twice. *Overcharged* are attempts beyond a budget, and events given
up for deaths that were not theirs.
";

/// The page.
pub fn page(records: &[Record], defects: &str) -> String {
    let mut page = INTRODUCTION.to_owned();
    section(&mut page, "What was asked for, and what was reached", &figures::table(records));
    section(&mut page, "Part by part", &parts(records));
    section(&mut page, "Recovery", &recovery(records));
    section(&mut page, "Row by row", &rows::table(records));
    section(&mut page, "Soak", &measured(records, &["soak"]));
    section(
        &mut page,
        "Other figures",
        &measured(records, &["reloads", "simulation", "fuzz", "failpoints", "power", "outages"]),
    );
    section(&mut page, "What the rig found", defects);
    section(&mut page, "How it was run", &runs(records));
    page
}

fn section(page: &mut String, title: &str, text: &str) {
    write!(page, "\n## {title}\n\n{}\n", text.trim_end()).expect("a text takes more text");
}

fn parts(records: &[Record]) -> String {
    let mut table =
        Table::new(&["part", "bus", "faults", "events", "lost", "predicted", "doubled", "overcharged", "panics", ""]);
    for record in records {
        let found = &record.found;
        let counts =
            [faults(record), found.events, found.lost, found.predicted, found.doubled, found.overcharged, found.panics];
        let mut cells = vec![record.part.clone(), bus(record)];
        cells.extend(counts.map(thousands));
        cells.push(if found.is_clean() { String::new() } else { "not clean".into() });
        table.row(cells);
    }
    table.text()
}

fn recovery(records: &[Record]) -> String {
    let mut table = Table::new(&["part", "bus", "after", "times", "p50 ms", "p99 ms", "longest ms", "at most ms"]);
    for record in records {
        for (kind, times) in &record.found.recovery {
            let most = record.found.bounds.get(kind).map(|bound| thousands(*bound)).unwrap_or_default();
            let longest = times.iter().copied().max().unwrap_or(0);
            let figures = [times.len() as u64, p(50, times), p(99, times), longest].map(thousands);
            table.row([vec![record.part.clone(), bus(record), kind.clone()], figures.to_vec(), vec![most]].concat());
        }
    }
    table.text()
}

fn measured(records: &[Record], parts: &[&str]) -> String {
    let mut table = Table::new(&["part", "bus", "figure", "value"]);
    for record in records.iter().filter(|record| parts.contains(&record.part.as_str())) {
        for (name, value) in &record.found.figures {
            table.row(vec![record.part.clone(), bus(record), name.clone(), format!("{value:.1}")]);
        }
    }
    table.text()
}

fn runs(records: &[Record]) -> String {
    let mut table = Table::new(&["part", "bus", "date", "commit", "share", "seconds", "seed", "command", "machine"]);
    for record in records {
        table.row(vec![
            record.part.clone(),
            bus(record),
            record.date.clone(),
            record.commit.clone(),
            if record.share >= 1.0 { "full".into() } else { format!("{:.1} %", record.share * 100.0) },
            thousands(record.seconds),
            record.seed.to_string(),
            format!("`{}`", record.command),
            record.machine.clone(),
        ]);
    }
    table.text()
}

fn bus(record: &Record) -> String {
    record.bus.map(|bus| bus.to_string()).unwrap_or_default()
}

fn faults(record: &Record) -> u64 {
    record.found.faults.values().sum()
}
