//! A long run of every fuzz target, by `scripts/fuzz`, and what libFuzzer says of it.

use std::path::Path;
use std::process::Command;

use crate::findings::Findings;
use crate::record::root;

/// Seconds of each target in a full run, and in the shortest.
const SECONDS: u64 = 300;
const SECONDS_MIN: u64 = 10;

/// What libFuzzer says at the end.
#[derive(Debug, PartialEq)]
struct Stats {
    inputs: u64,
    /// Places in the code that were reached.
    covered: u64,
    /// Inputs that reach something which no other does.
    kept: u64,
}

pub fn run(_seed: u64, share: f64) -> Findings {
    let seconds = ((SECONDS as f64 * share) as u64).max(SECONDS_MIN);
    let mut found = Findings::default();
    for target in targets() {
        let run = Command::new(root().join("scripts/fuzz")).args([&target, &seconds.to_string()]).output();
        let run = run.expect("scripts/fuzz is part of the repository");
        let said = String::from_utf8_lossy(&run.stderr);
        match stats(&said).filter(|_| run.status.success()) {
            Some(stats) => {
                found.fault("input", stats.inputs);
                found.figures.insert(format!("{target}: inputs"), stats.inputs as f64);
                found.figures.insert(format!("{target}: places reached"), stats.covered as f64);
                found.figures.insert(format!("{target}: inputs kept"), stats.kept as f64);
            }
            None => {
                found.panics += 1;
                let from = said.lines().count().saturating_sub(40);
                found.wrong(format!("{target}:\n{}", said.lines().skip(from).collect::<Vec<_>>().join("\n")));
            }
        }
    }
    found
}

/// Those that have kept inputs, which a test of theirs holds to be all.
fn targets() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn stats(said: &str) -> Option<Stats> {
    let number = |text: &str| text.split(['/', ' ']).find(|part| !part.is_empty())?.parse().ok();
    let last = said.lines().rev().find(|line| line.contains(" cov: "))?;
    let after = |line: &str, name: &str| number(line.split_once(name)?.1);
    let inputs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    Some(Stats { inputs: number(inputs)?, covered: after(last, " cov: ")?, kept: after(last, " corp: ")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_at_the_end_counts() {
        let said = "#2\tINITED cov: 7 ft: 8 corp: 1/4b exec/s: 0 rss: 38Mb\n\
                    #90\tDONE   cov: 2715 ft: 9113 corp: 412/19Kb lim: 8192 exec/s: 3 rss: 71Mb\n\
                    Done 90 runs in 31 second(s)\nstat::number_of_executed_units: 90\nstat::average_exec_per_sec:     2\n";
        assert_eq!(stats(said), Some(Stats { inputs: 90, covered: 2715, kept: 412 }));
        assert_eq!(stats("error: it does not build"), None);
    }

    #[test]
    fn there_are_targets() {
        assert!(targets().contains(&"envelope".to_owned()));
    }
}
