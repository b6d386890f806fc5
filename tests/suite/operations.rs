//! What operators do with groups and with the store: hand over, forget, copy.

use std::sync::Arc;
use std::time::Duration;

use moontide::bus::sqlite::{Options, Place, SqliteStore, Synchronous};
use moontide::bus::{
    Bus, BusError, DeadFilter, DeadLetters, GroupDetail, Groups, Housekeeping, Inbox, Ledger, Moved, Overview, Start,
    Subscription,
};
use moontide::clock::ManualClock;
use moontide::outcome::Emit;
use rusqlite::Connection;

use crate::conformance::{
    add, commit, emit, id, pattern, receive, receive_one, reject, retry, run, settle, subscription,
};

/// A file, and what of it is open.
struct Desk {
    folder: tempfile::TempDir,
    clock: ManualClock,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), clock: ManualClock::at(1_000_000) }
    }

    fn open(&self) -> Arc<SqliteStore> {
        let place = Place::File(self.folder.path().join("moontide.db"));
        let options = Options {
            synchronous: Synchronous::Normal,
            clock: Arc::new(self.clock.clone()),
            recovery_time: Duration::from_secs(10),
            ..Options::at(place)
        };
        SqliteStore::open(options).expect("the store opens")
    }
}

async fn publish(store: &SqliteStore, ids: impl IntoIterator<Item = impl ToString>) {
    let emits = ids.into_iter().map(|id| emit("orders", &id.to_string())).collect();
    store.publish(emits).await.expect("the events are stored");
}

async fn inbox(store: &SqliteStore, group: &str, start: Start) -> Arc<dyn Inbox> {
    let wants = Subscription { start, ..subscription(group) };
    store.subscribe(wants).await.expect("the group is opened").inbox
}

async fn detail(store: &SqliteStore, group: &str) -> Option<GroupDetail> {
    let groups = store.all().await.expect("groups are readable");
    groups.into_iter().find(|detail| detail.group == group)
}

