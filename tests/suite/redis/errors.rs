//! Every error of the server is provoked for real: meanwhile calls fail with a text that says what to do, afterwards
//! everything goes on by itself, and no event has suffered for it.

use std::sync::Arc;
use std::time::Duration;

use moontide::bus::{Bus, BusError, Delivery, Run};
use tokio::time::timeout;

use super::rig::{Rig, handled, open};
use super::until;
use crate::conformance::{PATIENCE, emit};
use moontide_stage::server::{Kind, Server};

const KINDS: [Kind; 2] = [Kind::Redis, Kind::Valkey];

/// A process whose server gets into trouble while it has an event in hand and another one waits.
struct Trouble {
    server: Server,
    rig: Rig,
    in_hand: Vec<Arc<Delivery>>,
}

impl Trouble {
    async fn new(kind: Kind) -> Self {
        Self::at(Server::with(kind, &[]), |server| server.url()).await
    }

    async fn at(server: Server, url: impl Fn(&Server) -> String) -> Self {
        let mut rig = Rig::new(&url(&server)).await;
        rig.one().await;
        rig.publish(2).await;
        let in_hand = rig.receive(1).await;
        Self { server, rig, in_hand }
    }

    /// Asks until the error says `says`; whether the store is said to be full.
    async fn settle_fails(&self, says: &str) -> bool {
        let runs: Arc<[Run]> = self.in_hand.iter().map(handled).collect();
        self.fails(says, || self.rig.inbox.settle(runs.clone())).await
    }

    async fn publish_fails(&self, says: &str) -> bool {
        self.fails(says, || self.rig.bus.publish(Vec::new())).await
    }

