//! What others can do to keys and entries that we rely on.

use std::sync::Arc;
use std::time::Duration;

use moontide::bus::redis::{Address, Options, RedisBus};
use moontide::bus::{Answer, Bus, Ledger, Overview};

use crate::conformance::{DONE, commit, emit, id, receive, record, reject, run, set, settle, subscription, until};
use moontide_stage::server::{Kind, Server};

async fn open(server: &Server) -> Arc<RedisBus> {
    open_with(server, |_| {}).await
}

async fn open_with(server: &Server, change: impl FnOnce(&mut Options)) -> Arc<RedisBus> {
    let address = Address::parse(&server.url()).expect("the address is valid");
    let mut options = Options { recovery_time: Duration::from_millis(500), ..Options::at(address) };
    change(&mut options);
    RedisBus::open(options).await.expect("the server can be used")
}

async fn publish(bus: &RedisBus, ids: &[&str]) {
    bus.publish(ids.iter().map(|id| emit("orders", id)).collect()).await.expect("they are stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_is_no_text_is_refused_before_anything_is_written() {
    for server in [Kind::Redis, Kind::Valkey].map(|kind| Server::with(kind, &[])) {
        let bus = open(&server).await;
        publish(&bus, &["a", "b"]).await;
        let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
        let got = receive(&inbox, 2).await;
        server.call(&["RPUSH", "state:mine", "not yours"]);
        let mut bad = commit(&got[0]);
        bad.effects.events = vec![emit("out", "x")];
        bad.effects.writes = vec![set("before", "1"), set("mine", "2")];
        bad.record = record("key");
        let answers = settle(&inbox, vec![bad, commit(&got[1])]).await;
        let Answer::Invalid { reason } = &answers[0] else { panic!("{answers:?}") };
        assert!(reason.contains("state:mine") && reason.contains("list"), "{reason}");
        assert_eq!(answers[1], DONE, "its batch mate is not harmed");
        assert_eq!(server.get::<i64>(&["EXISTS", "state:before", "out"]), 0);
        assert_eq!(server.get::<i64>(&["LLEN", "state:mine"]), 1);
        assert_eq!(bus.read(&["mine".to_owned()]).await.expect("state is readable"), [None]);
        let dead = settle(&inbox, vec![run(&got[0], reject(reason))]).await;
        assert!(matches!(dead[0], Answer::Done { dead: Some(_) }), "it is still ours: {dead:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_effect_reaches_the_hosts_own_keys_where_state_has_no_prefix() {
    let server = Server::with(Kind::Redis, &[]);
    let bus = open_with(&server, |options| options.state_prefix = String::new()).await;
    publish(&bus, &["a"]).await;
    let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    let got = receive(&inbox, 1).await;
    for key in ["moontide:format", "moontide:record:1"] {
        let before: Option<String> = server.get(&["GET", key]);
        let mut forging = commit(&got[0]);
        forging.effects.writes = vec![set("mine", "1"), set(key, "2")];
        let answers = settle(&inbox, vec![forging]).await;
        let Answer::Invalid { reason } = &answers[0] else { panic!("{answers:?}") };
        assert_eq!(*reason, format!("state key {key:?} belongs to the host; choose another"));
        assert_eq!(server.get::<Option<String>>(&["GET", key]), before);
        assert_eq!(server.get::<i64>(&["EXISTS", "mine"]), 0, "nothing of it was done");
    }
    let mut honest = commit(&got[0]);
    honest.effects.writes = vec![set("mine", "1")];
    assert_eq!(settle(&inbox, vec![honest]).await, [DONE]);
    assert_eq!(server.get::<String>(&["GET", "mine"]), "1", "under its own name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_rewritten_while_entries_are_pending_keeps_what_is_left_of_them() {
    let server = Server::with(Kind::Redis, &["--appendonly", "yes", "--appendfsync", "always"]);
    let bus = open(&server).await;
    publish(&bus, &["a", "b", "c"]).await;
    let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    let got = receive(&inbox, 3).await;
    server.call(&["XDEL", "orders", &got[1].entry.to_string()]);
    server.call(&["BGREWRITEAOF"]);
    let rewritten = || server.get::<String>(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0");
    until(|| std::future::ready(rewritten())).await;
    drop((bus, inbox));
    server.kill();
    server.start();
    let bus = open(&server).await;
    let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    let mut again = receive(&inbox, 2).await;
    again.sort_by_key(|one| one.entry);
    assert_eq!(again.iter().map(|one| id(&**one)).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(settle(&inbox, again.iter().map(commit).collect()).await, [DONE, DONE]);
    // The deleted one went with the log, or was found and let go: nobody waits for it.
    let groups = bus.groups().await.expect("groups are readable");
    assert!(groups[0].lag == 0 && groups[0].in_flight == 0, "{groups:?}");
}
