//! Which planted bugs were caught, over several runs: `docs/reliability/planted-bugs.jsonl`, a line each.
//!
//! A trial counts as long as the bug reads as it did then, the line that it changes included; all of them take an hour, and a
//! run that is broken off, or that plants only some, is not for nothing.

use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::bugs::Bug;
use crate::findings::Findings;
use crate::record::{commit, folder};

/// One bug, planted once.
#[derive(Serialize, Deserialize)]
struct Trial {
    bug: Bug,
    /// Of the sources that it was planted in.
    commit: String,
    caught: bool,
}

/// Keeps what became of a bug, in place of what was known of it.
///
/// # Errors
/// Where the file that they are kept in cannot be read or written.
pub fn keep(bug: &Bug, caught: bool) -> anyhow::Result<()> {
    let mut trials = all()?;
    trials.retain(|trial| trial.bug.name != bug.name);
    trials.push(Trial { bug: bug.clone(), commit: commit(), caught });
    let lines = trials.iter().map(|trial| Ok(serde_json::to_string(trial)? + "\n"));
    let text: String = lines.collect::<anyhow::Result<_>>()?;
    let file = file();
    std::fs::create_dir_all(folder())
        .and_then(|()| std::fs::write(&file, text))
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// What is known of `bugs` as they are now.
///
/// # Errors
/// Where something cannot be read.
pub fn sum(bugs: &[Bug]) -> anyhow::Result<Findings> {
    let (trials, mut found) = (all()?, Findings::default());
    for bug in bugs {
        found.fault("planted bug", 1);
        match trials.iter().find(|trial| trial.bug == *bug) {
            Some(Trial { caught: true, .. }) => found.fault("caught", 1),
            Some(_) => found.wrong(format!("survived: {}; cargo test {} passed", bug.name, bug.test)),
            None => found.wrong(format!("not planted as it is now: {}", bug.name)),
        }
    }
    Ok(found)
}

fn all() -> anyhow::Result<Vec<Trial>> {
    let file = file();
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let trials = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    trials.with_context(|| format!("{} is damaged; remove the line", file.display()))
}

fn file() -> PathBuf {
    folder().join("planted-bugs.jsonl")
}