/// Waits until the writer has done what an inbox that was dropped left it to do: until then its group is served.
async fn left_alone(store: &SqliteStore, group: &str) {
    let wait = async {
        while detail(store, group).await.is_some_and(|detail| detail.live) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("nobody serves it");
}

/// Receives what there is and counts it, event by event.
async fn count_all(store: &SqliteStore, inbox: &Arc<dyn Inbox>, group: &str) {
    loop {
        let status = detail(store, group).await.expect("the group exists");
        if status.lag == 0 {
            return;
        }
        let got = receive(inbox, usize::try_from(status.lag.min(100)).expect("it is small")).await;
        let runs = got.iter().map(|delivery| {
            let mut run = commit(delivery);
            run.effects.writes = vec![add(&format!("n/{}", id(&**delivery)), 1.0)];
            run
        });
        settle(inbox, runs.collect()).await;
    }
}

async fn counted(store: &SqliteStore, name: impl ToString) -> Option<String> {
    let values = store.read(&[format!("n/{}", name.to_string())]).await.expect("state is readable");
    values[0].as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_gets_all_that_another_one_left_and_nothing_twice() {
    let place = Desk::new();
    let store = place.open();
    publish(&store, 0..10).await;
    let old = inbox(&store, "old", Start::Earliest).await;
    let got = receive(&old, 8).await;
    // 0 to 3 are done, 4 is retried later, 5 is retried now, 6 is dead, 7 is given back, 8 and 9 were never received.
    let mut runs: Vec<_> = got[..4].iter().map(commit).collect();
    runs.iter_mut().zip(0..).for_each(|(run, n)| run.effects.writes = vec![add(&format!("n/{n}"), 1.0)]);
    runs.push(run(&got[4], retry(60, "later")));
    runs.push(run(&got[5], retry(0, "now")));
    runs.push(run(&got[6], reject("no")));
    settle(&old, runs).await;
    drop((old, got));
    let new = inbox(&store, "new", Start::Latest).await;
    publish(&store, 10..5010).await;
    let first = receive(&new, 5).await;
    let refused = store.hand_over("old", "new").await.expect_err("the new one is served");
    assert!(matches!(&refused, BusError::Refused(why) if why.contains("group new is being served")), "{refused}");
    let mut runs: Vec<_> = first.iter().map(commit).collect();
    runs.iter_mut().zip(10..).for_each(|(run, n)| run.effects.writes = vec![add(&format!("n/{n}"), 1.0)]);
    settle(&new, runs).await;
    drop(new);
    left_alone(&store, "new").await;

    // 7 went back into the old group's claim; 8 and 9 is what the new one had skipped.
    let moved = store.hand_over("old", "new").await.expect("nobody serves them");
    assert_eq!(moved, Moved { streams: 1, taken_in: 2, delayed: 2, dead: 1 });
    assert_eq!(detail(&store, "old").await, None);
    place.clock.advance(61_000);
    let new = inbox(&store, "new", Start::Latest).await;
    count_all(&store, &new, "new").await;
    for n in (0..5010).filter(|n| *n != 6) {
        assert_eq!(counted(&store, n).await.as_deref(), Some("1"), "event {n}");
    }
    let letter =
        store.list(DeadFilter { limit: 10, ..DeadFilter::default() }).await.expect("they are readable").remove(0);
    assert_eq!(letter.group, "new");
    store.replay(letter.id).await.expect("it is replayed");
    assert_eq!(id(&*receive_one(&new).await), "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_groups_that_ran_side_by_side_each_gives_what_the_other_has_not_received() {
    let desk = Desk::new();
    let store = desk.open();
    publish(&store, 0..5).await;
    let (old, new) = (inbox(&store, "old", Start::Earliest).await, inbox(&store, "new", Start::Latest).await);
    publish(&store, 5..12).await;
    // The old one has handled 0 to 2 and 11 and holds the rest; the new one has handled 5 and holds 6.
    let (theirs, ours) = (receive(&old, 12).await, receive(&new, 2).await);
    settle(&old, [0, 1, 2, 11].map(|at: usize| commit(&theirs[at])).to_vec()).await;
    settle(&new, vec![commit(&ours[0])]).await;
    drop((old, new, theirs, ours));
    left_alone(&store, "old").await;
    left_alone(&store, "new").await;
    let moved = store.hand_over("old", "new").await.expect("nobody serves them");
    assert_eq!(moved, Moved { streams: 1, ..Moved::default() });
    publish(&store, [12]).await;
    let new = inbox(&store, "new", Start::Latest).await;
    let got = receive(&new, 8).await;
    let mut ids: Vec<u32> = got.iter().map(|one| id(&**one).parse().expect("a number")).collect();
    ids.sort_unstable();
    assert_eq!(ids, [3, 4, 6, 7, 8, 9, 10, 12]);
    settle(&new, got.iter().map(commit).collect()).await;
    let status = detail(&store, "new").await.expect("it exists");
    assert_eq!((status.lag, status.in_flight, status.lost), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_exist_yet_takes_the_place_of_another() {
    let place = Desk::new();
    let store = place.open();
    publish(&store, 0..4).await;
    let old = inbox(&store, "old", Start::Earliest).await;
    let got = receive(&old, 2).await;
    settle(&old, vec![commit(&got[0])]).await;
    drop((old, got));
    left_alone(&store, "old").await;
    let moved = store.hand_over("old", "new").await.expect("nobody serves it");
    assert_eq!(moved, Moved { streams: 1, ..Moved::default() });
    let new = inbox(&store, "new", Start::Latest).await;
    let mut got: Vec<_> = receive(&new, 3).await.iter().map(|one| id(&**one)).collect();
    got.sort();
    assert_eq!(got, ["1", "2", "3"]);
    let missing = store.hand_over("old", "other").await.expect_err("it is gone");
    assert!(missing.to_string().contains("there is no group old"), "{missing}");
    assert!(store.hand_over("new", "new").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_group_takes_over_what_can_be_taken_back() {
    let place = Desk::new();
    let store = place.open();
    let later = |id: &str| Emit { delay: Some(Duration::from_secs(60)), ..emit("out", id) };
    publish(&store, 0..3).await;
    let old = inbox(&store, "old", Start::Earliest).await;
    let mut first = commit(&receive_one(&old).await);
    first.effects.events = vec![later("a"), later("b"), later("c")];
    settle(&old, vec![first]).await;
    drop(old);
    left_alone(&store, "old").await;
    store.hand_over("old", "new").await.expect("nobody serves it");
    let new = inbox(&store, "new", Start::Latest).await;
    let mut second = commit(&receive_one(&new).await);
    second.effects.cancels = vec!["a".into()];
    settle(&new, vec![second]).await;
    drop(new);
    left_alone(&store, "new").await;
    // The next group may get the number of the forgotten one, and nothing else of it.
    assert!(store.forget("new").await.expect("nobody serves it"));
    let next = inbox(&store, "next", Start::Earliest).await;
    let mut third = commit(&receive_one(&next).await);
    third.effects.cancels = vec!["b".into()];
    settle(&next, vec![third]).await;
    place.clock.advance(61_000);
    publish(&store, [9]).await;
    let out = async || store.history("out", None, 10).await.expect("it is readable").len() == 2;
    crate::conformance::until(out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_group_begins_anew_and_its_dead_letters_stay() {
    let place = Desk::new();
    let store = place.open();
    publish(&store, 0..3).await;
    let served = inbox(&store, "old", Start::Earliest).await;
    let got = receive(&served, 2).await;
    settle(&served, vec![run(&got[0], retry(60, "later")), run(&got[1], reject("no"))]).await;
    assert!(store.forget("old").await.is_err(), "it is served");
    drop((served, got));
    left_alone(&store, "old").await;
    assert!(store.forget("old").await.expect("nobody serves it"));
    assert!(!store.forget("old").await.expect("there is none"));
    let letters = store.list(DeadFilter { limit: 10, ..DeadFilter::default() }).await.expect("they are readable");
    assert_eq!((letters.len(), letters[0].group.as_str()), (1, ""));
    // Another group gets its number, and nothing else of it.
    let other = inbox(&store, "other", Start::Latest).await;
    place.clock.advance(61_000);
    publish(&store, ["new"]).await;
    assert_eq!(id(&*receive_one(&other).await), "new");
    assert_eq!(detail(&store, "other").await.map(|detail| (detail.lag, detail.dead)), Some((0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_process_is_seen_and_its_groups_are_left_alone() {
    let place = Desk::new();
    let (host, operator) = (place.open(), place.open());
    let _served = inbox(&host, "group", Start::Earliest).await;
    assert_eq!(operator.processes().await.expect("they are readable").len(), 1);
    assert_eq!(detail(&operator, "group").await.map(|detail| detail.live), Some(true));
    assert!(operator.hand_over("group", "other").await.is_err());
    assert!(operator.forget("group").await.is_err());
    host.close().await;
    assert_eq!(operator.processes().await.expect("they are readable"), []);
    assert!(operator.forget("group").await.expect("nobody serves it any more"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_types_that_a_handler_no_longer_asks_for_is_done() {
    let place = Desk::new();
    let store = place.open();
    publish(&store, ["a", "b"]).await;
    let first = inbox(&store, "group", Start::Earliest).await;
    receive(&first, 2).await;
    drop(first);
    let wants = Subscription { types: vec![pattern("order.paid")], ..subscription("group") };
    let second = store.subscribe(wants).await.expect("the group is opened").inbox;
    let mut paid = emit("orders", "c");
    paid.event.kind = "order.paid".to_owned();
    store.publish(vec![paid]).await.expect("the event is stored");
    let got = second.receive(10).await.expect("the store can be read");
    assert_eq!(got.iter().map(id).collect::<Vec<_>>(), ["c"]);
    let status = Overview::groups(&*store).await.expect("groups are readable").remove(0);
    assert_eq!((status.lag, status.in_flight), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_of_one_moment_and_replaces_nothing() {
    let place = Desk::new();
    let store = place.open();
    let group = inbox(&store, "group", Start::Earliest).await;
    publish(&store, 0..2000).await;
    let writing = {
        let (store, group) = (store.clone(), group.clone());
        tokio::spawn(async move {
            for n in 0..200 {
                let got = receive(&group, 10).await;
                let runs = got.iter().map(|delivery| {
                    let mut run = commit(delivery);
                    run.effects.writes = vec![add("sum", 1.0)];
                    run.effects.events = vec![emit("out", &format!("{n}"))];
                    run
                });
                settle(&group, runs.collect()).await;
            }
            drop(store);
        })
    };
    let mut copies = Vec::new();
    while !writing.is_finished() {
        let to = place.folder.path().join(format!("copy{}.db", copies.len()));
        store.backup(&to).await.expect("it is copied");
        copies.push(to);
    }
    writing.await.expect("the work went on");
    for copy in &copies {
        let options = Options { clock: Arc::new(place.clock.clone()), ..Options::at(Place::File(copy.clone())) };
        let store = SqliteStore::open(options).expect("a copy opens");
        let sum = store.read(&["sum".to_owned()]).await.expect("state is readable").remove(0);
        let sum: usize = sum.map_or(0, |sum| String::from_utf8_lossy(&sum).parse().expect("a number"));
        let out = store.history("out", None, 10_000).await.expect("history is readable").len();
        assert_eq!(sum, out, "each event has all its effects or none");
    }
    let again = store.backup(&copies[0]).await.expect_err("the file exists");
    assert!(again.to_string().contains("exists already"), "{again}");
    let nowhere = store.backup(&place.folder.path().join("no/such/copy.db")).await.expect_err("there is no folder");
    assert!(nowhere.to_string().contains("cannot write"), "{nowhere}");
    let left = std::fs::read_dir(place.folder.path()).expect("a folder").flatten();
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().contains("partial")).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_first_format_is_taken_along() {
    let place = Desk::new();
    let path = place.folder.path().join("moontide.db");
    let conn = Connection::open(&path).expect("the file opens");
    conn.execute_batch(include_str!("../../src/bus/sqlite/schema.sql")).expect("the first format");
    conn.execute_batch(
        "PRAGMA application_id = 0x6d6f6f6e; PRAGMA user_version = 1;
         INSERT INTO stream(id, name, hidden, created_at) VALUES(1, 'orders', 0, 0), (2, 'moontide:retry:old', 1, 0);
         INSERT INTO consumer(id, name, handler, retry_stream, selection, seen_stream, seen_at)
             VALUES(1, 'old', 'h', 2, '{\"streams\":[\"orders\"],\"discover\":[]}', 2, 0);
         INSERT INTO cursor(group_id, stream_id, position) VALUES(1, 1, 0), (1, 2, 0);",
    )
    .expect("a group");
    drop(conn);
    let store = place.open();
    publish(&store, ["a"]).await;
    let old = inbox(&store, "old", Start::Latest).await;
    assert_eq!(id(&*receive_one(&old).await), "a");
}
