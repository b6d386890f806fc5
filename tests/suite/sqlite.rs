//! The embedded store: it runs the conformance suite on a file and in memory, and keeps a file's own promises.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moontide::bus::sqlite::{Options, Place, SqliteStore, Synchronous};
use moontide::bus::{Answer, Bus, BusError, DeadLetters, Features, Ledger, Overview, Run, StateAdmin};
use moontide::clock::{Clock, ManualClock, Millis};
use moontide::event::Json;
use moontide::streams::{Retain, Streams};
use rusqlite::Connection;

use crate::conformance::{
    DONE, Harness, Host, add, commit, emit, id, receive, receive_one, set, settle, subscription, suite,
};

suite!(file, crate::sqlite::FileHarness::new());
suite!(memory, crate::sqlite::MemoryHarness::new());

/// So short that a case does not wait long for a death.
pub const RECOVERY: Duration = Duration::from_millis(100);

pub struct FileHarness {
    folder: tempfile::TempDir,
    clock: ManualClock,
}

impl FileHarness {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), clock: ManualClock::at(1_000_000) }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("moontide.db")
    }

    pub fn options(&self) -> Options {
        Options {
            synchronous: Synchronous::Normal,
            clock: Arc::new(self.clock.clone()),
            upkeep_every: Duration::from_millis(20),
            ..Options::at(Place::File(self.path()))
        }
    }

    pub fn shell(&self) -> Connection {
        Connection::open(self.path()).expect("the file opens")
    }
}

fn host(store: Arc<SqliteStore>) -> Host {
    Host { bus: store.clone(), ledger: store.clone(), dead: store.clone(), state: store.clone(), overview: store }
}

