//! Ways to lose, double or strand an event in the embedded store, each of them tried.
//!
//! What is common to all buses is in the conformance suite; here a test may reach into the file to make something fail.

use std::sync::Arc;
use std::time::Duration;

use moontide::bus::sqlite::{Options, SqliteStore};
use moontide::bus::{
    Answer, Bus, BusError, DeadFilter, DeadLetters, Inbox, Ledger, Overview, Run, Start, Subscription,
};
use moontide::streams::{Retain, Streams};
use rusqlite::Connection;

use crate::conformance::{
    DONE, Harness, add, commit, emit, event, id, pattern, receive, receive_one, reject, retry, run, settle, settle_one,
    subscription,
};
use crate::sqlite::{FileHarness, RECOVERY};
use crate::support::PATIENCE;

fn open(options: Options) -> Arc<SqliteStore> {
    SqliteStore::open(options).expect("the store opens")
}

async fn inbox(store: &SqliteStore, subscription: Subscription) -> Arc<dyn Inbox> {
    store.subscribe(subscription).await.expect("the group is opened").inbox
}

async fn publish(store: &SqliteStore, stream: &str, ids: &[&str]) {
    store.publish(ids.iter().map(|id| emit(stream, id)).collect()).await.expect("the events are stored");
}

async fn value(store: &SqliteStore, key: &str) -> Option<String> {
    let values = store.read(&[key.to_owned()]).await.expect("state is readable");
    values[0].as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
}

/// A door's claim is under way when this returns, and nobody waits for it any more.
async fn abandon_a_receive(inbox: &Arc<dyn Inbox>) {
    tokio::select! {
        biased;
        got = inbox.receive(10) => panic!("the store is locked: {got:?}"),
        () = std::future::ready(()) => {}
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn number(shell: &Connection, sql: &str) -> i64 {
    shell.busy_timeout(Duration::from_secs(5)).expect("a timeout is set");
    shell.query_row(sql, [], |row| row.get(0)).expect("the table is readable")
}

fn keeps(length: u64, h: &FileHarness) -> Options {
    let retain = Retain { age: None, length: Some(length) };
    let streams = Arc::new(Streams { retain, ..Streams::default() });
    Options { streams, forget_group_after: Duration::from_secs(60), recovery_time: RECOVERY, ..h.options() }
}

#[tokio::test]
async fn a_run_that_fails_after_it_was_acknowledged_is_still_ours() {
    let h = FileHarness::new();
    let store = open(h.options());
    let inbox = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a", "b", "c"]).await;
    // The record is written last, when the entry's bit is set already.
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON record WHEN NEW.seq = 2 AND NEW.dead IS NULL
        BEGIN SELECT RAISE(ABORT, 'not this'); END";
    h.shell().execute_batch(refuse).expect("the trigger is made");
    let got = receive(&inbox, 3).await;
    let runs: Vec<Run> = got
        .iter()
        .map(|delivery| {
            let mut run = commit(delivery);
            run.record = crate::conformance::record(&id(&**delivery));
            run.effects.writes = vec![add("n", 1.0)];
            run.effects.events = vec![emit("out", &id(&**delivery))];
            run
        })
        .collect();
    let answers = settle(&inbox, runs).await;
    assert!(matches!(&answers[1], Answer::Invalid { reason } if reason.contains("not this")), "{answers:?}");
    assert_eq!((&answers[0], &answers[2]), (&DONE, &DONE));
    let dead = settle_one(&inbox, run(&got[1], reject("refused"))).await;
    assert!(matches!(dead, Answer::Done { dead: Some(_) }), "it is given up, not acknowledged in silence: {dead:?}");
    assert_eq!(value(&store, "n").await.as_deref(), Some("2"));
    let out = store.history("out", None, 9).await.expect("history is readable");
    assert_eq!(out.iter().map(|(entry, _)| entry.0).collect::<Vec<_>>(), [1, 2], "numbers stay dense");
}

#[tokio::test]
async fn a_release_that_fails_frees_nothing_twice() {
    let h = FileHarness::new();
    let store = open(h.options());
    let inbox = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a", "b"]).await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON delayed BEGIN SELECT RAISE(ABORT, 'not this'); END";
    h.shell().execute_batch(refuse).expect("the trigger is made");
    let got = receive(&inbox, 2).await;
    let mut both = run(&got[0], moontide::judge::Verdict::Release);
    both.deliveries.extend(run(&got[1], retry(1, "later")).deliveries);
    let answer = settle_one(&inbox, both).await;
    assert!(matches!(answer, Answer::Invalid { .. }), "{answer:?}");
    assert_eq!(number(&h.shell(), "SELECT count(*) FROM span WHERE owner = 0"), 0, "it is ours still");
    assert_eq!(settle(&inbox, got.iter().map(commit).collect()).await, [DONE, DONE]);
}

#[tokio::test]
async fn an_inbox_that_closes_with_a_claim_under_way_strands_nothing() {
    let h = FileHarness::new();
    let store = open(h.options());
    let closing = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a", "b"]).await;
    let shell = h.shell();
    shell.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    abandon_a_receive(&closing).await;
    drop(closing);
    shell.execute_batch("COMMIT").expect("the lock is given up");
    let next = inbox(&store, subscription("group")).await;
    let got = receive(&next, 2).await;
    assert!(got.iter().all(|delivery| delivery.orphaned == 0), "nobody died");
}

#[tokio::test]
async fn a_store_that_is_closed_in_order_charges_nobody() {
    let h = FileHarness::new();
    let store = open(Options { recovery_time: RECOVERY, ..h.options() });
    let held = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a"]).await;
    let delivery = receive_one(&held).await;
    assert!(held.mark(&delivery).await.expect("the store can be written"));
    store.close().await;
    let store = open(Options { recovery_time: RECOVERY, ..h.options() });
    let again = receive_one(&inbox(&store, subscription("group")).await).await;
    assert_eq!((again.orphaned, again.deaths), (0, 0));
}

#[tokio::test]
async fn every_waiting_receive_is_served() {
    let h = FileHarness::new();
    let store = open(h.options());
    let inbox = inbox(&store, subscription("group")).await;
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let inbox = inbox.clone();
            tokio::spawn(async move { receive_one(&inbox).await })
        })
        .collect();
    tokio::task::yield_now().await;
    publish(&store, "orders", &["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    let mut got = Vec::new();
    for one in waiting {
        got.push(id(&*one.await.expect("the task ends")));
    }
    got.sort();
    assert_eq!(got, ["a", "b", "c", "d", "e", "f", "g", "h"]);
}

#[tokio::test]
async fn a_closed_store_ends_every_waiting_receive() {
    let h = FileHarness::new();
    let store = open(h.options());
    let inbox = inbox(&store, subscription("group")).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.receive(1).await.map(|got| got.len()) })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await;
    for one in waiting {
        let end = tokio::time::timeout(PATIENCE, one).await.expect("it ends");
        assert!(matches!(end.expect("the task ends"), Err(BusError::Closed)));
    }
}

