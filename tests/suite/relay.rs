//! A bus without state, paired with the SQLite ledger: it runs the conformance suite, and survives a crash between any two
//! steps of a settle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use moontide::bus::relay::Relay;
use moontide::bus::sqlite::{Options, Place, SqliteStore, Synchronous};
use moontide::bus::{
    Answer, Bus, BusError, DeadFilter, Delivery, Features, GroupStatus, HandlerReport, Inbox, Overview, Replayed, Run,
    Settling, Subscribed, Subscription, Undecodable,
};
use moontide::clock::{Clock, ManualClock, Millis};
use moontide::event::{EntryId, Event};
use moontide::judge::Verdict;
use moontide::outcome::Emit;
use moontide::streams::{Retain, Streams};
use rusqlite::Connection;

use crate::conformance::carrier::{Cloud, Fault, Faults, Link};
use crate::conformance::*;

suite!(paired, crate::relay::RelayHarness::new());

/// A carrier that outlives its processes, and the file of the ledger.
pub struct RelayHarness {
    folder: tempfile::TempDir,
    clock: ManualClock,
    cloud: Arc<Cloud>,
}

impl RelayHarness {
    pub fn new() -> Self {
        let clock = ManualClock::at(1_000_000);
        let cloud = Cloud::new(clock.clone());
        Self { folder: tempfile::tempdir().expect("a temporary folder"), clock, cloud }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }

    fn ledger(&self) -> Arc<SqliteStore> {
        let retain = Retain { age: None, length: Some(1) };
        SqliteStore::open(Options {
            synchronous: Synchronous::Normal,
            clock: Arc::new(self.clock.clone()),
            streams: Arc::new(Streams { retain, ..Streams::default() }),
            upkeep_every: Duration::from_millis(20),
            recovery_time: Duration::from_millis(100),
            ..Options::at(Place::File(self.path()))
        })
        .expect("the ledger opens")
    }

    fn count(&self, sql: &str) -> i64 {
        look(&self.path(), sql)
    }

    async fn until_count(&self, sql: &str, expected: i64) {
        until(|| async { self.count(sql) == expected }).await;
    }
}

/// One process: its bus, which waits until what is published lies at the carrier, and what operators see of both.
struct Process {
    relay: Relay,
    link: Arc<Link>,
    desk: Arc<Desk>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.link.die();
    }
}

struct Desk {
    store: std::sync::Weak<SqliteStore>,
    cloud: Arc<Cloud>,
    ledger: PathBuf,
}

impl Desk {
    async fn groups_of_ledger(&self) -> Result<Vec<GroupStatus>, BusError> {
        self.store.upgrade().ok_or(BusError::Closed)?.groups().await
    }

    /// Waits until the outbox is empty, unless the carrier takes nothing.
    async fn until_handed_over(&self) {
        until(|| async { self.cloud.faults().publish != Fault::None || look(&self.ledger, IN_OUTBOX) == 0 }).await;
    }
}

/// A number out of the ledger.
fn look(ledger: &Path, sql: &str) -> i64 {
    let shell = Connection::open(ledger).expect("the file opens");
    shell.busy_timeout(PATIENCE).expect("a timeout is set");
    shell.query_row(sql, [], |row| row.get(0)).expect("the tables are readable")
}

/// Entries of the outbox that are not read, or read and not settled.
const IN_OUTBOX: &str = "SELECT coalesce(sum(s.last_seq \
         - coalesce((SELECT position FROM cursor WHERE stream_id = s.id), 0) \
         + coalesce((SELECT sum(left) FROM span WHERE stream_id = s.id), 0)), 0) \
     FROM stream s WHERE s.name LIKE 'moontide:outbox:%'";

#[async_trait]
impl Bus for Process {
    fn features(&self) -> Features {
        self.relay.features()
    }

