//! Planted bugs: each line of `bugs.toml` is a change to the core that must not go unnoticed, and the test that must notice it.
//!
//! They are planted one by one in a copy of the sources. A bug that the compiler refuses is no bug; one whose test passes
//! has survived.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::record::root;
use crate::trials;

/// A test that hangs has noticed, too.
const SECONDS_MAX: &str = "300";

/// One change.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// What it does wrong.
    pub name: String,
    /// From the root of the project.
    pub file: String,
    /// Occurs once in the file.
    pub search: String,
    pub replace: String,
    /// Arguments of `cargo test`, separated by spaces.
    pub test: String,
}

#[derive(Deserialize)]
struct File {
    bug: Vec<Bug>,
}

/// All of them.
///
/// # Errors
/// Where `bugs.toml` is not as it should be.
pub fn all() -> anyhow::Result<Vec<Bug>> {
    let file: File = toml::from_str(include_str!("../bugs.toml")).context("bugs.toml")?;
    Ok(file.bug)
}

/// Plants those whose name contains one of `names` (none: all), and keeps what became of each; false: one survived.
///
/// # Errors
/// Where the sources cannot be copied, a bug cannot be planted, or a test fails without any.
pub fn plant(names: &[String]) -> anyhow::Result<bool> {
    let wanted = |bug: &Bug| names.is_empty() || names.iter().any(|name| bug.name.contains(name.as_str()));
    let bugs: Vec<Bug> = all()?.into_iter().filter(wanted).collect();
    ensure!(!bugs.is_empty(), "no planted bug is called so");
    let copy = copy()?;
    for test in bugs.iter().map(|bug| &bug.test).collect::<BTreeSet<_>>() {
        println!("without a bug: cargo test {test}");
        // A busy machine may have made it wait too long.
        ensure!(cargo(&copy, test, &[])? || cargo(&copy, test, &[])?, "cargo test {test} fails without any bug");
    }
    let mut all_caught = true;
    for bug in &bugs {
        let caught = catches(&copy, bug)?;
        println!("{}: {} ({})", if caught { "caught" } else { "SURVIVED" }, bug.name, bug.test);
        trials::keep(bug, caught)?;
        all_caught &= caught;
    }
    Ok(all_caught)
}

/// Whether the bug's test fails with it.
fn catches(copy: &Path, bug: &Bug) -> anyhow::Result<bool> {
    let path = copy.join(&bug.file);
    let text = std::fs::read_to_string(&path).with_context(|| bug.file.clone())?;
    ensure!(text.matches(&bug.search).count() == 1, "{}: {:?} is not once in {}", bug.name, bug.search, bug.file);
    std::fs::write(&path, text.replacen(&bug.search, &bug.replace, 1))?;
    let caught = match cargo(copy, &bug.test, &["--no-run"]) {
        Ok(true) => cargo(copy, &bug.test, &[]).map(|passed| !passed),
        Ok(false) => Err(anyhow::anyhow!("{}: it does not compile", bug.name)),
        Err(error) => Err(error),
    };
    std::fs::write(&path, text)?;
    caught
}

/// A copy of what git knows, where nothing but bugs is changed.
fn copy() -> anyhow::Result<PathBuf> {
    let copy = root().join("target/planted");
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().context("git ls-files")?;
    let listed = String::from_utf8(listed.stdout)?;
    let names: BTreeSet<_> = listed.split_terminator('\0').map(Path::new).collect();
    remove_others(&copy, &copy, &names)?;
    for name in names {
        let (from, to) = (root().join(name), copy.join(name));
        let text = std::fs::read(&from).with_context(|| from.display().to_string())?;
        if std::fs::read(&to).ok().as_ref() == Some(&text) {
            continue;
        }
        std::fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        std::fs::write(&to, text)?;
        std::fs::set_permissions(&to, from.metadata()?.permissions())?;
    }
    for tools in ["python", "node"] {
        let (from, to) = (root().join("target").join(tools), copy.join("target").join(tools));
        if from.exists() && !to.exists() {
            std::fs::create_dir_all(copy.join("target"))?;
            std::os::unix::fs::symlink(from, to)?;
        }
    }
    Ok(copy)
}

/// Removes what an earlier copy had besides `names`.
fn remove_others(copy: &Path, folder: &Path, names: &BTreeSet<&Path>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(copy)?;
        if name == Path::new("target") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            remove_others(copy, &path, names)?;
        } else if !names.contains(name) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether `cargo test` is content. What others have compiled is used again.
fn cargo(copy: &Path, test: &str, more: &[&str]) -> anyhow::Result<bool> {
    let mut command = Command::new("timeout");
    let limit = if more.is_empty() { SECONDS_MAX } else { "3600" };
    command.args(["-k", "5", limit, "cargo", "test", "--locked", "--quiet"]).args(more).args(test.split_whitespace());
    command.current_dir(copy).env("CARGO_TARGET_DIR", root().join("target"));
    let run = command.output().context("timeout, of coreutils, is needed")?;
    let said = String::from_utf8_lossy(&run.stdout);
    if run.status.success() && more.is_empty() {
        let ran = |line: &str| line.starts_with("test result: ok") && !line.contains(" 0 passed");
        ensure!(said.lines().any(ran), "cargo test {test} ran no test");
    }
    Ok(run.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_can_be_planted() {
        let bugs = all().expect("the file is valid");
        assert!(bugs.len() >= 25, "{} are too few", bugs.len());
        for bug in &bugs {
            let text =
                std::fs::read_to_string(root().join(&bug.file)).unwrap_or_else(|error| panic!("{}: {error}", bug.file));
            assert_eq!(text.matches(&bug.search).count(), 1, "{}: {:?} in {}", bug.name, bug.search, bug.file);
            assert_ne!(bug.search, bug.replace, "{}", bug.name);
        }
        let names: BTreeSet<_> = bugs.iter().map(|bug| &bug.name).collect();
        assert_eq!(names.len(), bugs.len(), "two have one name");
    }
}
