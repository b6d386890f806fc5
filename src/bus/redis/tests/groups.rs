//! Where groups begin, that they go on, and that nothing is trimmed which they need.

use std::collections::BTreeSet;

use super::super::door::Door;
use super::super::due::Due;
use super::super::hand_over::HandOver;
use super::super::upkeep::Upkeep;
use super::super::{RedisBus, discovery, group, publish};
use super::*;
use crate::bus::{Began, Bus, Groups, Inbox, Overview, Start, Subscription};
use crate::event::{Event, TypePattern};
use crate::outcome::Emit;
use crate::streams::{Retain, StreamRule, Streams};

fn wants(group: &str, streams: &[&str], start: Start) -> Subscription {
    Subscription {
        handler: "handler".into(),
        group: group.into(),
        types: Vec::new(),
        streams: streams.iter().map(|name| (*name).to_owned()).collect(),
        discover: Vec::new(),
        start,
    }
}

fn began(skipped: u64, taken_in: u64) -> Began {
    Began { stream: "orders".into(), skipped, taken_in }
}

fn fill(server: &Server, stream: &str, count: usize) {
    for entry in 1..=count {
        server.call(&["XADD", stream, &format!("{entry}-0"), "type", "x"]);
    }
}

fn position(server: &Server, stream: &str, name: &str) -> String {
    let script =
        "for _, g in ipairs(redis.call('XINFO', 'GROUPS', ARGV[1])) do if g[2] == ARGV[2] then return g[8] end end";
    server.get(&["EVAL", script, "0", stream, name])
}

#[tokio::test]
async fn a_group_counts_exactly_what_it_skips_and_is_opened_once() {
    let server = Server::new(Kind::Redis);
    let store = store(&server);
    fill(&server, "orders", 2500);
    for (start, name, expected) in [
        (Start::Latest, "latest", began(2500, 0)),
        (Start::Earliest, "earliest", began(0, 2500)),
        (Start::At(100), "at", began(99, 2401)),
        (Start::At(i64::MAX), "never", began(2500, 0)),
    ] {
        let wants = wants(name, &["orders"], start);
        let (streams, told) = group::open(&store, &wants).await.expect("it opens");
        assert_eq!((streams, told), (vec!["orders".to_owned()], vec![expected]), "{name}");
        assert_eq!(group::open(&store, &wants).await.expect("it opens").1, [], "{name} is not new");
    }
}

#[tokio::test]
async fn a_group_that_vanished_goes_on_at_its_mark() {
    let server = Server::new(Kind::Redis);
    let store = store(&server);
    fill(&server, "orders", 10);
    let wants = wants("group", &["orders"], Start::Latest);
    group::open(&store, &wants).await.expect("it opens");
    server.call(&["HSET", "moontide:group:group", "mark:orders", "7-0"]);
    server.call(&["XGROUP", "DESTROY", "orders", "group"]);
    group::reopen(&store, &wants, &["orders".into()]).await.expect("it opens");
    assert_eq!(position(&server, "orders", "group"), "7-0");
    server.call(&["FLUSHALL"]);
    fill(&server, "orders", 3);
    group::reopen(&store, &wants, &["orders".into()]).await.expect("it opens");
    assert_eq!(position(&server, "orders", "group"), "0-0", "nothing is known any more, so nothing is skipped");
}

#[tokio::test]
async fn a_group_of_others_is_taken_over_with_what_is_pending() {
    let server = Server::new(Kind::Redis);
    let store = store(&server);
    fill(&server, "orders", 5);
    server.call(&["XGROUP", "CREATE", "orders", "group", "0"]);
    server.call(&["XREADGROUP", "GROUP", "group", "theirs", "COUNT", "3", "STREAMS", "orders", ">"]);
    server.call(&["XACK", "orders", "group", "1-0"]);
    let (_, told) = group::open(&store, &wants("group", &["orders"], Start::Latest)).await.expect("it opens");
    assert_eq!(told, []);
    assert_eq!(position(&server, "orders", "group"), "3-0");
    assert_eq!(strings(&server, &["HMGET", "moontide:group:group", "mark:orders"]), ["1-18446744073709551615"]);
}

