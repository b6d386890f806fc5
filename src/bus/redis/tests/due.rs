//! What is moved, when, and what is in its way.

use super::*;
use crate::bus::redis::RedisBus;
use crate::bus::redis::due::Due;
use crate::bus::{Bus, Start, Subscription};

/// Stores work as settle and publish do.
fn park(server: &Server, stream: &str, delay: i64, n: usize) {
    let id: String = server.get(&["XADD", "moontide:parked", "*", "n", &n.to_string(), "type", "a"]);
    let due = (server.now() + delay).to_string();
    // Counted before it can be moved: what is due already may go at once.
    server.call(&["HINCRBY", "moontide:delayed", stream, "1"]);
    server.call(&["ZADD", "moontide:due", &due, &format!("{id} {stream}")]);
}

/// The field `n` of each entry.
fn numbers(server: &Server, stream: &str) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = server.get(&["XRANGE", stream, "-", "+"]);
    entries.into_iter().map(|(_, fields)| fields[1].clone()).collect()
}

fn delayed(server: &Server, stream: &str) -> i64 {
    server.get::<Option<i64>>(&["HGET", "moontide:delayed", stream]).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_moved_when_the_server_says_that_it_is_due() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        // More processes than one.
        let _due = [Due::begin(store.clone()), Due::begin(self::store(&server))];
        park(&server, "s", 2000, 2);
        park(&server, "s", 1000, 1);
        park(&server, "moontide:retry:g", 3000, 3);
        server.advance(999);
        park(&server, "marker", 0, 0);
        until("what is due is moved", || numbers(&server, "marker") == ["0"]).await;
        assert_eq!((numbers(&server, "s").len(), delayed(&server, "s")), (0, 2));
        server.advance(1);
        until("the first is moved", || numbers(&server, "s") == ["1"]).await;
        assert_eq!(delayed(&server, "s"), 1);
        server.advance(5000);
        until("all are moved", || numbers(&server, "moontide:retry:g") == ["3"]).await;
        assert_eq!(numbers(&server, "s"), ["1", "2"]);
        let entry: Vec<(String, Vec<String>)> = server.get(&["XRANGE", "s", "-", "+"]);
        assert_eq!(entry[0].1, ["n", "1", "type", "a"]);
        assert_eq!(server.get::<i64>(&["EXISTS", "moontide:due", "moontide:delayed"]), 0);
        assert_eq!(server.get::<i64>(&["XLEN", "moontide:parked"]), 0);
        let mut streams = strings(&server, &["SMEMBERS", "moontide:streams"]);
        streams.sort();
        assert_eq!(streams, ["marker", "s"], "the host's own are not for others");
        let bell: Vec<(String, Vec<String>)> = server.get(&["XRANGE", "moontide:bell", "-", "+"]);
        assert_eq!(bell.len(), 2, "each new stream is told once: {bell:?}");
        store.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_holds_up_nobody() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        server.call(&["SET", "text", "of somebody"]);
        (0..250).for_each(|n| park(&server, "text", 0, n));
        server.call(&["ZADD", "moontide:due", &server.now().to_string(), "nonsense"]);
        park(&server, "s", 0, 1);
        park(&server, "gone", 0, 1);
        let parked: Vec<(String, Vec<String>)> = server.get(&["XREVRANGE", "moontide:parked", "+", "-", "COUNT", "1"]);
        server.call(&["XDEL", "moontide:parked", &parked[0].0]);
        let _due = Due::begin(store.clone());
        until("the others are moved", || numbers(&server, "s") == ["1"]).await;
        until("the rest is put off", || {
            server.get::<i64>(&["ZCOUNT", "moontide:due", "-inf", &server.now().to_string()]) == 0
        })
        .await;
        assert_eq!((delayed(&server, "text"), delayed(&server, "gone")), (250, 0));
        server.call(&["DEL", "text"]);
        server.advance(60_000);
        until("it is moved after all", || delayed(&server, "text") == 0).await;
        assert_eq!(numbers(&server, "text").len(), 250);
        assert_eq!(strings(&server, &["ZRANGE", "moontide:due", "0", "-1"]), ["nonsense"]);
        store.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_after_the_server_was_away_and_forgot_our_scripts() {
    let server = Server::with(Kind::Redis, &["--appendonly", "yes"]);
    let store = store(&server);
    let _due = Due::begin(store.clone());
    server.kill();
    server.start();
    server.call(&["SCRIPT", "FLUSH"]);
    let id: String = server.get(&["XADD", "moontide:parked", "*", "n", "1"]);
    server.call(&["ZADD", "moontide:due", "1", &format!("{id} s")]);
    until("it is moved", || numbers(&server, "s") == ["1"]).await;
    store.close();
}

#[tokio::test(start_paused = true)]
async fn the_sleep_ends_when_something_is_due_sooner() {
    let address = Address::parse("redis://127.0.0.1:1/").expect("it is an address");
    let due = Due::idle(Arc::new(Store::new(Options::at(address))));
    let began = tokio::time::Instant::now();
    let slept = async |pause| {
        let from = began.elapsed();
        due.sleep(Duration::from_millis(pause)).await;
        (began.elapsed() - from).as_millis()
    };
    assert_eq!(slept(1000).await, 1000);
    let later = async {
        for delay in [700, 300, 500] {
            tokio::time::sleep(Duration::from_millis(10)).await;
            due.added(Duration::from_millis(delay));
        }
    };
    due.looking();
    assert_eq!(tokio::join!(slept(1000), later).0, 320);
    // What was added while it looked is not forgotten.
    due.looking();
    due.added(Duration::from_millis(100));
    assert_eq!(slept(1000).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_does_not_wait_again_for_as_long_as_the_clock_was_set_back() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        let _due = Due::begin(store.clone());
        park(&server, "s", 5000, 1);
        let clock = |field: &str| server.get::<Option<i64>>(&["HGET", "moontide:due:clock", field]).unwrap_or(0);
        until("the time is noted", || clock("seen") == server.now()).await;
        server.advance(-3_600_000);
        until("the step is noticed", || clock("ahead") == 3_600_000).await;
        server.advance(4999);
        park(&server, "marker", -3_600_000, 0);
        until("what is due is moved", || numbers(&server, "marker") == ["0"]).await;
        assert!(numbers(&server, "s").is_empty());
        server.advance(1);
        until("it is moved", || numbers(&server, "s") == ["1"]).await;
        store.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_goes_on_when_the_clock_was_set_back() {
    for server in KINDS.map(Server::new) {
        let bus = RedisBus::open(options(&server)).await.expect("the server can be used");
        let streams = vec!["s".to_owned()];
        let wanted = Subscription {
            handler: "h".into(),
            group: "g".into(),
            types: vec![],
            streams,
            discover: vec![],
            start: Start::Earliest,
        };
        let _inbox = bus.subscribe(wanted).await.expect("the group is opened");
        let left = || server.get::<i64>(&["PTTL", "moontide:upkeep"]);
        until("a round was made", || left() >= 0).await;
        server.advance(-3_600_000);
        until("another was made", || (0..=5).contains(&left())).await;
        bus.close().await;
    }
}
