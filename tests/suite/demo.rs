//! `moontide demo` from end to end: it adds up, and says so when it does not.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin_cmd;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

/// A `moontide` that sees neither this repository's handlers nor anybody's configuration.
fn moontide(folder: &TempDir) -> Command {
    let mut command = cargo_bin_cmd!("moontide");
    command.current_dir(folder).env("TMPDIR", folder.path());
    command
}

fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/handlers"))
}

/// A copy of the examples in which `file` has `from` replaced by `to`.
fn spoilt(folder: &TempDir, file: &str, from: &str, to: &str) -> std::path::PathBuf {
    let copy = folder.path().join("spoilt");
    fs::create_dir_all(copy.join("lib")).expect("the folder is writable");
    for below in ["", "lib"] {
        for entry in fs::read_dir(examples().join(below)).expect("the examples are there") {
            let path = entry.expect("the entry is readable").path();
            if path.is_file() {
                let name = path.file_name().expect("a file has a name");
                fs::copy(&path, copy.join(below).join(name)).expect("the copy is writable");
            }
        }
    }
    let text = fs::read_to_string(copy.join(file)).expect("the handler is there");
    assert!(text.contains(from), "{file} has {from:?}");
    fs::write(copy.join(file), text.replace(from, to)).expect("the copy is writable");
    copy
}

#[test]
fn it_adds_up_with_the_handlers_of_the_binary_and_cleans_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = moontide(&folder).args(["demo", "--checkouts", "100", "--seed", "5"]).assert().success();
    run.stdout(contains("It adds up: each of 100 checkouts ended exactly once").and(contains("\u{1b}").not()));
    assert_eq!(fs::read_dir(&folder).expect("the folder is readable").count(), 0, "nothing is left behind");
}

#[test]
fn a_handler_that_leaks_stock_is_found_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let leaking = spoilt(&folder, "stock_compensation.luau", "for _, item in reserved do", "for _, item in {} do");
    let run = moontide(&folder).args(["demo", "--checkouts", "60", "--handlers"]).arg(leaking).assert().code(1);
    run.stdout(contains("It does NOT add up").and(contains("received")));
}

#[test]
fn a_folder_without_the_examples_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = moontide(&folder).args(["demo", "--handlers", "."]).assert().failure();
    run.stderr(contains("has no audit.luau"));
}