#[tokio::test]
async fn what_is_no_stream_is_refused_and_named() {
    let server = Server::new(Kind::Redis);
    let store = store(&server);
    server.call(&["SET", "orders", "a text"]);
    let refused = group::open(&store, &wants("group", &["orders"], Start::Latest)).await.expect_err("it is a text");
    assert_eq!(refused.to_string(), "key \"orders\" holds a string, not a stream; rename one of them");
    let refused = group::open(&store, &wants("group", &["moontide:x"], Start::Latest)).await.expect_err("it is ours");
    assert!(refused.to_string().contains("belongs to the host"), "{refused}");
}

#[tokio::test]
async fn streams_of_others_are_found_and_only_those_that_somebody_asks_for() {
    let server = Server::new(Kind::Redis);
    let store = store(&server);
    fill(&server, "events:order.created", 1);
    fill(&server, "somebody.elses", 1);
    let types = TypePattern::parse("order.*").expect("it is a pattern");
    let wants = Subscription { discover: vec![("events:".into(), types)], ..wants("group", &[], Start::Latest) };
    let (streams, _) = group::open(&store, &wants).await.expect("it opens");
    assert_eq!(streams, ["events:order.created"]);
    assert_eq!(strings(&server, &["SMEMBERS", "moontide:streams"]), ["events:order.created"]);
    fill(&server, "events:order.paid", 2);
    store.spawn(discovery::walk_on(store.clone()));
    until("the new stream is found", || strings(&server, &["SMEMBERS", "moontide:streams"]).len() == 2).await;
    let known = BTreeSet::from(["events:order.created".to_owned()]);
    assert_eq!(group::appeared(&store, &wants, &known).await.expect("it is readable"), ["events:order.paid"]);
    assert_eq!(position(&server, "events:order.paid", "group"), "0-0", "from its first entry");
    store.close();
}

async fn bus(server: &Server) -> Arc<RedisBus> {
    RedisBus::open(options(server)).await.expect("the server can be used")
}

/// A process that serves a group and keeps so many orders, as a rule says.
async fn keeps(server: &Server, length: u64) -> (Arc<RedisBus>, Arc<dyn Inbox>) {
    let rule = StreamRule {
        types: Vec::new(),
        name: "orders".into(),
        retain: Some(retain(length)),
        layouts: Default::default(),
    };
    let streams = Arc::new(Streams { rules: vec![rule], ..Streams::default() });
    let bus = RedisBus::open(Options { streams, ..options(server) }).await.expect("the server can be used");
    let subscribed = bus.subscribe(wants("served", &["other"], Start::Earliest)).await.expect("it opens");
    (bus, subscribed.inbox)
}

fn retain(length: u64) -> Retain {
    Retain { age: None, length: Some(length) }
}

/// One round of upkeep is over when its time is, by the server's clock.
fn next_round(server: &Server) {
    server.advance(10);
}

#[tokio::test]
async fn nothing_is_trimmed_that_a_group_needs() {
    let server = Server::new(Kind::Redis);
    let opener = store(&server);
    fill(&server, "orders", 1000);
    group::open(&opener, &wants("group", &["orders"], Start::Earliest)).await.expect("it opens");
    server.call(&["XGROUP", "CREATE", "orders", "foreign", "500-0"]);
    server.call(&["XREADGROUP", "GROUP", "group", "c", "COUNT", "600", "STREAMS", "orders", ">"]);
    let acked: Vec<String> = (1..=249).map(|entry| format!("{entry}-0")).collect();
    let words: Vec<&str> = ["XACK", "orders", "group"].into_iter().chain(acked.iter().map(String::as_str)).collect();
    server.call(&words);
    let (bus, _inbox) = keeps(&server, 10).await;
    let length = || {
        next_round(&server);
        server.get::<usize>(&["XLEN", "orders"])
    };
    until("what both are done with is trimmed", || length() == 751).await;
    server.call(&["XGROUP", "DESTROY", "orders", "group"]);
    until("the foreign group holds it back", || length() == 500).await;
    server.call(&["XGROUP", "DESTROY", "orders", "foreign"]);
    until("nobody holds it back", || length() == 10).await;
    drop(bus);
}

