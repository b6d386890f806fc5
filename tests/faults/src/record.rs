//! What a part found, kept until the report is written: `target/faults/PART-BUS.json`.

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
    /// Of the sources, with `+` where they were changed since.
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

    /// Keeps it in place of the one before.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&self) -> anyhow::Result<()> {
        let bus = self.bus.map(|bus| format!("-{bus}")).unwrap_or_default();
        let file = folder().join(format!("{}{bus}.json", self.part));
        std::fs::create_dir_all(folder())
            .and_then(|()| std::fs::write(&file, serde_json::to_vec_pretty(self)?))
            .with_context(|| format!("{} cannot be written", file.display()))
    }
}

/// All records that are kept, by part and bus.
///
/// # Errors
/// Where one cannot be read.
pub fn all() -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(folder()).into_iter().flatten().flatten() {
        let text = std::fs::read(entry.path())?;
        records
            .push(serde_json::from_slice(&text).with_context(|| format!("{} is no record", entry.path().display()))?);
    }
    records.sort_by_key(|record: &Record| (record.part.clone(), record.bus));
    Ok(records)
}

/// The root of the project.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

fn folder() -> PathBuf {
    root().join("target/faults")
}

fn commit() -> String {
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
