//! The places at which the fault rig lets the process die: each that has a name is there, and each that is there has a name.

use std::collections::BTreeSet;

use moontide::failpoint::{ALL, On, Point};

use crate::layout::sources;

/// How places are named in the sources.
const CALLS: [&str; 3] = ["failpoint::reached(", "failpoint::after(", "failpoint::during("];

/// The names of places in `code`, in order.
fn places(code: &str) -> Vec<&str> {
    let calls = CALLS.iter().flat_map(|call| code.split(call).skip(1));
    calls.filter_map(|rest| rest.split('"').nth(1)).collect()
}

fn is_on(point: &Point, bus: On) -> bool {
    point.on == On::Both || point.on == bus
}

#[test]
fn every_point_is_once_on_the_way_on_each_bus() {
    for (bus, other) in [(On::Redis, "src/bus/sqlite/"), (On::Sqlite, "src/bus/redis/")] {
        let sources = sources();
        let met = sources.iter().filter(|source| !source.path.starts_with(other) && source.module() != "failpoint");
        let mut found: Vec<&str> = met.flat_map(|source| places(&source.code)).collect();
        let mut named: Vec<&str> = ALL.iter().filter(|point| is_on(point, bus)).map(|point| point.name).collect();
        found.sort_unstable();
        named.sort_unstable();
        assert_eq!(found, named, "{bus:?}");
    }
}

#[test]
fn points_have_names_of_their_own_and_say_what_they_mean() {
    let names: BTreeSet<&str> = ALL.iter().map(|point| point.name).collect();
    assert_eq!(names.len(), ALL.len());
    for Point { name, meaning, .. } in ALL {
        assert!(name.split('.').count() == 2 && !meaning.is_empty() && !meaning.ends_with('.'), "{name}: {meaning}");
    }
}

#[test]
fn calls_are_seen_however_they_are_laid_out() {
    let code =
        "failpoint::reached(\"a.b\"); x(failpoint::after(\n    \"c.d\",\n    1)); failpoint::during(\"e.f\", y())";
    assert_eq!(places(code), ["a.b", "c.d", "e.f"]);
}

/// What `moontide run` says of `point`.
fn armed(point: &str) -> assert_cmd::assert::Assert {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("handlers")).expect("a folder");
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_moontide"));
    command.args(["run", "--bus", "memory:"]).current_dir(folder.path());
    command.env("MOONTIDE_HTTP_LISTEN", "").env("MOONTIDE_FAILPOINT", point).assert()
}

#[cfg(not(feature = "failpoints"))]
#[test]
fn a_binary_that_is_handed_out_has_none() {
    armed("beat.sent").failure().stderr(predicates::str::contains("MOONTIDE_FAILPOINT: sets nothing"));
}

#[cfg(feature = "failpoints")]
#[test]
fn the_process_dies_where_it_is_told_to() {
    use std::os::unix::process::ExitStatusExt;

    let died = armed("beat.sent@1").failure();
    assert_eq!(died.get_output().status.signal(), Some(6), "{died}");
    armed("beat.send").code(2).stderr(predicates::str::contains("did you mean beat.sent?"));
}
