//! Commands that only look at a store write nothing: not where nothing can be written, and not while somebody else writes.

use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;

use crate::cli::Place;

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
struct Shop(Place);

impl Shop {
    fn new() -> Self {
        let place = Place::new();
        place.file("handlers/tick.luau", "return function() end");
        let shop = Self(place);
        shop.done(&["state", "set", "stock/lamp", "40"]);
        shop
    }

    /// The store's file, or what lies beside it.
    fn store(&self, ending: &str) -> PathBuf {
        self.0.path().join(format!("moon? tide.db{ending}"))
    }

    fn run(&self, args: &[&str]) -> Output {
        let args: Vec<_> = ["--bus", "sqlite:moon? tide.db"].iter().chain(args).copied().collect();
        self.0.moontide(&args).output().expect("it runs")
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
        std::os::unix::fs::symlink("nowhere", self.store("-shm")).expect("a link in its place");
    }
}

#[test]
fn looking_works_where_nothing_can_be_written_and_writing_says_what_to_do() {
    let shop = Shop::new();
    shop.shut();
    let before = std::fs::read(shop.store("")).expect("it is there");
    shop.looks();
    shop.done(&["backup", "copy.db"]);
    assert!(std::fs::read(shop.store("")).expect("it is there") == before, "it was written");
    let problem = shop.store_problem(&["state", "set", "stock/lamp", "41"]);
    assert!(problem.contains("check the path and its permissions"), "{problem}");
}

#[test]
fn looking_waits_for_nobody_who_writes() {
    let shop = Shop::new();
    let writer = Connection::open(shop.store("")).expect("the file opens");
    writer.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    shop.looks();
    shop.done(&["backup", "copy.db"]);
    writer.execute_batch("ROLLBACK").expect("it was open");
}

#[test]
fn a_log_that_cannot_be_read_is_not_passed_over() {
    let (shop, copy) = (Shop::new(), Shop::new());
    let writer = Connection::open(shop.store("")).expect("the file opens");
    writer.execute_batch("UPDATE kv SET value = '41'").expect("it is written to the log");
    let take = || {
        for ending in ["", "-wal"] {
            std::fs::copy(shop.store(ending), copy.store(ending)).expect("it is there");
        }
    };
    take();
    assert_eq!(copy.done(&["state", "get", "stock/lamp"]).trim(), "41", "that is what the log holds");
    take();
    // Whoever closed the store last removed it.
    let _ = std::fs::remove_file(copy.store("-shm"));
    copy.shut();
    let problem = copy.store_problem(&["state", "get", "stock/lamp"]);
    assert!(problem.contains("copy the file and its -wal"), "{problem}");
}

#[test]
fn an_older_store_is_brought_forward_by_whoever_looks_first() {
    let shop = Shop::new();
    let version = |path: &Path| {
        let conn = Connection::open(path).expect("the file opens");
        conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).expect("it is readable")
    };
    let newest = version(&shop.store(""));
    shop.0.file("empty.db", "");
    shop.0.moontide(&["--bus", "sqlite:empty.db", "status"]).assert().success();
    assert_eq!(version(&shop.0.path().join("empty.db")), newest);
    assert!(newest > 0);
}
