//! Script behaviour, tested in scripts: every section of `tests/scripts/*.luau` is a handler with what is given and what
//! is expected, run through a real pool.
//!
//! A section begins with `--- what it shows`; lines that begin with `--:` are one JSON object of what is given and
//! expected. Expected objects are subsets of what came out; a text that begins with `~` is contained in what came out.

mod case;
mod fair;
mod leftovers;
mod pool;
mod rig;
mod steps;

use std::path::Path;

use self::case::Case;

#[test]
fn every_script_ends_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder is part of the repository")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "luau"))
        .collect();
    paths.sort();
    let cases: Vec<Case> = paths.iter().flat_map(|path| Case::read_all(path)).collect();
    let failures: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n\n{}", failures.len(), cases.len(), failures.join("\n\n"));
    assert!(cases.len() > 100, "only {} cases were found", cases.len());
}

/// Runs one case and compares.
fn check(case: &Case) -> Result<(), String> {
    let came = case.run();
    case::compare(&case.expected, &came, "")
        .map_err(|difference| format!("{}\n  {difference}\n  came: {came}", case.name))
}
