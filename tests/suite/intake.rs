//! What the embedded store promises to those outside: a key claims its body for a while; looking costs no counting.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moontide::bus::sqlite::{Options, Place, SqliteStore, Synchronous};
use moontide::bus::{Bus, Claim, Intake, Overview, TakenIn};
use moontide::clock::ManualClock;
use moontide::outcome::{Emit, RecordKey};
use rusqlite::Connection;

use crate::support::{PATIENCE, event};

fn open(file: &Path, clock: &ManualClock) -> Arc<SqliteStore> {
    let options = Options {
        synchronous: Synchronous::Normal,
        clock: Arc::new(clock.clone()),
        upkeep_every: Duration::from_millis(20),
        ..Options::at(Place::File(file.to_owned()))
    };
    SqliteStore::open(options).expect("the store opens")
}

fn claim(key: &str, body: u128) -> Claim {
    Claim { key: RecordKey::new("s", "a", key), body, window: Duration::from_secs(60) }
}

#[tokio::test]
async fn a_key_claims_its_body_for_its_window_and_then_nothing_is_left_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("moontide.db");
    let clock = ManualClock::at(1_000_000);
    let store = open(&file, &clock);
    let take = |claim| store.take_in(vec![event("a", 1, "{}")], claim);
    assert_eq!(take(claim("k", 1)).await.expect("it answers"), TakenIn::Stored);
    clock.advance(59_999);
    assert_eq!(take(claim("k", 1)).await.expect("it answers"), TakenIn::Before);
    assert_eq!(take(claim("k", 2)).await.expect("it answers"), TakenIn::OtherBody);
    assert_eq!(take(claim("l", 2)).await.expect("it answers"), TakenIn::Stored);
    clock.advance(1);
    assert_eq!(take(claim("k", 2)).await.expect("it answers"), TakenIn::Stored);
    assert_eq!(store.history("events:a", None, 10).await.expect("it answers").len(), 3);
    clock.advance(120_000);
    let (shell, began) = (Connection::open(&file).expect("the file opens"), Instant::now());
    let left = || shell.query_row("SELECT count(*) FROM claim", [], |row| row.get::<_, i64>(0)).expect("it is asked");
    while left() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} claims are left", left());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn events_that_cannot_be_stored_claim_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("moontide.db"), &ManualClock::at(1_000_000));
    let hosts = Emit { stream: "moontide:retry:x".into(), ..event("a", 1, "{}") };
    store.take_in(vec![event("a", 1, "{}"), hosts], claim("k", 1)).await.expect_err("the stream is the host's");
    assert!(store.history("events:a", None, 10).await.expect("it answers").is_empty());
    let taken = store.take_in(vec![event("a", 1, "{}")], claim("k", 1)).await;
    assert_eq!(taken.expect("it answers"), TakenIn::Stored);
}

/// What an older version wrote, and has counted nowhere.
fn write_version_1(file: &Path) {
    let conn = Connection::open(file).expect("the file opens");
    conn.execute_batch(include_str!("../../src/bus/sqlite/schema.sql")).expect("the schema is made");
    conn.execute_batch(
        "PRAGMA application_id = 0x6d6f6f6e; PRAGMA user_version = 1; PRAGMA journal_mode = wal;
         INSERT INTO stream(id, name, hidden, created_at, last_seq) VALUES(1, 'events:a', 0, 0, 0), (2, 'moontide:retry:g', 1, 0, 0);
         INSERT INTO consumer(id, name, handler, retry_stream, selection, seen_stream, seen_at) VALUES(1, 'g', 'h', 2, '{}', 1, 0);
         INSERT INTO cursor(group_id, stream_id, position) VALUES(1, 1, 0), (1, 2, 0);
         INSERT INTO delayed(due, stream_id) VALUES(9000000, 1), (9000000, 2), (9000000, 2);
         INSERT INTO dead_letter(group_id, handler, version, reason, stream, seq, attempts, failed_at, failures)
             VALUES(1, 'h', 'v', 'rejected', 'events:a', 1, 1, 1000000, '[]'),
                   (1, 'h', 'v', 'rejected', 'events:a', 2, 1, 1000000, '[]');",
    )
    .expect("it is filled");
}

#[tokio::test]
async fn counts_are_right_in_a_file_of_an_older_version_and_stay_right() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("moontide.db");
    write_version_1(&file);
    let clock = ManualClock::at(1_000_000);
    let store = open(&file, &clock);
    let group = || async { store.groups().await.expect("it answers").remove(0) };
    let before = group().await;
    assert_eq!((before.lag, before.delayed, before.dead, before.oldest), (3, 3, 2, None));
    let later = Emit { delay: Some(Duration::from_secs(3600)), ..event("a", 3, "{}") };
    store.publish(vec![later, event("a", 4, "{}")]).await.expect("it takes events");
    let shell = Connection::open(&file).expect("the file opens");
    shell
        .execute_batch("DELETE FROM dead_letter WHERE seq = 2; DELETE FROM delayed WHERE due = 9000000")
        .expect("it is done");
    let moves = "UPDATE dead_letter SET group_id = 7; UPDATE dead_letter SET group_id = 1;
        UPDATE delayed SET stream_id = 2; UPDATE delayed SET stream_id = 7";
    shell.execute_batch(moves).expect("it is done");
    let moved = group().await;
    assert_eq!((moved.delayed, moved.dead), (0, 1), "it is on its way to a stream that nobody knows");
    shell.execute_batch("UPDATE delayed SET stream_id = 1").expect("it is done");
    let after = group().await;
    assert_eq!((after.lag, after.delayed, after.dead, after.oldest), (2, 1, 1, Some(1_000_000)));
}
