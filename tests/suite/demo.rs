//! `moontide demo` from end to end: it adds up, and says so when it does not.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin_cmd;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

use moontide_stage::server::{Kind, Server};

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
fn hosts_in_processes_of_their_own_share_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = moontide(&folder).args(["demo", "--checkouts", "60", "--processes", "2"]).assert().success();
    run.stdout(contains("It adds up: each of 60 checkouts ended exactly once"));
    assert_eq!(fs::read_dir(&folder).expect("the folder is readable").count(), 0, "nothing is left behind");
}

/// On a server on which others are at work.
#[test]
fn on_a_server_it_adds_up_though_hosts_are_killed_and_leaves_nothing_and_harms_nobody() {
    let (server, folder) = (Server::with(Kind::Redis, &[]), tempfile::tempdir().expect("a temporary folder"));
    server.call(&["SET", "state:stock/moon-lamp", "7"]);
    server.call(&["XADD", "events:CheckoutInitiated", "1-1", "type", "CheckoutInitiated"]);
    let contents = || {
        let mut keys: Vec<String> = server.get(&["KEYS", "*"]);
        keys.sort();
        let dumps = keys.iter().map(|key| server.call(&["DUMP", key])).collect::<Vec<_>>();
        (keys, dumps)
    };
    let before = contents();
    let bus = server.url();
    moontide(&folder).args(["demo", "--checkouts", "60", "--bus", &bus]).assert().success();
    assert_eq!(contents(), before);
    let storm = ["demo", "--checkouts", "60", "--processes", "2", "--kill", "--bus", &bus];
    let run = moontide(&folder).args(storm).assert().success();
    run.stdout(contains("one of 2 hosts was killed").and(contains("It adds up: each of 60 checkouts")));
    assert_eq!(contents(), before);
    assert_eq!(fs::read_dir(&folder).expect("the folder is readable").count(), 0, "nothing is left behind");
}

#[test]
fn a_file_of_others_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = moontide(&folder).args(["demo", "--bus", "sqlite:mine.db"]).assert().code(2);
    run.stderr(contains("brings a file of its own"));
}

#[test]
fn a_folder_without_the_examples_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = moontide(&folder).args(["demo", "--handlers", "."]).assert().failure();
    run.stderr(contains("has no audit.luau"));
}