#[tokio::test]
async fn who_serves_no_group_trims_nothing_and_what_others_publish_is_theirs_to_trim() {
    let server = Server::new(Kind::Redis);
    let streams = Arc::new(Streams { retain: retain(10), ..Streams::default() });
    let store = Arc::new(Store::new(Options { streams, ..options(&server) }));
    let mut upkeep = Upkeep::new(store.clone());
    let mut left = async || {
        next_round(&server);
        upkeep.round().await.expect("the server can be used");
        server.get::<usize>(&["XLEN", "orders"])
    };
    fill(&server, "orders", 50);
    server.call(&["SADD", "moontide:published", "orders"]);
    let wanted = wants("group", &["orders"], Start::Latest);
    group::open(&store, &wanted).await.expect("it opens");
    assert_eq!(left().await, 50, "a command that ends soon has a configuration of its own");
    let door = Arc::new(Door::new(Arc::new(wanted), "moontide:retry:group".into(), Vec::new(), Arc::default()));
    store.add_door(&door);
    server.call(&["DEL", "moontide:published"]);
    assert_eq!(left().await, 50, "only others publish to it");
    let emit = Emit { stream: "orders".into(), event: Event::new("1", "test", "x"), delay: None };
    publish::publish(&store, &Due::begin(store.clone()), &[emit]).await.expect("it is stored");
    // The group has not received it.
    assert_eq!(left().await, 10);
    store.close();
}

#[tokio::test]
async fn what_a_forgotten_group_or_others_trim_is_counted_once() {
    let server = Server::new(Kind::Redis);
    let opener = store(&server);
    fill(&server, "orders", 100);
    group::open(&opener, &wants("group", &["orders"], Start::Earliest)).await.expect("it opens");
    server.call(&["XREADGROUP", "GROUP", "group", "c", "COUNT", "10", "STREAMS", "orders", ">"]);
    server.call(&["XTRIM", "orders", "MAXLEN", "=", "60"]);
    let (bus, _inbox) = keeps(&server, 20).await;
    let lost = || {
        next_round(&server);
        server.get::<Option<u64>>(&["HGET", "moontide:group:group", "lost"]).unwrap_or(0)
    };
    until("others' trimming is counted", || lost() == 30).await;
    server.advance(8 * 24 * 3600 * 1000);
    until("nobody serves it, so it is trimmed", || lost() == 70).await;
    assert_eq!(server.get::<usize>(&["XLEN", "orders"]), 20);
    let status = bus.groups().await.expect("it is readable").remove(0);
    assert_eq!((status.lag, status.lost), (20, 70));
}

/// Nobody else looks meanwhile: only who reads on can have counted it.
async fn counts_what_it_reads_past(kind: Kind) {
    let server = Server::new(kind);
    let options = Options { upkeep_every: Duration::from_secs(3600), ..options(&server) };
    let bus = RedisBus::open(options).await.expect("the server can be used");
    let any = TypePattern::parse("*").expect("it is a pattern");
    let wants = Subscription { types: vec![any], ..wants("group", &["orders"], Start::Earliest) };
    let inbox = bus.subscribe(wants).await.expect("it opens").inbox;
    let add = |from: u64, to: u64| {
        (from..=to).for_each(|entry| drop(server.call(&["XADD", "orders", &format!("{entry}-0"), "type", "x"])));
    };
    let trim = |left: u64| drop(server.call(&["XTRIM", "orders", "MAXLEN", "=", &left.to_string()]));
    let next = async || inbox.receive(1).await.expect("it is there")[0].entry.0;
    let lost = || server.get::<Option<u64>>(&["HGET", "moontide:group:group", "lost"]).unwrap_or(0);
    add(1, 3);
    assert_eq!((next().await, lost()), (1, 0));
    add(4, 13);
    trim(4);
    assert_eq!((next().await, lost()), (10, 8), "2 to 9");
    assert_eq!((next().await, next().await, next().await, lost()), (11, 12, 13, 8));
    add(14, 18);
    trim(0);
    add(19, 19);
    assert_eq!((next().await, lost()), (19, 13), "14 to 18 besides");
    add(20, 22);
    trim(3);
    assert_eq!((next().await, lost()), (20, 13), "what was received is not lost");
    trim(1);
    assert_eq!((next().await, lost()), (22, 14), "21 besides");
}

