//! What a part found, kept with the page that is written from it: `docs/reliability/PART-BUS.json`.
//!
//! Beside the page and not in `target`: a full run takes hours, and may be done in pieces, on more than one machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::findings::Findings;
use crate::place::Bus;

/// One run of one part on one bus.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub part: String,
    /// `None`: it has to do with no bus.
    pub bus: Option<Bus>,
    pub seed: u64,
    pub share: f64,
    /// Of the sources, with `+` where they were changed since; several where the run was done in pieces.
    pub commit: String,
    /// RFC 3339.
    pub date: String,
    pub command: String,
    pub machine: String,
    pub seconds: u64,
    pub found: Findings,
}

impl Record {
    /// Of what begins now: nothing is found yet.
    pub fn begin(part: &str, bus: Option<Bus>, seed: u64, share: f64) -> Self {
        Self {
            part: part.to_owned(),
            bus,
            seed,
            share,
            commit: commit(),
            date: jiff::Timestamp::now().to_string().chars().take(16).collect::<String>() + "Z",
            command: format!("scripts/faults {}", std::env::args().skip(1).collect::<Vec<_>>().join(" ")),
            machine: machine(),
            seconds: 0,
            found: Findings::default(),
        }
    }

    /// With what was found in `took`.
    pub fn end(self, took: Duration, found: Findings) -> Self {
        Self { seconds: took.as_secs(), found, ..self }
    }

    /// Together with `before`, an earlier piece of the same run: counts add up.
    pub fn added_to(mut self, before: Self) -> Self {
        let mut found = before.found;
        found.add(self.found);
        if !before.commit.split(' ').any(|commit| commit == self.commit) {
            self.commit = format!("{} {}", before.commit, self.commit);
        }
        Self { found, share: before.share + self.share, seconds: before.seconds + self.seconds, ..self }
    }

    /// Keeps it in place of the one before.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&self) -> anyhow::Result<()> {
        let file = file(&self.part, self.bus);
        std::fs::create_dir_all(folder())
            .and_then(|()| std::fs::write(&file, serde_json::to_string(self)? + "\n"))
            .with_context(|| format!("{} cannot be written", file.display()))
    }
}

/// What is kept of a part on a bus, if anything is.
///
/// # Errors
/// Where it cannot be read.
pub fn of(part: &str, bus: Option<Bus>) -> anyhow::Result<Option<Record>> {
    let file = file(part, bus);
    if file.exists() { read(&file).map(Some) } else { Ok(None) }
}

/// All records that are kept, by part and bus.
///
/// # Errors
/// Where one cannot be read.
pub fn all() -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(folder()).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "json") {
            records.push(read(&entry.path())?);
        }
    }
    records.sort_by_key(|record: &Record| (record.part.clone(), record.bus));
    Ok(records)
}

/// The root of the project.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

fn read(file: &Path) -> anyhow::Result<Record> {
    let text = std::fs::read(file).with_context(|| file.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no record", file.display()))
}

fn file(part: &str, bus: Option<Bus>) -> PathBuf {
    let bus = bus.map(|bus| format!("-{bus}")).unwrap_or_default();
    folder().join(format!("{part}{bus}.json"))
}

/// Where records lie.
pub fn folder() -> PathBuf {
    root().join("docs/reliability")
}

/// Of the sources as they are, with `+` where they were changed since.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let run = Command::new("git").args(arguments).current_dir(root()).output();
        run.map(|run| String::from_utf8_lossy(&run.stdout).trim().to_owned()).unwrap_or_default()
    };
    let changed = git(&["status", "--porcelain", "--", "src", "tests", "Cargo.lock"]);
    format!("{}{}", git(&["rev-parse", "--short=10", "HEAD"]), if changed.is_empty() { "" } else { "+" })
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(|rest| rest.split_whitespace().next());
    let gib = kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / f64::from(1 << 20);
    format!("{cores} cores ({}), {gib:.0} GiB", model.trim_start_matches([' ', '\t', ':']).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_run_add_up() {
        let piece = |commit: &str, deaths: u64| {
            let mut record = Record::begin("failpoints", Some(Bus::Redis), 7, 0.25);
            record.commit = commit.to_owned();
            record.found.fault("judge.before", deaths);
            record
        };
        let first = piece("a", 3).end(Duration::from_secs(10), piece("a", 3).found);
        let second = piece("a", 4).added_to(first);
        let third = piece("b", 5).added_to(second);
        assert_eq!(third.found.faults["judge.before"], 12);
        assert_eq!((third.commit.as_str(), third.share, third.seconds), ("a b", 0.75, 10));
    }
}