/// Reads every `order.*` stream that there is or will be.
fn discoverer(group: &str) -> Subscription {
    let discover = vec![("events:".to_owned(), pattern("order.*"))];
    Subscription { streams: Vec::new(), discover, start: Start::Latest, ..subscription(group) }
}

#[tokio::test]
async fn a_stream_that_appears_while_its_group_is_away_is_not_trimmed() {
    let h = FileHarness::new();
    let store = open(keeps(1, &h));
    drop(inbox(&store, discoverer("group")).await);
    let ids = ["a", "b", "c"];
    publish(&store, "events:order.paid", &ids).await;
    publish(&store, "events:stock.low", &ids).await;
    // A stream that nobody reads shows when upkeep has been here.
    until("upkeep trims", async || store.history("events:stock.low", None, 9).await.expect("readable").len() == 1)
        .await;
    let status = store.groups().await.expect("groups are readable").remove(0);
    assert_eq!(status.lag, 3, "what waits is counted before the group is back");
    let back = inbox(&store, discoverer("group")).await;
    assert_eq!(receive(&back, 3).await.iter().map(|one| id(&**one)).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn what_is_taken_over_and_not_asked_for_any_more_is_settled_without_a_run() {
    let h = FileHarness::new();
    let store = open(h.options());
    let before = inbox(&store, subscription("group")).await;
    let kinds = ["stock.low", "order.paid", "stock.low", "order.paid", "stock.low", "order.paid"];
    let emits = kinds
        .iter()
        .zip(1..)
        .map(|(kind, n)| moontide::outcome::Emit { event: event(kind, &format!("{n}")), ..emit("orders", "") });
    store.publish(emits.collect()).await.expect("the events are stored");
    receive(&before, 6).await;
    drop(before);
    let wants = Subscription { types: vec![pattern("order.*")], ..subscription("group") };
    let after = inbox(&store, wants).await;
    // One at a time: what is left of a span that was cut must be found again.
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(receive_one(&after).await);
    }
    assert_eq!(got.iter().map(|one| id(&**one)).collect::<Vec<_>>(), ["2", "4", "6"]);
    assert_eq!(settle(&after, got.iter().map(commit).collect()).await, vec![DONE; 3]);
    let status = store.groups().await.expect("groups are readable").remove(0);
    assert_eq!((status.lag, status.in_flight, status.lost), (0, 0, 0));
}

#[tokio::test]
async fn a_span_of_which_nothing_is_asked_for_leaves_nothing_behind() {
    let h = FileHarness::new();
    let store = open(h.options());
    let before = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a", "b", "c"]).await;
    receive(&before, 3).await;
    drop(before);
    let wants = Subscription { types: vec![pattern("stock.*")], ..subscription("group") };
    let after = inbox(&store, wants).await;
    let low = moontide::outcome::Emit { event: event("stock.low", "low"), ..emit("orders", "") };
    store.publish(vec![low]).await.expect("the event is stored");
    let low = after.receive(10).await.expect("the bus can be read");
    assert_eq!(low.iter().map(id).collect::<Vec<_>>(), ["low"]);
    assert_eq!(number(&h.shell(), "SELECT count(*) FROM span"), 1);
}

#[tokio::test]
async fn what_was_trimmed_is_counted_once_and_shown() {
    let h = FileHarness::new();
    let store = open(Options { forget_group_after: Duration::from_secs(3600), ..keeps(0, &h) });
    let gone = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a", "b", "c"]).await;
    // As if upkeep had forgotten the group: all is trimmed, and the stream is empty.
    let trim = "DELETE FROM event WHERE pos & 0xffffffffff <= 3 AND type IS NOT NULL;
        UPDATE stream SET first_seq = last_seq + 1 WHERE name = 'orders'";
    h.shell().execute_batch(trim).expect("the rows are removed");
    for name in ["x", "y"] {
        publish(&store, "other", &[name]).await;
        abandon_a_receive_that_finds_nothing(&gone).await;
    }
    publish(&store, "orders", &["d"]).await;
    assert_eq!(id(&*receive_one(&gone).await), "d");
    let status = store.groups().await.expect("groups are readable").remove(0);
    assert_eq!(status.lost, 3);
}

/// Lets a claim come back with nothing.
async fn abandon_a_receive_that_finds_nothing(inbox: &Arc<dyn Inbox>) {
    let waited = tokio::time::timeout(Duration::from_millis(50), inbox.receive(1)).await;
    assert!(waited.is_err(), "nothing is there: {waited:?}");
}

#[tokio::test]
async fn a_clock_that_jumps_forward_forgets_no_living_group() {
    let h = FileHarness::new();
    let retain = Retain { age: Some(Duration::from_secs(60)), length: None };
    let streams = Arc::new(Streams { retain, ..Streams::default() });
    // Heartbeats are rarer than upkeep: it sees the jump first.
    let recovery_time = Duration::from_secs(5);
    let forget_group_after = Duration::from_secs(60);
    let store = open(Options { streams, recovery_time, forget_group_after, ..h.options() });
    let inbox = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a", "b"]).await;
    publish(&store, "unread", &["x"]).await;
    h.advance(3_600_000);
    until("upkeep trims", async || store.history("unread", None, 9).await.expect("readable").is_empty()).await;
    assert_eq!(receive(&inbox, 2).await.len(), 2);
}

#[tokio::test]
async fn what_waits_does_not_wait_again_for_as_long_as_the_clock_was_set_back() {
    let h = FileHarness::new();
    let store = open(h.options());
    let inbox = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a"]).await;
    let delivery = receive_one(&inbox).await;
    assert_eq!(settle_one(&inbox, run(&delivery, retry(10, "later"))).await, DONE);
    h.advance(-3_600_000);
    // Whoever stores work for later notices it.
    let delayed =
        |id, seconds| moontide::outcome::Emit { delay: Some(Duration::from_secs(seconds)), ..emit("orders", id) };
    store.publish(vec![delayed("b", 20)]).await.expect("the event is stored");
    h.advance(9_999);
    store.publish(vec![delayed("c", 0)]).await.expect("the event is stored");
    assert_eq!(id(&*receive_one(&inbox).await), "c", "nothing is due that has not waited");
    h.advance(1);
    assert_eq!(receive_one(&inbox).await.attempt(), 2);
    h.advance(10_000);
    assert_eq!(id(&*receive_one(&inbox).await), "b");
}

#[tokio::test]
async fn the_retries_of_a_forgotten_group_wait_for_it() {
    let h = FileHarness::new();
    let store = open(keeps(1, &h));
    let gone = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["a"]).await;
    let delivery = receive_one(&gone).await;
    assert_eq!(settle_one(&gone, run(&delivery, retry(10, "later"))).await, DONE);
    drop(gone);
    publish(&store, "orders", &["b", "c", "d"]).await;
    until("the group is forgotten", async || {
        h.advance(61_000);
        store.history("orders", None, 9).await.expect("readable").len() == 1
    })
    .await;
    let back = inbox(&store, subscription("group")).await;
    let mut got: Vec<String> = receive(&back, 2).await.iter().map(|one| id(&**one)).collect();
    got.sort();
    assert_eq!(got, ["a", "d"], "the retry was accepted once, and lies in no history that may be trimmed");
}

