//! Workers of others in the same group, written in Python as services have them: one is replaced by a script while it works.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moontide::bus::redis::{Address, Adopt, AdoptRules, Options, RedisBus};
use moontide::bus::{Answer, Bus, Overview, Start, Subscription};

use crate::conformance::{DONE, add, commit, id, receive, settle, subscription};
use crate::docs;
use crate::http::client::get;
use crate::rig::{Place, Rig};
use crate::support::free_port;
use moontide_stage::server::{Kind, Server};

const STREAM: &str = "shop.orders";
const GROUP: &str = "legacy";
/// Counts each event under its number.
const SCRIPT: &str = r#"
return {
    on = "order.placed",
    group = "legacy",
    handle = function(event, ctx)
        ctx.kv:add("done/" .. event.data.n, 1)
        ctx.kv:add("attempt/" .. ctx.attempt, 1)
    end,
}
"#;

/// A process of `tests/clients/old_worker.py`; killed when dropped.
struct OldWorker(Child);

impl OldWorker {
    fn start(server: &Server, consumer: &str, options: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/python/bin/python");
        assert!(python.exists(), "{} is missing: scripts/test makes it", python.display());
        let child = Command::new(python)
            .arg(root.join("tests/clients/old_worker.py"))
            .args([&server.url(), STREAM, GROUP, consumer])
            .args(options)
            .stdin(Stdio::null())
            .spawn();
        Self(child.expect("python runs"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill is there").success(), "it lives");
    }
}

impl Drop for OldWorker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a long time before it does anything.
const SLOW: &str = r#"
return {
    on = "order.placed",
    group = "legacy",
    concurrency = 4,
    handle = function(event, ctx)
        log.warn("BEGUN")
        ctx:sleep("25s")
        ctx.kv:add("done/" .. event.data.n, 1)
    end,
}
"#;

/// A rig whose handler has the old worker's stream and group.
async fn rig(kind: Kind, script: &str, adopt: &str, settings: &str) -> Rig {
    let settings = format!(
        "{settings}\n[groups]\nrecovery = \"1s\"\n[[stream]]\ntypes = [\"order.*\"]\nname = \"{STREAM}\"\n\
         [handlers.orders]\nadopt = {adopt}"
    );
    Rig::configured(Place::server(kind), &[("orders", script)], &settings).await
}

/// Writes numbered entries at once, as a service does that knows nothing of us.
fn publish(connection: &mut redis::Connection, numbers: impl IntoIterator<Item = u64>) {
    let mut all = redis::pipe();
    for n in numbers {
        let data = format!("{{\"n\": {n}}}");
        all.cmd("XADD").arg(STREAM).arg("*").arg("type").arg("order.placed").arg("data").arg(data);
    }
    all.exec(connection).expect("the server takes them");
}

/// A service that publishes all the time, about a thousand events a second.
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Publisher {
    /// So many at once, so that whoever reads finds several.
    const BURST: u64 = 30;

    fn start(server: &Server) -> Self {
        let (stop, mut connection) = (Arc::new(AtomicBool::new(false)), server.connect());
        let stopped = stop.clone();
        let publishing = move || {
            let mut last = 0;
            while !stopped.load(Ordering::Relaxed) {
                publish(&mut connection, last + 1..=last + Self::BURST);
                last += Self::BURST;
                std::thread::sleep(Duration::from_millis(Self::BURST));
            }
            last
        };
        Self { stop, thread: std::thread::spawn(publishing) }
    }

    /// How many events there are.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// What a consumer handled, by its own word.
fn handled(server: &Server, consumer: &str) -> Vec<u64> {
    server.get(&["LRANGE", &format!("old:{consumer}"), "0", "-1"])
}

/// The numbers of the entries that are pending for a consumer, and how often each was delivered.
fn pending(server: &Server, consumer: &str) -> BTreeMap<u64, u64> {
    let rows = server.try_call(&["XPENDING", STREAM, GROUP, "-", "+", "100000", consumer]);
    let rows = rows.map_or_else(|_| Vec::new(), |rows| redis::from_redis_value(rows).expect("it has rows"));
    let number = |entry: &str| {
        let entries: Vec<(String, Vec<String>)> = server.get(&["XRANGE", STREAM, entry, entry]);
        let data: serde_json::Value = serde_json::from_str(&entries[0].1[3]).expect("it is JSON");
        data["n"].as_u64().expect("it is a number")
    };
    let row = |(entry, _, _, times): (String, String, u64, u64)| (number(&entry), times);
    rows.into_iter().map(row).collect()
}

/// The numbers that our handler counted, each once.
async fn ours(rig: &Rig) -> BTreeSet<u64> {
    let done = rig.state().await.into_iter().filter(|(key, _)| key.starts_with("done/"));
    done.map(|(key, times)| {
        assert_eq!(times, 1, "{key} was handled twice");
        key["done/".len()..].parse().expect("a number")
    })
    .collect()
}

/// What `moontide groups list` says of the group: consumers of others that hold something, and how much.
fn listed(rig: &Rig) -> (u64, u64) {
    let list = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
        let found = command.current_dir(rig.dir.path()).args(["groups", "list"]).args(arguments).output();
        String::from_utf8(found.expect("it runs").stdout).expect("it is text")
    };
    let rows: serde_json::Value = serde_json::from_str(&list(&["--json"])).expect("it is JSON");
    let count = |key: &str| rows[0][key].as_u64().expect("a number");
    assert!(list(&[]).lines().next().is_some_and(|header| header.contains("FOREIGN")), "{}", list(&[]));
    (count("foreign_consumers"), count("foreign_pending"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_replaced_under_load_on_redis() {
    replace_under_load(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_replaced_under_load_on_valkey() {
    replace_under_load(Kind::Valkey).await;
}

/// Two old workers share the group with ours while events come; one is killed, and the other, which is slow, goes on. Each event is
/// handled by exactly one of the three, but for those that the killed one had handled and not acknowledged.
async fn replace_under_load(kind: Kind) {
    let metrics: std::net::SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let settings = format!("[metrics]\nlisten = \"{metrics}\"");
    let rig = rig(kind, SCRIPT, r#"{ consumers = ["worker-*"], idle = "4s" }"#, &settings).await;
    let server = rig.server();
    let publisher = Publisher::start(server);
    let mut dying = OldWorker::start(server, "worker-1", &["--pause", "0.01", "--acknowledge", "batch"]);
    rig.until("the old one is at work", async || handled(server, "worker-1").len() > 50).await;
    // A batch takes it longer than `idle`.
    let _slow = OldWorker::start(server, "worker-2", &["--pause", "0.8"]);
    rig.until("it has a whole batch", async || pending(server, "worker-2").len() == 10).await;
    let our_worker = rig.start();
    let shared = async || ours(&rig).await.len() > 100 && !handled(server, "worker-2").is_empty();
    rig.until("all three have some", shared).await;

    // Ours is so much faster that there are no batches for the others: it stands still until one of them has one.
    our_worker.signal("STOP");
    let left = kill_in_a_batch(&rig, &mut dying).await;
    our_worker.signal("CONT");
    rig.until("ours has adopted it", async || pending(server, "worker-1").is_empty()).await;
    rig.until("the slow one goes on", async || handled(server, "worker-2").len() > 10).await;
    let count = publisher.stop();
    rig.quiet().await;

    let (theirs, slow, ours) = (handled(server, "worker-1"), handled(server, "worker-2"), ours(&rig).await);
    println!(
        "{count} events: {} of ours, {} and {} of theirs; {left:?} were left",
        ours.len(),
        theirs.len(),
        slow.len()
    );
    for n in 1..=count {
        let times = [&theirs, &slow].map(|list| list.iter().filter(|other| **other == n).count());
        let times = [times[0], times[1], usize::from(ours.contains(&n))];
        let expected = if left.contains(&n) { &[[0, 0, 1], [1, 0, 1]][..] } else { &[[1, 0, 0], [0, 1, 0], [0, 0, 1]] };
        assert!(expected.contains(&times), "{n} was handled by each: {times:?}\n{}", rig.tail());
    }
    assert_eq!(rig.state().await["attempt/1"], ours.len() as u64, "each at its first attempt");
    assert_eq!(server.get::<u64>(&["EXISTS", "moontide:marks:legacy", "moontide:adopted:legacy"]), 0);
    assert_eq!(listed(&rig), (0, 0));
    let line = format!(
        "events_consumed_total{{consumer=\"orders\",topic=\"{STREAM}\",type=\"order.placed\"}} {}\n",
        ours.len()
    );
    let scraped = get(metrics, "/metrics").await.body;
    assert!(scraped.contains(&line), "{line} in {scraped}");
}

/// Kills a worker when it has handled something that it has not acknowledged; what is pending for it then.
async fn kill_in_a_batch(rig: &Rig, worker: &mut OldWorker) -> BTreeSet<u64> {
    let server = rig.server();
    rig.until("it is in the middle of a batch", async || {
        worker.signal("STOP");
        let (left, done) = (pending(server, "worker-1"), handled(server, "worker-1"));
        let is_in_the_middle = left.keys().any(|n| done.contains(n)) && left.keys().any(|n| !done.contains(n));
        if !is_in_the_middle {
            worker.signal("CONT");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        is_in_the_middle
    })
    .await;
    worker.kill();
    let clients = || server.get::<String>(&["CLIENT", "LIST"]);
    rig.until("its last words are heard", async || !clients().contains(" name=worker-1 ")).await;
    pending(server, "worker-1").into_keys().collect()
}

/// It fails at everything, and asks for more.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_acknowledges_keeps_what_it_has_until_it_is_stopped() {
    let rig = rig(Kind::Valkey, SCRIPT, r#"{ consumers = ["worker-1"], idle = "1s" }"#, "").await;
    let server = rig.server();
    publish(&mut server.connect(), 1..=25);
    let mut worker = OldWorker::start(server, "worker-1", &["--acknowledge", "never"]);
    rig.until("it has had them all", async || handled(server, "worker-1").len() == 25).await;
    let _ours = rig.start();
    let watched = async || server.get::<u64>(&["EXISTS", "moontide:group:legacy"]) == 1;
    rig.until("ours is there", watched).await;
    let long = Instant::now() + Duration::from_secs(3);
    rig.until("it was watched for longer than `idle`", async || Instant::now() > long).await;
    assert_eq!(pending(server, "worker-1").len(), 25);
    assert_eq!(listed(&rig), (1, 25), "an operator sees it");
    worker.kill();
    rig.quiet().await;
    assert_eq!(ours(&rig).await, (1..=25).collect());
}

/// Ten thousand entries that a worker left long ago.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_while_it_adopts_loses_nothing_and_is_charged_nothing() {
    const COUNT: u64 = 10_000;
    let rig = rig(Kind::Redis, SCRIPT, r#"{ consumers = ["gone"], idle = "1s" }"#, "").await;
    let server = rig.server();
    server.call(&["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    publish(&mut server.connect(), 1..=COUNT);
    server.call(&["XREADGROUP", "GROUP", GROUP, "gone", "COUNT", &COUNT.to_string(), "STREAMS", STREAM, ">"]);
    // They were delivered often, by others.
    let again = "for _ = 1, 5 do redis.call('XREADGROUP', 'GROUP', ARGV[1], 'gone', 'STREAMS', ARGV[2], '0') end";
    server.call(&["EVAL", again, "0", GROUP, STREAM]);
    let held = || server.get::<Vec<redis::Value>>(&["XPENDING", STREAM, GROUP, "-", "+", "100000", "gone"]).len();
    for round in 0..4 {
        let mut worker = rig.start();
        let (before, done) = (held(), ours(&rig).await.len());
        match before {
            0 => rig.until("it handles some", async || ours(&rig).await.len() > done + 200).await,
            _ => rig.until("it adopts some", async || held() < before).await,
        }
        worker.kill();
        println!("round {round}: {} not adopted, {} handled", held(), ours(&rig).await.len());
    }
    let _worker = rig.start();
    rig.quiet().await;
    assert_eq!(ours(&rig).await.len() as u64, COUNT);
    assert_eq!(rig.state().await["attempt/1"], COUNT);
    assert_eq!(server.get::<u64>(&["EXISTS", "moontide:marks:legacy"]), 0, "nothing ran alone");
}

/// A process whose handlers adopt from everybody who was silent for a moment.
async fn adopting(server: &Server) -> Arc<RedisBus> {
    let address = Address::parse(&server.url()).expect("the address is valid");
    let adopt = |_: &str| Some(Adopt { consumers: vec!["*".into()], idle: Duration::from_millis(200) });
    let recovery_time = Duration::from_millis(500);
    let options = Options { recovery_time, adopt: Some(AdoptRules::new(adopt)), ..Options::at(address) };
    RedisBus::open(options).await.expect("the server can be used")
}

fn orders(server: &Server, ids: &[&str]) {
    for id in ids {
        server.call(&["XADD", "orders", "*", "type", "order.placed", "id", id, "source", "test"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_acknowledges_or_takes_back_after_it_was_adopted_has_no_effects_of_ours() {
    for server in [Kind::Redis, Kind::Valkey].map(|kind| Server::with(kind, &[])) {
        server.call(&["XGROUP", "CREATE", "orders", "group", "0", "MKSTREAM"]);
        orders(&server, &["a", "b", "c"]);
        server.call(&["XREADGROUP", "GROUP", "group", "theirs", "STREAMS", "orders", ">"]);
        server.call(&["XREADGROUP", "GROUP", "group", "theirs", "STREAMS", "orders", "0"]);
        let bus = adopting(&server).await;
        let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
        let got = receive(&inbox, 3).await;
        assert_eq!(got.iter().map(|one| id(&**one)).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(got.iter().all(|one| one.orphaned == 0 && one.deaths == 0 && one.past.is_none()), "{got:?}");
        assert_eq!(server.get::<u64>(&["XACK", "orders", "group", &got[0].entry.to_string()]), 1);
        server.call(&["XCLAIM", "orders", "group", "theirs", "0", &got[1].entry.to_string()]);
        let runs = got.iter().map(|one| {
            let mut run = commit(one);
            run.effects.writes = vec![add("count", 1.0)];
            run
        });
        assert_eq!(settle(&inbox, runs.collect()).await, [Answer::Fenced, Answer::Fenced, DONE]);
        assert_eq!(server.get::<String>(&["GET", "state:count"]), "1");
        let groups = bus.groups().await.expect("groups are readable");
        assert_eq!((groups[0].lag, groups[0].in_flight), (0, 1), "one is theirs, and they have it: {groups:?}");
        // They let it lie again.
        let again = receive(&inbox, 1).await;
        assert_eq!((id(&*again[0]), again[0].orphaned), ("b".to_owned(), 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_made_and_never_read_is_taken_over_as_it_stands() {
    for server in [Kind::Redis, Kind::Valkey].map(|kind| Server::with(kind, &[])) {
        orders(&server, &["old"]);
        server.call(&["XGROUP", "CREATE", "orders", "from 0", "0"]);
        server.call(&["XGROUP", "CREATE", "orders", "from $", "$"]);
        orders(&server, &["between"]);
        let bus = adopting(&server).await;
        for (group, start, expected) in
            [("from 0", Start::Latest, &["old", "between"][..]), ("from $", Start::Earliest, &["between"])]
        {
            let wants = Subscription { start, ..subscription(group) };
            let inbox = bus.subscribe(wants).await.expect("the group is opened").inbox;
            let got = receive(&inbox, expected.len()).await;
            assert_eq!(got.iter().map(|one| id(&**one)).collect::<Vec<_>>(), expected, "{group}");
            orders(&server, &["new"]);
            assert_eq!(id(&*receive(&inbox, 1).await[0]), "new", "{group}");
        }
    }
}

/// Runs a command line of the documentation; what it printed.
fn shell(server: &Server, line: &str) -> String {
    let line = line.replace("redis-cli", &format!("redis-cli -p {}", server.port()));
    let done = Command::new("bash").args(["-e", "-o", "pipefail", "-c", &line]).output().expect("bash is there");
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("it prints text")
}

/// The command of the documentation that has `word` in it.
fn documented(word: &str) -> String {
    let text = docs::read("docs/taking-over.md");
    let found = docs::blocks(&text, "sh").into_iter().find(|block| block.contains(word)).map(str::to_owned);
    found.unwrap_or_else(|| panic!("docs/taking-over.md has no command with {word}"))
}

/// A host that is stopped while it has much in hand; what it gave back.
async fn stopped_host(kind: Kind, count: u64) -> (Rig, BTreeSet<u64>) {
    let rig = rig(kind, SLOW, r#"{ consumers = ["worker-*"] }"#, "[run]\ngrace = \"300ms\"").await;
    let server = rig.server();
    server.call(&["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    publish(&mut server.connect(), 1..=count);
    let mut worker = rig.start();
    rig.until("it is at work", async || rig.said("BEGUN") == 4).await;
    worker.signal("TERM");
    worker.ended();
    let free: BTreeSet<u64> = pending(server, "moontide:free").into_keys().collect();
    assert!(free.len() > 4, "it had more in hand than it ran: {free:?}");
    (rig, free)
}

/// Each of `count` events was handled by the old worker, once, and none by ours.
async fn all_are_theirs(rig: &Rig, count: u64) {
    rig.quiet().await;
    let mut handled = handled(rig.server(), "worker-1");
    handled.sort_unstable();
    assert_eq!(handled, (1..=count).collect::<Vec<_>>());
    assert_eq!(ours(rig).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_host_gave_back_is_given_to_a_worker_that_begins_with_its_own() {
    let (rig, free) = stopped_host(Kind::Redis, 500).await;
    let server = rig.server();
    assert!(shell(server, &documented("XINFO GROUPS")).contains("moontide:free"));
    assert!(shell(server, &documented("- + 10")).contains("moontide:free"));
    shell(server, &documented("XCLAIM"));
    assert_eq!(pending(server, "worker-1").into_keys().collect::<BTreeSet<_>>(), free);
    assert_eq!(pending(server, "moontide:free").len(), 0);
    let mut worker = OldWorker::start(server, "worker-1", &["--own-first"]);
    all_are_theirs(&rig, 500).await;
    worker.kill();
    shell(server, &documented("DELCONSUMER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_host_gave_back_is_put_at_the_end_for_a_worker_that_only_reads_what_is_new() {
    let (rig, free) = stopped_host(Kind::Valkey, 500).await;
    let server = rig.server();
    let mut moved = 0;
    loop {
        match shell(server, &documented("EVAL")).trim().parse::<usize>().expect("it says how many it moved") {
            0 => break,
            some => moved += some,
        }
    }
    assert_eq!(moved, free.len());
    let _worker = OldWorker::start(server, "worker-1", &[]);
    all_are_theirs(&rig, 500).await;
}
