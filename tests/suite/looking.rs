//! Commands that only look at a store write nothing: not where nothing can be written, and not while somebody else writes.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use rusqlite::Connection;

/// What only looks, and a piece of what it says.
const LOOKS: [(&[&str], &str); 8] = [
    (&["state", "get", "stock/lamp"], "40"),
    (&["state", "list"], "stock/lamp"),
    (&["handlers"], "tick"),
    (&["status"], "store"),
    (&["status", "--json"], "\"processes\":[]"),
    (&["groups", "list"], "GROUP"),
    (&["groups", "list", "--json"], "[]"),
    (&["dead", "list", "--json"], "[]"),
];

/// A folder with a handler and a store that holds something.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        std::fs::create_dir(place.path().join("handlers")).expect("a folder");
        std::fs::write(place.path().join("handlers/tick.luau"), "return function() end").expect("a file");
        place.done(&["state", "set", "stock/lamp", "40"]);
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn store(&self) -> PathBuf {
        self.path().join("moon? tide.db")
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::cargo_bin("moontide").expect("it is built");
        command.current_dir(self.path()).args(["--bus", "sqlite:moon? tide.db"]).args(args);
        command.output().expect("it runs")
    }

    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it complains of, with exit code 3.
    fn store_problem(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn looks(&self) {
        for (args, part) in LOOKS {
            let said = self.done(args);
            assert!(said.contains(part), "{args:?} says {said}");
        }
    }

    /// Makes it impossible to put SQLite's shared memory beside the store, for root too.
    fn shut(&self) {
        std::os::unix::fs::symlink("nowhere", self.path().join("moon? tide.db-shm")).expect("a link in its place");
    }
}

#[test]
fn looking_works_where_nothing_can_be_written_and_writing_says_what_to_do() {
    let place = Place::new();
    place.shut();
    let before = std::fs::read(place.store()).expect("it is there");
    place.looks();
    place.done(&["backup", "copy.db"]);
    assert!(std::fs::read(place.store()).expect("it is there") == before, "it was written");
    let problem = place.store_problem(&["state", "set", "stock/lamp", "41"]);
    assert!(problem.contains("check the path and its permissions"), "{problem}");
}

#[test]
fn looking_waits_for_nobody_who_writes() {
    let place = Place::new();
    let writer = Connection::open(place.store()).expect("the file opens");
    writer.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    place.looks();
    place.done(&["backup", "copy.db"]);
    writer.execute_batch("ROLLBACK").expect("it was open");
}

#[test]
fn a_log_that_cannot_be_read_is_not_passed_over() {
    let (place, copy) = (Place::new(), Place::new());
    let writer = Connection::open(place.store()).expect("the file opens");
    writer.execute_batch("UPDATE kv SET value = '41'").expect("it is written to the log");
    for ending in ["", "-wal"] {
        let name = format!("moon? tide.db{ending}");
        std::fs::copy(place.path().join(&name), copy.path().join(&name)).expect("it is there");
    }
    assert_eq!(copy.done(&["state", "get", "stock/lamp"]).trim(), "41", "that is what the log holds");
    for ending in ["", "-wal"] {
        let name = format!("moon? tide.db{ending}");
        std::fs::copy(place.path().join(&name), copy.path().join(&name)).expect("it is there");
    }
    let _ = std::fs::remove_file(copy.path().join("moon? tide.db-shm"));
    copy.shut();
    let problem = copy.store_problem(&["state", "get", "stock/lamp"]);
    assert!(problem.contains("copy the file and its -wal"), "{problem}");
}

#[test]
fn an_older_store_is_brought_forward_by_whoever_looks_first() {
    let place = Place::new();
    let version = |path: &Path| {
        let conn = Connection::open(path).expect("the file opens");
        conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).expect("it is readable")
    };
    let newest = version(&place.store());
    assert!(newest > 0);
    let empty = place.path().join("empty.db");
    std::fs::write(&empty, "").expect("a file");
    let mut status = Command::cargo_bin("moontide").expect("it is built");
    let output =
        status.current_dir(place.path()).args(["--bus", "sqlite:empty.db", "status"]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(version(&empty), newest);
}