#[tokio::test]
async fn dead_letters_are_kept_as_long_as_the_configuration_says() {
    let h = FileHarness::new();
    let store = open(Options { dead_letters_retain: Some(Duration::from_secs(100)), ..h.options() });
    let inbox = inbox(&store, subscription("group")).await;
    publish(&store, "orders", &["old", "replayed", "new"]).await;
    let got = receive(&inbox, 3).await;
    settle(&inbox, vec![run(&got[0], reject("no")), run(&got[1], reject("no"))]).await;
    let letters = async || {
        let filter = DeadFilter { limit: 9, ..DeadFilter::default() };
        let letters = store.list(filter).await.expect("dead letters are readable");
        letters.into_iter().map(|letter| id_of(&letter)).collect::<Vec<_>>()
    };
    let second = store.list(DeadFilter { limit: 9, ..DeadFilter::default() }).await.expect("readable")[1].id;
    h.advance(60_000);
    store.replay(second).await.expect("a replay is possible");
    settle(&inbox, vec![run(&got[2], reject("no"))]).await;
    assert_eq!(letters().await, ["old", "replayed", "new"]);
    h.advance(40_000);
    until("the oldest goes", async || letters().await == ["replayed", "new"]).await;
    let again = receive_one(&inbox).await;
    settle_one(&inbox, commit(&again)).await;
    h.advance(60_000);
    until("all went", async || letters().await.is_empty()).await;
}