#[async_trait]
impl Harness for FileHarness {
    fn features(&self) -> Features {
        Features { one_store: true, marks: true, durable: true, shared: true, history: true }
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn advance(&self, millis: Millis) {
        self.clock.advance(millis);
    }

    async fn open(&self) -> Host {
        host(SqliteStore::open(Options { recovery_time: RECOVERY, ..self.options() }).expect("the store opens"))
    }

    async fn open_silent(&self) -> Host {
        let recovery_time = Duration::from_secs(3600);
        host(SqliteStore::open(Options { recovery_time, ..self.options() }).expect("the store opens"))
    }

    async fn put_garbage(&self, _host: &Host, stream: &str) {
        let shell = self.shell();
        let sql = "BEGIN IMMEDIATE;
            INSERT OR IGNORE INTO stream(name, hidden, created_at) VALUES('STREAM', 0, 0);
            UPDATE stream SET last_seq = last_seq + 1 WHERE name = 'STREAM';
            INSERT INTO event(pos, id, source, data, subject, stored_at)
                SELECT id << 40 | last_seq, 'garbage', 'test', x'ff00', 7, 0 FROM stream WHERE name = 'STREAM';
            COMMIT";
        shell.busy_timeout(Duration::from_secs(5)).expect("a timeout is set");
        shell.execute_batch(&sql.replace("STREAM", stream)).expect("the row is written");
    }
}

pub struct MemoryHarness(ManualClock);

impl MemoryHarness {
    pub fn new() -> Self {
        Self(ManualClock::at(1_000_000))
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    fn features(&self) -> Features {
        Features { one_store: true, marks: true, durable: false, shared: false, history: true }
    }

    fn now(&self) -> Millis {
        self.0.now()
    }

    fn advance(&self, millis: Millis) {
        self.0.advance(millis);
    }

    async fn open(&self) -> Host {
        let options = Options { clock: Arc::new(self.0.clone()), ..Options::at(Place::Memory) };
        host(SqliteStore::open(options).expect("the store opens"))
    }

    async fn open_silent(&self) -> Host {
        self.open().await
    }

    async fn put_garbage(&self, host: &Host, stream: &str) {
        let mut garbage = emit(stream, "garbage");
        garbage.event.data = Some(Json::trusted(&b"\xff\x00"[..]));
        host.bus.publish(vec![garbage]).await.expect("the entry is stored");
    }
}

/// What opening the file comes to.
fn refusal(options: Options) -> String {
    match SqliteStore::open(options) {
        Err(error @ BusError::Unusable { .. }) => error.to_string(),
        Err(error) => panic!("it is for an operator to mend: {error:?}"),
        Ok(_) => panic!("the file is refused"),
    }
}

#[test]
fn says_what_is_wrong_with_a_file() {
    let h = FileHarness::new();
    std::fs::write(h.path(), "This is a text, and long enough to be taken for a header of something.".repeat(20))
        .expect("the file is written");
    let text = refusal(h.options());
    assert!(text.contains("not a SQLite database") && text.contains("moontide.db"), "{text}");

    let h = FileHarness::new();
    drop(SqliteStore::open(h.options()).expect("the store opens"));
    let mut permissions = std::fs::metadata(h.path()).expect("the file is there").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(h.path(), permissions).expect("the file is made read-only");
    assert!(refusal(h.options()).contains("read-only"));

    let h = FileHarness::new();
    h.shell().execute_batch("CREATE TABLE theirs(a)").expect("a table is made");
    assert!(refusal(h.options()).contains("another program"));
    h.shell().execute_batch("SELECT a FROM theirs").expect("and left alone");

    let h = FileHarness::new();
    assert!(refusal(Options { place: Place::File(h.folder.path().into()), ..h.options() }).contains("folder"));

    let h = FileHarness::new();
    drop(SqliteStore::open(h.options()).expect("the store opens"));
    h.shell().pragma_update(None, "user_version", 99).expect("the version is written");
    assert!(refusal(h.options()).contains("newer moontide"));
}

#[test]
fn notices_damage_when_it_opens() {
    let h = FileHarness::new();
    drop(SqliteStore::open(h.options()).expect("the store opens"));
    h.shell().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("everything is in the file");
    let mut bytes = std::fs::read(h.path()).expect("the file is readable");
    let third_page = 2 * 4096;
    bytes[third_page..third_page + 64].fill(0xa5);
    std::fs::write(h.path(), bytes).expect("the file is written");
    let text = refusal(h.options());
    assert!(text.contains("recover"), "{text}");
}

#[tokio::test]
async fn makes_missing_folders_and_leaves_no_trace_when_closed() {
    let h = FileHarness::new();
    let path = h.folder.path().join("a/b/shop.db");
    let options = Options { place: Place::File(path.clone()), ..h.options() };
    let store = SqliteStore::open(options).expect("the store opens");
    store.close().await;
    assert!(matches!(store.publish(Vec::new()).await, Err(BusError::Closed)));
    let processes: i64 = Connection::open(&path)
        .and_then(|conn| conn.query_row("SELECT count(*) FROM process", [], |row| row.get(0)))
        .expect("the table is readable");
    assert_eq!(processes, 0);
    let left: Vec<_> = std::fs::read_dir(path.parent().expect("it has a folder"))
        .expect("the folder is readable")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("alive"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn a_closed_store_ends_a_waiting_receive() {
    let h = FileHarness::new();
    let store = SqliteStore::open(h.options()).expect("the store opens");
    let inbox = store.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    let waiting = tokio::spawn(async move { inbox.receive(1).await.map(|got| got.len()) });
    store.close().await;
    assert!(matches!(waiting.await.expect("the task ends"), Err(BusError::Closed)));
}

#[tokio::test]
async fn a_deleted_file_is_noticed_before_anything_is_lost_in_it() {
    let h = FileHarness::new();
    let store = SqliteStore::open(h.options()).expect("the store opens");
    std::fs::remove_file(h.path()).expect("the file is removed");
    let answer = store.publish(vec![emit("orders", "a")]).await;
    assert!(matches!(&answer, Err(BusError::Unusable { cause, .. }) if cause.contains("deleted")), "{answer:?}");
}

#[tokio::test]
async fn a_locked_file_is_away_and_comes_back() {
    let h = FileHarness::new();
    let store = SqliteStore::open(h.options()).expect("the store opens");
    let shell = h.shell();
    shell.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    let answer = store.publish(vec![emit("orders", "a")]).await;
    assert!(answer.is_err_and(|error| error.is_passing()));
    shell.execute_batch("ROLLBACK").expect("the lock is given up");
    store.publish(vec![emit("orders", "b")]).await.expect("it is back");
    let history = store.history("orders", None, 10).await.expect("history is readable");
    assert_eq!(history.len(), 1, "what was answered with an error was not stored");
}

/// Keeps two entries per stream, and forgets groups after a minute.
fn short_memory(h: &FileHarness) -> Options {
    let retain = Retain { age: None, length: Some(2) };
    Options {
        streams: Arc::new(Streams { retain, ..Streams::default() }),
        forget_group_after: Duration::from_secs(60),
        recovery_time: RECOVERY,
        ..h.options()
    }
}

async fn ids(store: &SqliteStore, stream: &str) -> Vec<String> {
    let found = store.history(stream, None, 100).await.expect("history is readable");
    found.into_iter().filter_map(|(_, event)| event.ok()).map(|event| event.id).collect()
}

async fn ids_until(store: &SqliteStore, stream: &str, expected: &[&str]) {
    let wait = async {
        loop {
            let found = ids(store, stream).await;
            if found == expected {
                return;
            }
            assert!(found.len() >= expected.len(), "trimmed too far: {found:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("history is trimmed");
}

const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[tokio::test]
async fn trims_only_what_no_living_group_needs() {
    let h = FileHarness::new();
    let store = SqliteStore::open(short_memory(&h)).expect("the store opens");
    let (fast, slow) = (subscription("fast"), subscription("slow"));
    let fast = store.subscribe(fast).await.expect("the group is opened").inbox;
    let slow = store.subscribe(slow).await.expect("the group is opened").inbox;
    store.publish(IDS.map(|id| emit("orders", id)).into()).await.expect("the events are stored");
    let got = receive(&fast, 6).await;
    settle(&fast, got.iter().map(commit).collect()).await;
    let theirs = receive(&slow, 3).await;
    settle(&slow, vec![commit(&theirs[0])]).await;
    // The slow group still holds what it claimed: nothing may go, whatever the length says. A stream that nobody reads
    // shows when upkeep has been here.
    store.publish(IDS.map(|id| emit("unread", id)).into()).await.expect("the events are stored");
    ids_until(&store, "unread", &["e", "f"]).await;
    assert_eq!(ids(&store, "orders").await, IDS);
    settle(&slow, theirs[1..].iter().map(commit).collect()).await;
    ids_until(&store, "orders", &["d", "e", "f"]).await;
    let rest = receive(&slow, 3).await;
    assert_eq!(rest.iter().map(|one| id(&**one)).collect::<Vec<_>>(), ["d", "e", "f"]);
    settle(&slow, rest.iter().map(commit).collect()).await;
    ids_until(&store, "orders", &["e", "f"]).await;
}

#[tokio::test]
async fn a_forgotten_group_holds_nothing_back_and_its_loss_is_counted() {
    let h = FileHarness::new();
    let store = SqliteStore::open(short_memory(&h)).expect("the store opens");
    let ids = ["a", "b", "c", "d", "e"];
    let gone = store.subscribe(subscription("gone")).await.expect("the group is opened").inbox;
    store.publish(ids.map(|id| emit("orders", id)).into()).await.expect("the events are stored");
    drop(gone);
    // A heartbeat that began before the drop may still name the group: time goes on until it is forgotten.
    let pass_time = async {
        loop {
            h.clock.advance(61_000);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = pass_time => {}
        () = ids_until(&store, "orders", &["d", "e"]) => {}
    }
    let back = store.subscribe(subscription("gone")).await.expect("the group is opened").inbox;
    assert_eq!(id(&*receive_one(&back).await), "d");
    let lost: i64 = h
        .shell()
        .query_row("SELECT lost FROM consumer WHERE name = 'gone'", [], |row| row.get(0))
        .expect("the group is readable");
    assert_eq!(lost, 3);
}

#[tokio::test]
async fn trims_by_age() {
    let h = FileHarness::new();
    let retain = Retain { age: Some(Duration::from_secs(60)), length: None };
    let streams = Arc::new(Streams { retain, ..Streams::default() });
    let store = SqliteStore::open(Options { streams, ..h.options() }).expect("the store opens");
    store.publish(vec![emit("orders", "old")]).await.expect("the event is stored");
    h.clock.advance(50_000);
    store.publish(vec![emit("orders", "new")]).await.expect("the event is stored");
    h.clock.advance(10_001);
    ids_until(&store, "orders", &["new"]).await;
}

#[tokio::test]
async fn removes_what_expired_and_what_the_dead_left() {
    let h = FileHarness::new();
    let dead = SqliteStore::open(Options { recovery_time: RECOVERY, ..h.options() }).expect("the store opens");
    let inbox = dead.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    dead.publish(vec![emit("orders", "a")]).await.expect("the event is stored");
    let mut run = commit(&receive_one(&inbox).await);
    run.record = crate::conformance::record("key");
    settle(&inbox, vec![run]).await;
    drop(dead);
    h.clock.advance(3600 * 1000);
    let store = SqliteStore::open(Options { recovery_time: RECOVERY, ..h.options() }).expect("the store opens");
    let wait = async {
        let shell = h.shell();
        shell.busy_timeout(Duration::from_secs(5)).expect("a timeout is set");
        let count = |sql: &str| -> i64 { shell.query_row(sql, [], |row| row.get(0)).expect("the table is readable") };
        while count("SELECT count(*) FROM record") > 0
            || count("SELECT count(*) FROM process") > 1
            || count("SELECT count(*) FROM span") > 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it is removed");
    drop(store);
}

#[tokio::test]
async fn people_see_dead_letters_in_a_view() {
    let h = FileHarness::new();
    let store = SqliteStore::open(h.options()).expect("the store opens");
    let inbox = store.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    store.publish(vec![emit("orders", "a")]).await.expect("the event is stored");
    let delivery = receive_one(&inbox).await;
    settle(&inbox, vec![crate::conformance::run(&delivery, crate::conformance::reject("no such customer"))]).await;
    let row: (String, String, String, String, String) = h
        .shell()
        .query_row("SELECT handler, \"group\", reason, error, entry FROM dead_letters", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .expect("the view is readable");
    let expected = ("group-handler", "group", "rejected", "no such customer", "orders/1-0");
    assert_eq!((&*row.0, &*row.1, &*row.2, &*row.3, &*row.4), expected);
    let letters = store.list(moontide::bus::DeadFilter { limit: 1, ..Default::default() }).await;
    assert_eq!(letters.expect("dead letters are readable").len(), 1);
}

#[test]
fn many_processes_may_create_the_file_at_once() {
    let h = FileHarness::new();
    std::thread::scope(|scope| {
        let opening: Vec<_> = (0..8).map(|_| scope.spawn(|| SqliteStore::open(h.options()).map(drop))).collect();
        for opened in opening {
            opened.join().expect("the thread ends").expect("the store opens");
        }
    });
}

#[tokio::test]
async fn a_run_that_the_database_refuses_harms_no_other() {
    let h = FileHarness::new();
    let store = SqliteStore::open(h.options()).expect("the store opens");
    let inbox = store.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    store.publish(IDS.map(|id| emit("orders", id)).into()).await.expect("the events are stored");
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON kv WHEN NEW.key = 'bad' BEGIN SELECT RAISE(ABORT, 'not this'); END";
    h.shell().execute_batch(refuse).expect("the trigger is made");
    let got = receive(&inbox, 6).await;
    let runs: Vec<Run> = got
        .iter()
        .enumerate()
        .map(|(n, delivery)| {
            let mut run = commit(delivery);
            run.effects.events = vec![emit("out", &id(&**delivery))];
            run.effects.writes = vec![add("n", 1.0), set(if n == 2 { "bad" } else { "good" }, "1")];
            run
        })
        .collect();
    let answers = settle(&inbox, runs).await;
    for (n, answer) in answers.iter().enumerate() {
        match (n, answer) {
            (2, Answer::Invalid { reason }) => assert!(reason.contains("not this"), "{reason}"),
            (_, answer) => assert_eq!((n != 2, answer), (true, &DONE)),
        }
    }
    assert_eq!(ids(&store, "out").await, ["a", "b", "d", "e", "f"]);
    let entries = store.history("out", None, 10).await.expect("history is readable");
    assert_eq!(entries.last().map(|(entry, _)| entry.0), Some(5), "numbers stay dense");
    let n = store.read(&["n".to_owned()]).await.expect("state is readable");
    assert_eq!(n[0].as_deref(), Some(&b"5"[..]));
    let refused = store.write(vec![set("other", "1"), set("bad", "1")]).await;
    assert!(matches!(refused, Err(BusError::Refused(_))), "{refused:?}");
    assert_eq!(store.read(&["other".to_owned()]).await.expect("state is readable"), [None]);
}

#[tokio::test]
async fn a_settled_suspect_leaves_no_mark() {
    let h = FileHarness::new();
    for died in 0..3 {
        let store = SqliteStore::open(Options { recovery_time: RECOVERY, ..h.options() }).expect("the store opens");
        let inbox = store.subscribe(subscription("group")).await.expect("the group is opened").inbox;
        if died == 0 {
            store.publish(vec![emit("orders", "a")]).await.expect("the event is stored");
        }
        let suspect = receive_one(&inbox).await;
        assert_eq!(suspect.orphaned, died);
        let marks = || -> i64 {
            h.shell().query_row("SELECT count(*) FROM mark", [], |row| row.get(0)).expect("the table is readable")
        };
        if died == 2 {
            assert!(inbox.mark(&suspect).await.expect("the store can be written"));
            assert_eq!(marks(), 1);
            assert_eq!(settle(&inbox, vec![commit(&suspect)]).await, [DONE]);
            assert_eq!(marks(), 0);
        }
        drop(store);
    }
}