#[tokio::test]
async fn what_others_trim_is_counted_by_who_reads_past_it() {
    counts_what_it_reads_past(Kind::Redis).await;
    counts_what_it_reads_past(Kind::Valkey).await;
}

#[tokio::test]
async fn a_group_is_handed_over_and_forgotten() {
    let server = Server::new(Kind::Redis);
    let opener = store(&server);
    fill(&server, "orders", 10);
    group::open(&opener, &wants("old", &["orders"], Start::Earliest)).await.expect("it opens");
    server.call(&["XREADGROUP", "GROUP", "old", "c", "COUNT", "4", "STREAMS", "orders", ">"]);
    server.call(&["XACK", "orders", "old", "1-0", "2-0"]);
    server.call(&["XCLAIM", "orders", "old", "c", "0", "3-0", "RETRYCOUNT", "7", "JUSTID"]);
    server.call(&["XCLAIM", "orders", "old", "moontide:dead:1", "0", "4-0", "RETRYCOUNT", "2", "JUSTID"]);
    server.call(&["XADD", "moontide:retry:old", "*", "type", "x"]);
    server.call(&["HSET", "moontide:marks:old", "orders/3-0", "1 0"]);
    let parked: String = server.get(&["XADD", "moontide:parked", "*", "type", "x"]);
    let due = format!("{}", server.now() + 60_000);
    server.call(&["ZADD", "moontide:due", &due, &format!("{parked} moontide:retry:old")]);
    server.call(&["HSET", "moontide:delayed", "moontide:retry:old", "1"]);
    group::open(&opener, &wants("new", &["orders"], Start::At(8))).await.expect("it opens");
    server.advance(60 * 60 * 1000 / 2);
    let bus = bus(&server).await;
    let due_moved = || server.get::<usize>(&["XLEN", "moontide:retry:old"]) == 2;
    until("what was due is moved", due_moved).await;
    let moved = bus.hand_over("old", "new").await.expect("neither is served");
    assert_eq!((moved.streams, moved.taken_in, moved.delayed, moved.dead), (1, 3, 2, 0));
    let pending: Vec<(String, String, u64, u64)> =
        server.get(&["XPENDING", "orders", "new", "-", "+", "100", "moontide:free"]);
    let ids: Vec<(&str, u64)> = pending.iter().map(|entry| (entry.0.as_str(), entry.3)).collect();
    let expected = [("3-0", 1), ("4-0", 2), ("5-0", 1), ("6-0", 1), ("7-0", 1)];
    assert_eq!(ids, expected, "unsettled, and skipped; how often others had an entry is no death of ours");
    let status = bus.groups().await.expect("it is readable").remove(0);
    assert_eq!((status.group.as_str(), status.lag, status.delayed), ("new", 5 + 3 + 2, 2));
    assert_eq!(strings(&server, &["HKEYS", "moontide:marks:new"]), ["orders/3-0"]);
    let parked: String = server.get(&["XADD", "moontide:parked", "*", "type", "x"]);
    server.call(&["ZADD", "moontide:due", "4000000000000", &format!("{parked} moontide:retry:new")]);
    server.call(&["ZADD", "moontide:due", "4000000000000", "1-0 moontide:retry:other"]);
    assert!(bus.forget("new").await.expect("it is not served") && !bus.forget("new").await.expect("it is gone"));
    assert_eq!(bus.groups().await.expect("it is readable"), []);
    assert_eq!(strings(&server, &["ZRANGE", "moontide:due", "0", "-1"]), ["1-0 moontide:retry:other"]);
    assert_eq!(server.get::<usize>(&["XLEN", "moontide:parked"]), 0);
    assert_eq!(server.get::<Vec<String>>(&["KEYS", "moontide:*:new"]), Vec::<String>::new());
}