fn id_of(letter: &moontide::bus::DeadLetter) -> String {
    letter.event.as_ref().expect("it is an event").id.clone()
}

#[tokio::test]
async fn a_process_that_is_stopped_in_the_queue_does_not_hold_up_the_others() {
    let h = FileHarness::new();
    let store = open(h.options());
    // As a process that was stopped while it had these locks, and was not in a transaction.
    let held = ["gate", "write"].map(|lock| {
        let path = h.path().with_file_name(format!("moontide.db-{lock}"));
        let file = std::fs::File::open(path).expect("the lock file is there");
        file.lock().expect("its holder lets go");
        file
    });
    let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let all = async {
        for id in &ids {
            publish(&store, "orders", &[id]).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the queue is for fairness only");
    drop(held);
}

#[tokio::test]
async fn a_zombie_that_gets_its_entry_back_cannot_settle_it_by_the_old_lease() {
    let h = FileHarness::new();
    // It beats so rarely that the other one takes it for dead.
    let zombie = open(Options { recovery_time: Duration::from_secs(3600), ..h.options() });
    let held = inbox(&zombie, subscription("group")).await;
    publish(&zombie, "orders", &["a"]).await;
    let old = receive_one(&held).await;
    let other = open(Options { recovery_time: RECOVERY, ..h.options() });
    let theirs = inbox(&other, subscription("group")).await;
    assert_eq!(receive_one(&theirs).await.orphaned, 1);
    // Before its inbox, so that it dies with the entry in hand.
    drop(other);
    let again = receive_one(&held).await;
    assert_eq!(again.orphaned, 2);
    assert_eq!(settle_one(&held, commit(&old)).await, Answer::Fenced);
    assert_eq!(settle_one(&held, commit(&again)).await, DONE);
}