    async fn publish(&self, emits: Vec<Emit>) -> Result<Vec<Option<EntryId>>, BusError> {
        let published = self.relay.publish(emits).await?;
        self.desk.until_handed_over().await;
        Ok(published)
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscribed, BusError> {
        self.relay.subscribe(subscription).await
    }
}

#[async_trait]
impl Overview for Desk {
    async fn groups(&self) -> Result<Vec<GroupStatus>, BusError> {
        let mut groups = self.groups_of_ledger().await?;
        for status in &mut groups {
            let (ahead, in_hand) = self.cloud.standing(&status.group);
            (status.lag, status.in_flight) = (status.lag + ahead, status.in_flight + in_hand);
        }
        Ok(groups)
    }

    async fn report(&self, _: Vec<HandlerReport>) -> Result<(), BusError> {
        Ok(())
    }

    async fn reports(&self) -> Result<Vec<HandlerReport>, BusError> {
        Ok(Vec::new())
    }

    async fn history(
        &self,
        stream: &str,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Result<Event, Undecodable>)>, BusError> {
        self.until_handed_over().await;
        let entries = self.cloud.history(stream).into_iter();
        Ok(entries.filter(|(entry, _)| after.is_none_or(|after| *entry > after)).take(limit).collect())
    }
}

#[async_trait]
impl Harness for RelayHarness {
    fn features(&self) -> Features {
        Features { one_store: false, marks: false, durable: true, shared: true, history: true }
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn advance(&self, millis: Millis) {
        self.clock.advance(millis);
    }

    async fn open(&self) -> Host {
        let store = self.ledger();
        let (link, clock) = (self.cloud.connect(), Arc::new(self.clock.clone()));
        let relay = Relay::new(link.clone(), store.clone(), clock).await.expect("the outbox opens");
        assert_eq!(relay.features(), self.features());
        let desk = Arc::new(Desk { store: Arc::downgrade(&store), cloud: self.cloud.clone(), ledger: self.path() });
        let bus = Arc::new(Process { relay, link, desk: desk.clone() });
        Host { bus, ledger: store.clone(), dead: store.clone(), state: store, overview: desk }
    }

    async fn open_silent(&self) -> Host {
        self.open().await
    }

    async fn put_garbage(&self, _: &Host, stream: &str) {
        let fields = vec![
            (Bytes::from_static(b"payload"), Bytes::from_static(b"\xff\x00")),
            (Bytes::from_static(b"key"), Bytes::from_static(b"k")),
        ];
        self.cloud.put(stream, Err(Undecodable { reason: "payload is not UTF-8".into(), fields }));
    }
}

const STANDING: &str = "SELECT count(*) FROM carried WHERE lifted_at IS NULL";
const FENCES: &str = "SELECT count(*) FROM carried";

/// Counts itself, and tells `out`.
fn counted(delivery: &Arc<Delivery>) -> Run {
    let mut run = commit(delivery);
    run.effects.writes = vec![add("n", 1.0)];
    run.effects.events = vec![emit("out", &format!("child of {}", id(&**delivery)))];
    run
}

async fn one(h: &RelayHarness) -> (Host, Arc<dyn Inbox>, Arc<Delivery>) {
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    host.publish("orders", &["a"]).await;
    let delivery = receive_one(&inbox).await;
    (host, inbox, delivery)
}

/// After whatever happened: the effects are there once, the child is there under one id, and nothing is left to do.
async fn came_true_once(h: &RelayHarness, host: &Host, inbox: &Arc<dyn Inbox>) {
    nothing_but_a_marker(host, inbox).await;
    assert_eq!(host.value("n").await.as_deref(), Some("1"));
    let mut children = host.ids("out").await;
    children.dedup();
    assert_eq!(children, ["child of a"]);
    until(|| async { h.cloud.standing("group") == (0, 0) }).await;
    h.until_count(STANDING, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dies_after_the_ledger_and_before_the_outbox() {
    let h = RelayHarness::new();
    let (host, inbox, delivery) = one(&h).await;
    h.cloud.set(Faults { publish: Fault::Away, ..Faults::default() });
    assert_eq!(settle_one(&inbox, counted(&delivery)).await, DONE, "the settle does not wait for the outbox");
    drop((host, inbox));
    assert_eq!(h.cloud.history("out").len(), 0, "it died before the outbox was handed over");
    h.cloud.set(Faults::default());
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    until(|| async { !h.cloud.history("out").is_empty() }).await;
    came_true_once(&h, &host, &inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dies_within_the_outbox() {
    let h = RelayHarness::new();
    let (host, inbox, delivery) = one(&h).await;
    h.cloud.set(Faults { publish: Fault::Unanswered, ..Faults::default() });
    assert_eq!(settle_one(&inbox, counted(&delivery)).await, DONE);
    until(|| async { !h.cloud.history("out").is_empty() }).await;
    drop((host, inbox));
    let before = h.cloud.history("out").len();
    h.cloud.set(Faults::default());
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    until(|| async { h.cloud.history("out").len() > before }).await;
    came_true_once(&h, &host, &inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dies_before_the_acknowledgement() {
    for other_is_open in [false, true] {
        let h = RelayHarness::new();
        let (host, inbox, delivery) = one(&h).await;
        let mut other = None;
        if other_is_open {
            let host = h.open().await;
            let inbox = host.inbox("group").await;
            other = Some((host, inbox));
        }
        h.cloud.set(Faults { acknowledge: Fault::Away, ..Faults::default() });
        let answer = inbox.settle(Arc::from([counted(&delivery)])).await;
        assert!(answer.is_err_and(|error| error.is_passing()));
        until(|| async { h.cloud.history("out").len() == 1 }).await;
        let committed = (h.cloud.standing("group"), h.count(STANDING));
        assert_eq!(committed, ((0, 1), 1), "committed, and the carrier does not know");
        drop((host, inbox));
        assert_eq!(h.cloud.standing("group"), (1, 0), "it comes again");
        h.cloud.set(Faults::default());
        // A group that is opened acknowledges what stands; one that was open recognises what comes.
        let (host, inbox) = match other {
            Some(other) => other,
            None => {
                let host = h.open().await;
                let inbox = host.inbox("group").await;
                (host, inbox)
            }
        };
        came_true_once(&h, &host, &inbox).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dies_after_the_acknowledgement_and_before_the_lift() {
    let h = RelayHarness::new();
    let (host, inbox, delivery) = one(&h).await;
    h.cloud.set(Faults { acknowledge: Fault::Unanswered, ..Faults::default() });
    assert!(inbox.settle(Arc::from([counted(&delivery)])).await.is_err());
    assert_eq!((h.cloud.standing("group"), h.count(STANDING)), ((0, 0), 1), "the carrier knows, and the fence stands");
    drop((host, inbox));
    h.cloud.set(Faults::default());
    let host = h.open().await;
    let inbox = host.inbox("group").await;
    h.until_count(STANDING, 0).await;
    came_true_once(&h, &host, &inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_is_repeated_with_its_settle() {
    for fault in [Fault::Away, Fault::Unanswered] {
        let h = RelayHarness::new();
        let (host, inbox, delivery) = one(&h).await;
        h.cloud.set(Faults { acknowledge: fault, ..Faults::default() });
        let run: Arc<[Run]> = Arc::from([counted(&delivery)]);
        for _ in 0..3 {
            assert!(inbox.settle(run.clone()).await.is_err());
        }
        h.cloud.set(Faults::default());
        assert_eq!(inbox.settle(run).await.expect("it is back"), [Answer::AlreadyMine]);
        came_true_once(&h, &host, &inbox).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_got_no_reply_is_no_loss() {
    for fault in [Fault::Away, Fault::Unanswered] {
        let h = RelayHarness::new();
        let (host, inbox, delivery) = one(&h).await;
        h.cloud.set(Faults { give_back: fault, ..Faults::default() });
        let back: Arc<[Run]> = Arc::from([run(&delivery, Verdict::Release)]);
        assert!(inbox.settle(back.clone()).await.is_err());
        h.cloud.set(Faults::default());
        // Where the carrier heard of it, the event may come before the settle is repeated.
        let early = match fault {
            Fault::Unanswered => Some(receive_one(&inbox).await),
            _ => None,
        };
        inbox.settle(back).await.expect("it is back");
        let again = match early {
            Some(early) => early,
            None => receive_one(&inbox).await,
        };
        assert_eq!(settle_one(&inbox, counted(&delivery)).await, Answer::Fenced, "the old lease is void");
        assert_eq!(settle_one(&inbox, counted(&again)).await, DONE);
        came_true_once(&h, &host, &inbox).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_change_nothing_wherever_they_come_in() {
    let h = RelayHarness::new();
    h.cloud.set(Faults { copies: true, ..Faults::default() });
    let (host, inbox, delivery) = one(&h).await;
    host.publish("orders", &["b"]).await;
    let next = receive_one(&inbox).await;
    assert_eq!(id(&*next), "b", "a copy of what is in hand is not handed out");
    h.cloud.set(Faults::default());
    assert_eq!(settle(&inbox, vec![counted(&delivery), commit(&next)]).await, [DONE, DONE]);
    h.until_count(STANDING, 0).await;
    h.cloud.again("group", "orders", delivery.entry);
    came_true_once(&h, &host, &inbox).await;
    h.clock.advance(600_000);
    h.until_count(FENCES, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_settles_first_wins() {
    for verdict in [Verdict::Commit, retry(60, "late"), reject("late")] {
        let h = RelayHarness::new();
        let (host, inbox, delivery) = one(&h).await;
        let other = h.open().await;
        let theirs = other.inbox("group").await;
        h.cloud.again("group", "orders", delivery.entry);
        let copy = receive_one(&theirs).await;
        assert_eq!((copy.entry, &copy.event), (delivery.entry, &delivery.event), "two processes run it");
        assert_eq!(settle_one(&theirs, counted(&copy)).await, DONE);
        assert_eq!(settle_one(&inbox, run(&delivery, verdict)).await, Answer::AlreadyMine);
        let status = host.status("group").await;
        assert_eq!((status.delayed, status.dead), (0, 0));
        came_true_once(&h, &host, &inbox).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_refuses_is_not_acknowledged() {
    let h = RelayHarness::new();
    let (host, inbox, delivery) = one(&h).await;
    let mut stale = counted(&delivery);
    stale.reads = vec![saw("k", Some("1"))];
    assert_eq!(settle_one(&inbox, stale).await, Answer::Conflict { key: "k".into() });
    let mut forged = counted(&delivery);
    forged.effects.events.push(emit("moontide:outbox:out", "forged"));
    assert!(matches!(settle_one(&inbox, forged).await, Answer::Invalid { .. }));
    assert_eq!((h.cloud.standing("group"), h.count(FENCES)), ((0, 1), 0), "it is still in our hands");
    assert!(host.bus.publish(vec![emit("orders", "b"), emit("moontide:outbox:out", "forged")]).await.is_err());
    assert_eq!(settle_one(&inbox, counted(&delivery)).await, DONE);
    came_true_once(&h, &host, &inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settles_what_lies_here_and_there_in_one_order() {
    let h = RelayHarness::new();
    let (host, inbox, first) = one(&h).await;
    assert_eq!(settle_one(&inbox, run(&first, retry(1, "later"))).await, DONE);
    assert_eq!(h.cloud.standing("group"), (0, 0), "a retry lies in the ledger, and the carrier is done with it");
    h.clock.advance(1000);
    let here = receive_one(&inbox).await;
    host.publish("orders", &["b", "c"]).await;
    let there = receive(&inbox, 2).await;
    let after = |delivery: &Arc<Delivery>, saw_now: Option<&str>, writes: &str| {
        let mut run = commit(delivery);
        run.reads = vec![saw("k", saw_now)];
        run.effects.writes = vec![set("k", writes)];
        run
    };
    let runs = vec![after(&there[0], None, "1"), after(&here, Some("1"), "2"), after(&there[1], Some("2"), "3")];
    assert_eq!(settle(&inbox, runs).await, vec![DONE; 3], "each sees what the one before it wrote");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_over_both_ends_as_one() {
    let h = RelayHarness::new();
    let (host, inbox, first) = one(&h).await;
    assert_eq!(settle_one(&inbox, run(&first, retry(1, "later"))).await, DONE);
    h.clock.advance(1000);
    let here = receive_one(&inbox).await;
    host.publish("orders", &["b"]).await;
    let there = receive_one(&inbox).await;
    let mut both = counted(&here);
    both.deliveries.push(Settling { delivery: there, verdict: Verdict::Commit });
    assert_eq!(settle_one(&inbox, both.clone()).await, DONE);
    assert_eq!(h.cloud.standing("group"), (0, 0));
    assert_eq!(settle_one(&inbox, both).await, Answer::AlreadyMine);
    came_true_once(&h, &host, &inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_vanished_from_the_ledger_gets_its_event_again() {
    let h = RelayHarness::new();
    let (host, inbox, mut delivery) = one(&h).await;
    let mut events = 1;
    let end = async {
        loop {
            let shell = Connection::open(h.path()).expect("the file opens");
            shell.busy_timeout(PATIENCE).expect("a timeout is set");
            shell.execute("DELETE FROM consumer WHERE name = 'group'", []).expect("the group is deleted");
            match settle_one(&inbox, counted(&delivery)).await {
                Answer::StoreReset => break,
                // A claim was under way that created the group again before the settle came.
                answer => assert_eq!(answer, DONE),
            }
            host.publish("orders", &["another"]).await;
            (delivery, events) = (receive_one(&inbox).await, events + 1);
        }
        loop {
            let again = receive_one(&inbox).await;
            assert_eq!(again.entry, delivery.entry, "what was dropped comes again");
            match settle_one(&inbox, counted(&again)).await {
                Answer::StoreReset => {}
                answer => return answer,
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.expect("the group is created again"), DONE);
    assert_eq!(host.value("n").await, Some(events.to_string()));
    nothing_but_a_marker(&host, &inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_carrier_refuses_for_ever_holds_up_nobody() {
    let h = RelayHarness::new();
    let (host, inbox, delivery) = one(&h).await;
    h.cloud.set(Faults { refused: Some("huge"), ..Faults::default() });
    let mut run = counted(&delivery);
    let huge = Emit { stream: "out".into(), event: event("huge", "h"), delay: None };
    run.effects.events = vec![emit("out", "x"), huge, emit("out", "y")];
    assert_eq!(settle_one(&inbox, run).await, DONE);
    assert_eq!(host.ids("out").await, ["x", "y"]);
    let letters = host.dead.list(DeadFilter { limit: 9, ..DeadFilter::default() }).await.expect("they are readable");
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].handler.as_str(), &letters[0].event), ("outbox", &Ok(event("huge", "h"))));
    assert!(letters[0].failures[0].failure.message.contains("too large"));
    h.cloud.set(Faults::default());
    let replayed = host.dead.replay(letters[0].id).await.expect("a replay is possible");
    assert_eq!(replayed, Replayed::Queued);
    until(|| async { h.cloud.history("out").len() == 3 }).await;
    assert_eq!(host.ids("out").await, ["x", "y", "h"], "to the stream it was meant for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outbox_keeps_everything_until_somebody_reads_it() {
    let h = RelayHarness::new();
    // Nobody empties it yet, and upkeep trims what is not needed: a stream that is read by nobody shows when.
    let store = h.ledger();
    let sent = |stream: &str| (0..3).map(|n| emit(stream, &format!("e{n}"))).collect();
    let trimmed = "SELECT count(*) FROM event e JOIN stream s ON s.id = e.pos >> 40 WHERE s.name = 'trimmed'";
    store.publish(sent("moontide:outbox:orders")).await.expect("it is stored");
    store.publish(sent("trimmed")).await.expect("it is stored");
    h.until_count(trimmed, 1).await;
    drop(store);
    let host = h.open().await;
    assert_eq!(host.ids("orders").await, ["e0", "e1", "e2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outbox_keeps_nothing_that_was_handed_over() {
    let h = RelayHarness::new();
    let (host, inbox, delivery) = one(&h).await;
    assert_eq!(settle_one(&inbox, counted(&delivery)).await, DONE);
    came_true_once(&h, &host, &inbox).await;
    h.until_count("SELECT count(*) FROM event", 0).await;
}