/// How many entries a group has that are not settled.
fn pending(server: &Server, stream: &str, name: &str) -> usize {
    let script = "local found = redis.pcall('XPENDING', ARGV[1], ARGV[2]); return found.err and 0 or found[1]";
    server.get(&["EVAL", script, "0", stream, name])
}

#[tokio::test]
async fn a_group_whose_move_is_interrupted_again_and_again_is_handed_over_once() {
    const RETRIES: usize = 1200;
    let server = Server::new(Kind::Redis);
    let store = store(&server);
    for stream in ["orders", "payments"] {
        fill(&server, stream, 4000);
    }
    group::open(&store, &wants("old", &["orders", "payments"], Start::Earliest)).await.expect("it opens");
    // Of orders the new group skipped what lies between 1,700 and 3,500; of payments it has never heard.
    group::open(&store, &wants("new", &["orders"], Start::At(3501))).await.expect("it opens");
    for stream in ["orders", "payments"] {
        server.call(&["XREADGROUP", "GROUP", "old", "c", "COUNT", "1700", "STREAMS", stream, ">"]);
    }
    let script = "for n = 1, tonumber(ARGV[1]) do redis.call('XADD', 'moontide:retry:old', '*', 'type', 'x')
        local id = redis.call('XADD', 'moontide:parked', '*', 'type', 'x')
        redis.call('ZADD', 'moontide:due', 4e12 + n, id .. ' moontide:retry:' .. (n % 2 == 0 and 'old' or 'other'))
        redis.call('HINCRBY', 'moontide:delayed', 'moontide:retry:' .. (n % 2 == 0 and 'old' or 'other'), 1) end";
    server.call(&["EVAL", script, "0", &RETRIES.to_string()]);
    server.call(&["HSET", "moontide:group:old", "dead", "7"]);
    let mut lives = 0;
    let over = 'lives: loop {
        lives += 1;
        let mut life = HandOver::new(&store, "old", "new");
        for _ in 0..lives {
            if life.step().await.expect("the server can be used") {
                break 'lives life;
            }
        }
        for name in ["old", "new"] {
            let refused = group::open(&store, &wants(name, &["orders"], Start::Latest)).await.expect_err("under way");
            assert!(refused.to_string().contains("end it with `moontide groups move old new`"), "{refused}");
        }
        let refused = HandOver::new(&store, "new", "other").run().await.expect_err("under way");
        assert!(refused.to_string().contains("groups move old new"), "{refused}");
        let held: usize = ["old", "new"].iter().map(|name| pending(&server, "orders", name)).sum();
        assert!((1700..=3500).contains(&held), "nothing is away, and nothing is there twice: {held}");
    };
    drop(over);
    assert!(lives > 3, "it was interrupted");
    assert_eq!(pending(&server, "orders", "new"), 3500);
    assert_eq!(pending(&server, "payments", "new"), 1700);
    assert_eq!(position(&server, "payments", "new"), "1700-0");
    assert_eq!(server.get::<usize>(&["XLEN", "moontide:retry:new"]), RETRIES);
    let delayed: Vec<(String, usize)> = server.get(&["HGETALL", "moontide:delayed"]);
    let half = RETRIES / 2;
    assert_eq!(delayed, [("moontide:retry:other".to_owned(), half), ("moontide:retry:new".to_owned(), half)]);
    let due = strings(&server, &["ZRANGE", "moontide:due", "0", "-1"]);
    assert_eq!(due.iter().filter(|member| member.ends_with(" moontide:retry:new")).count(), half);
    assert_eq!(server.get::<String>(&["HGET", "moontide:group:new", "dead"]), "7");
    assert_eq!(server.get::<Vec<String>>(&["KEYS", "moontide:*:old"]), Vec::<String>::new());
    for stream in ["orders", "payments"] {
        let groups: Vec<Vec<redis::Value>> = server.get(&["XINFO", "GROUPS", stream]);
        assert_eq!(groups.len(), 1, "the old group is gone from {stream}");
    }
    group::open(&store, &wants("new", &["orders"], Start::Latest)).await.expect("it opens again");
}