    async fn fails<T, F: Future<Output = Result<T, BusError>>>(&self, says: &str, call: impl Fn() -> F) -> bool {
        let mut said = None;
        let asking = async {
            loop {
                if let Err(error) = call().await {
                    assert!(error.is_passing(), "{error:?} passes");
                    let text = said.insert(error.to_string());
                    if text.contains(says) {
                        return matches!(error, BusError::Full { .. });
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let end = timeout(PATIENCE, asking).await;
        end.unwrap_or_else(|_| panic!("nobody says {says:?}, but {said:?}"))
    }

    /// It is over: what was in hand, what waited and what comes now is handled once.
    async fn over(mut self) {
        let answers = self.rig.settle(&self.in_hand).await;
        assert!(answers.iter().all(super::rig::is_settled), "{answers:?}");
        let waited = self.rig.receive(1).await;
        self.rig.settle(&waited).await;
        self.rig.one().await;
        self.rig.check_all(&self.server);
        assert_eq!(self.server.get::<usize>(&["XLEN", "moontide:dead"]), 0, "no event is charged with it");
    }
}

/// Trouble that one command makes and another one ends.
async fn commands(kind: Kind, make: &[&str], end: &[&str], says: &str, full: bool) {
    let trouble = Trouble::new(kind).await;
    trouble.server.call(make);
    assert_eq!(trouble.settle_fails(says).await, full, "{make:?}");
    assert_eq!(trouble.publish_fails(says).await, full, "{make:?}");
    trouble.server.call(end);
    trouble.over().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_or_replicas_takes_nothing_until_it_can() {
    for kind in KINDS {
        let (memory, free) = (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]);
        commands(kind, &memory, &free, "raise maxmemory", true).await;
        let replicas = |count| ["CONFIG", "SET", "min-replicas-to-write", count];
        commands(kind, &replicas("1"), &replicas("0"), "see min-replicas-to-write", false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_not_written_to() {
    for kind in KINDS {
        let end = ["REPLICAOF", "NO", "ONE"];
        commands(kind, &["REPLICAOF", "127.0.0.1", "1"], &end, "it is a replica", false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_of_somebody_else_is_waited_for() {
    for kind in KINDS {
        let trouble = Trouble::new(kind).await;
        trouble.server.call(&["CONFIG", "SET", "lua-time-limit", "50"]);
        let mut other = trouble.server.connect();
        let script = std::thread::spawn(move || {
            redis::cmd("EVAL").arg("while true do end").arg(0).query::<redis::Value>(&mut other)
        });
        until(|| trouble.server.try_call(&["GET", "x"]).is_err_and(|error| error.code() == Some("BUSY"))).await;
        trouble.settle_fails("SCRIPT KILL").await;
        trouble.server.call(&["SCRIPT", "KILL"]);
        assert!(script.join().expect("it did not panic").is_err(), "it was killed");
        trouble.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_for() {
    for kind in KINDS {
        let trouble = Trouble::new(kind).await;
        let server = &trouble.server;
        let blocked = server.folder().join("dump.rdb");
        std::fs::create_dir_all(blocked.join("x")).expect("a folder");
        server.call(&["CONFIG", "SET", "save", "3600 1000000"]);
        let saved = |wanted: &str| {
            let _ = server.try_call(&["BGSAVE"]);
            server.get::<String>(&["INFO", "persistence"]).contains(&format!("rdb_last_bgsave_status:{wanted}"))
        };
        until(|| saved("err")).await;
        assert!(trouble.settle_fails("cannot write to its disk").await);
        std::fs::remove_dir_all(blocked).expect("it is there");
        until(|| saved("ok")).await;
        trouble.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_told_again() {
    for kind in KINDS {
        let mut trouble = Trouble::new(kind).await;
        for _ in 0..20 {
            trouble.server.call(&["SCRIPT", "FLUSH"]);
            trouble.rig.bus.publish(Vec::new()).await.expect("it is told again");
            trouble.server.call(&["SCRIPT", "FLUSH"]);
        }
        trouble.rig.publish(1).await;
        let waits = trouble.rig.receive(1).await;
        trouble.server.call(&["SCRIPT", "FLUSH"]);
        trouble.rig.settle(&waits).await;
        trouble.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_is_given_up_and_found_again() {
    let trouble = Trouble::new(Kind::Redis).await;
    trouble.server.call(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    trouble.settle_fails("does not answer within 5s").await;
    trouble.server.call(&["CLIENT", "UNPAUSE"]);
    trouble.over().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_loading_is_waited_for() {
    let options = ["--key-load-delay", "40000", "--loading-process-events-interval-bytes", "1024"];
    let server = Server::with(Kind::Redis, &options);
    for key in 0..40 {
        server.call(&["SET", &format!("filler:{key}"), &"x".repeat(4096)]);
    }
    server.call(&["CONFIG", "SET", "rdbcompression", "no"]);
    let trouble = Arc::new(Trouble::at(server, |server| server.url()).await);
    let again = tokio::task::spawn_blocking({
        let trouble = trouble.clone();
        move || {
            trouble.server.stop();
            trouble.server.start();
        }
    });
    trouble.publish_fails("still loading its data").await;
    again.await.expect("it starts");
    Arc::into_inner(trouble).expect("nobody else has it").over().await;
}

fn as_worker(server: &Server) -> String {
    format!("redis://worker:geheim@127.0.0.1:{}", server.port())
}

async fn with_login(kind: Kind) -> Trouble {
    let server = Server::with(kind, &[]);
    server.call(&["ACL", "SETUSER", "worker", "on", ">geheim", "~*", "&*", "+@all"]);
    Trouble::at(server, as_worker).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_acl_forbids_is_named_and_costs_no_event_anything() {
    for kind in KINDS {
        let trouble = with_login(kind).await;
        for (rules, says) in [
            ("-evalsha", "evalsha"),
            ("-xadd", "no permission to XADD the key \"moontide:parked\""),
            ("-xack", "no permission to XACK the key \"orders\""),
            ("-get", "its ACL does not let us"),
            ("resetkeys ~orders ~moontide:* ~state:*", "no permission to XADD the key \"out\""),
            ("resetkeys ~orders ~moontide:* ~out", "no permission to SET the key \"state:count\""),
            ("resetkeys ~orders ~out ~state:*", "its ACL does not let us"),
            ("resetkeys ~moontide:* ~out ~state:*", "no permission to XACK the key \"orders\""),
        ] {
            let rules: Vec<_> = ["ACL", "SETUSER", "worker"].into_iter().chain(rules.split(' ')).collect();
            trouble.server.call(&rules);
            assert!(!trouble.settle_fails(says).await);
            assert_eq!(super::rig::entries(&trouble.server, "out").len(), 1, "{rules:?}: nothing was done");
            trouble.server.call(&["ACL", "SETUSER", "worker", "~*", "+@all"]);
        }
        trouble.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_acl_allows_of_a_batch_is_done_once() {
    for kind in KINDS {
        let server = Server::with(kind, &[]);
        server.call(&["ACL", "SETUSER", "worker", "on", ">geheim", "~*", "&*", "+@all"]);
        let mut rig = Rig::new(&as_worker(&server)).await;
        rig.publish(3).await;
        let deliveries = rig.receive(3).await;
        let mut runs: Vec<Run> = deliveries.iter().map(handled).collect();
        runs[1].effects.events.push(emit("forbidden", "x"));
        server.call(&["ACL", "SETUSER", "worker", "resetkeys", "~orders", "~out", "~moontide:*", "~state:*"]);
        let runs: Arc<[Run]> = runs.into();
        for _ in 0..3 {
            let error = rig.inbox.settle(runs.clone()).await.expect_err("it is not allowed");
            assert!(error.to_string().contains("XADD the key \"forbidden\""), "{error}");
            assert_eq!(super::rig::entries(&server, "out").len(), 2, "the others are done");
        }
        server.call(&["ACL", "SETUSER", "worker", "~*"]);
        let answers = rig.inbox.settle(runs).await.expect("it is allowed");
        assert!(answers.iter().all(super::rig::is_settled), "{answers:?}");
        rig.check_all(&server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_changes_is_waited_for() {
    for kind in KINDS {
        let trouble = with_login(kind).await;
        trouble.server.call(&["ACL", "SETUSER", "worker", "resetpass", ">other"]);
        trouble.server.call(&["CLIENT", "KILL", "USER", "worker"]);
        trouble.settle_fails("it knows no such user and password").await;
        let error = open(&as_worker(&trouble.server)).await.map(drop).expect_err("nobody is let in");
        assert!(matches!(error, BusError::Unusable { .. }) && !error.to_string().contains("geheim"), "{error:?}");
        trouble.server.call(&["ACL", "SETUSER", "worker", ">geheim"]);
        trouble.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_not_let_in_come_again() {
    for kind in KINDS {
        for (make, end, says, at_start) in [
            (["maxclients", "1"], ["maxclients", "100"], "raise maxclients", false),
            (["requirepass", "other"], ["requirepass", ""], "it wants a password", true),
        ] {
            let trouble = Trouble::new(kind).await;
            let mut control = trouble.server.connect();
            let mut config = |[name, value]: [&str; 2]| {
                redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut control).expect("it can be set");
                redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut control).expect("they are ended");
            };
            config(make);
            trouble.settle_fails(says).await;
            let error = open(&trouble.server.url()).await.map(drop).expect_err("nobody is let in");
            assert_eq!(matches!(error, BusError::Unusable { .. }), at_start, "{error:?}");
            assert!(error.to_string().contains(says), "{error}");
            config(end);
            drop(control);
            trouble.over().await;
        }
    }
}

#[tokio::test]
async fn what_cannot_work_is_said_at_the_start() {
    let server = Server::with(Kind::Redis, &[]);
    let at = format!("127.0.0.1:{}", server.port());
    for (url, says) in [
        (format!("redis://{at}/99"), "it has no such database"),
        (format!("redis://:geheim@{at}"), "it wants no password"),
        (format!("redis://nobody:geheim@{at}"), "it knows no such user and password"),
    ] {
        let error = open(&url).await.map(drop).expect_err("it cannot be used");
        assert!(matches!(error, BusError::Unusable { .. }), "{url}: {error:?}");
        assert!(error.to_string().contains(says) && !error.to_string().contains("geheim"), "{url}: {error}");
    }
    Rig::new(&format!("redis://{at}/7")).await.one().await;
    let databases: String = server.get(&["INFO", "keyspace"]);
    assert!(databases.contains("db7:") && !databases.contains("db0:"), "{databases}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_this_machine_leads_to_a_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("socket");
    let server = Server::with(Kind::Redis, &["--unixsocket", &socket.display().to_string()]);
    let mut rig = Rig::new(&format!("unix://{}", socket.display())).await;
    rig.one().await;
    rig.check_all(&server);
}
