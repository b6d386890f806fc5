//! What changes hands, and what does not.

use super::*;
use crate::bus::redis::RedisBus;
use crate::bus::redis::beat::Beat;
use crate::bus::redis::keys::FREE;
use crate::bus::redis::takeover::{self, Found, Owner};
use crate::bus::{Bus, Start, Subscription};
use crate::event::{EntryId, TypePattern};

const DEAD: &str = "moontide:dead:1";

/// A stream with `count` entries, 1-0 and on, all of them pending for `consumer`.
fn fill(server: &Server, count: usize, consumer: &str) {
    for n in 1..=count {
        server.call(&["XADD", "s", &format!("{n}-0"), "n", &n.to_string()]);
    }
    let _ = server.try_call(&["XGROUP", "CREATE", "s", "g", "0"]);
    server.call(&["XREADGROUP", "GROUP", "g", consumer, "STREAMS", "s", ">"]);
}

fn owner(consumer: &str, beat: Option<i64>) -> Owner {
    Owner { consumer: consumer.into(), beat, pending: 0 }
}

fn seen(found: &[Found]) -> Vec<(u64, u32, u32)> {
    found.iter().map(|found| (found.entry.0, found.count, found.deaths)).collect()
}

/// The counter of the dead goes as soon as somebody knows for certain; whoever learned of the death before must not take
/// that for a sign of life.
#[tokio::test]
async fn whose_counter_was_removed_meanwhile_is_dead_all_the_same() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        fill(&server, 2, DEAD);
        server.call(&["HSET", "moontide:beats", "dead:1", "8"]);
        assert_eq!(take(&store, &owner(DEAD, Some(7)), 9).await, (vec![], false), "its counter has moved");
        assert_eq!(take(&store, &owner(DEAD, None), 9).await, (vec![], false), "it has a counter again");
        server.call(&["DEL", "moontide:beats"]);
        assert_eq!(take(&store, &owner(DEAD, Some(8)), 9).await, (vec![(1, 2, 0), (2, 2, 0)], false));
    }
}

/// Consumers and how much is pending for each, by name.
fn consumers(server: &Server) -> Vec<(String, u64)> {
    let infos: Vec<std::collections::HashMap<String, redis::Value>> = server.get(&["XINFO", "CONSUMERS", "s", "g"]);
    let text = |value: &redis::Value| redis::from_redis_value::<String>(value.clone()).expect("a text");
    let mut all: Vec<_> =
        infos.iter().map(|info| (text(&info["name"]), text(&info["pending"]).parse().expect("a number"))).collect();
    all.sort();
    all
}

/// A process may come and die between two looks of another one, and be buried by a third that has no use for what it had.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_left_whom_we_never_saw_is_found() {
    const BURY: &str = include_str!("../scripts/bury.lua");
    const FAREWELL: &str = include_str!("../scripts/farewell.lua");
    let hour = Duration::from_secs(3600);
    // Time goes on: a blocking read that never ends is given up, and whoever waits looks once.
    for server in KINDS.map(|kind| Server::with(kind, &[])) {
        let buried = vec![BURY, "0", "moontide:", "ghost:1", "5"];
        let gone = vec![FAREWELL, "0", "moontide:", "ghost:1", "moontide:ghost:1", "s", "g"];
        for ended in [buried, gone] {
            server.call(&["FLUSHALL"]);
            let options = Options { recovery_time: 4 * hour, beat_every: hour, ..options(&server) };
            let bus = RedisBus::open(options).await.expect("the server can be used");
            let inbox = bus.subscribe(everything()).await.expect("the group is opened").inbox;
            // It has looked for what others left when it hands out what is new, and then the bell is set up.
            server.call(&["XADD", "s", "1-0", "type", "s"]);
            inbox.receive(9).await.expect("the server answers");
            let receiving = tokio::spawn(async move { inbox.receive(9).await });
            let clients = || server.get::<String>(&["INFO", "clients"]);
            until("it has nothing to do", || clients().contains("blocked_clients:1\r")).await;
            server.call(&["HSET", "moontide:beats", "ghost:1", "5"]);
            server.call(&["EVAL", GHOST, "0"]);
            server.call(&[&["EVAL"], &ended[..]].concat());
            let received = tokio::time::timeout(Duration::from_secs(20), receiving).await.expect("it is told");
            let received = received.expect("it does not panic").expect("the server answers");
            assert_eq!((received.len(), received[0].orphaned), (1, 1));
            bus.close().await;
        }
    }
}

fn everything() -> Subscription {
    Subscription {
        handler: "h".into(),
        group: "g".into(),
        types: vec![TypePattern::parse("*").expect("it is a pattern")],
        streams: vec!["s".into()],
        discover: Vec::new(),
        start: Start::Latest,
    }
}

/// One runtime thread: a read that was asked for begins when somebody waits, and that is when the end has begun.
#[tokio::test]
async fn what_a_last_read_brings_is_given_back_before_the_farewell() {
    for server in KINDS.map(Server::new) {
        let bus = RedisBus::open(options(&server)).await.expect("the server can be used");
        let inbox = bus.subscribe(everything()).await.expect("it opens").inbox;
        server.call(&["XADD", "s", "1-0", "type", "s"]);
        assert!(futures_util::poll!(inbox.receive(10)).is_pending());
        drop(inbox);
        bus.close().await;
        let pending: Vec<(String, String, i64, i64)> = server.get(&["XPENDING", "s", "g", "-", "+", "10"]);
        let theirs: Vec<&str> = pending.iter().map(|(_, consumer, ..)| consumer.as_str()).collect();
        assert!(theirs.iter().all(|consumer| *consumer == "moontide:free"), "nobody looks for it: {theirs:?}");
        let other = RedisBus::open(options(&server)).await.expect("the server can be used");
        let inbox = other.subscribe(everything()).await.expect("it opens").inbox;
        assert_eq!(inbox.receive(10).await.expect("it is there").len(), 1);
        other.close().await;
    }
}

/// A process that reads an entry before anybody else can.
const GHOST: &str = r"
redis.call('XADD', 's', '2-0', 'type', 's')
redis.call('XREADGROUP', 'GROUP', 'g', 'moontide:ghost:1', 'STREAMS', 's', '>')
";

async fn take(store: &Store, owner: &Owner, max: usize) -> (Vec<(u64, u32, u32)>, bool) {
    let owners = std::slice::from_ref(owner);
    let taken = takeover::take_over(store, "s", "g", owners, max).await.expect("the server answers");
    (seen(&taken.entries), taken.more)
}

#[tokio::test]
async fn the_dead_leave_their_entries_oldest_first_and_no_more_than_was_asked_for() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        fill(&server, 5, DEAD);
        let dead = owner(DEAD, None);
        assert_eq!(take(&store, &dead, 0).await, (vec![], true), "looking is not taking");
        assert_eq!(take(&store, &dead, 2).await, (vec![(1, 2, 0), (2, 2, 0)], true));
        assert_eq!(consumers(&server)[0], (DEAD.into(), 3), "it is not removed while it has something");
        let rest = takeover::take_over(&store, "s", "g", &[dead], 100).await.expect("the server answers");
        assert_eq!(seen(&rest.entries), [(3, 2, 0), (4, 2, 0), (5, 2, 0)]);
        assert!(!rest.more && rest.entries[0].orphaned() == 1);
        assert_eq!(rest.entries[0].fields, [("n".into(), "3".into())]);
        assert_eq!(consumers(&server), [(store.consumer.clone(), 5)], "nothing is left of it");
    }
}

#[tokio::test]
async fn what_was_given_back_keeps_its_count() {
    for server in KINDS.map(Server::new) {
        let (one, other) = (store(&server), store(&server));
        fill(&server, 3, &one.consumer);
        let entries = [(EntryId(1, 0), 1), (EntryId(2, 0), 1), (EntryId(3, 0), 7)];
        takeover::give_back(&one, "s", "g", &entries).await.expect("the server answers");
        assert_eq!(consumers(&server), [(FREE.into(), 2), (one.consumer.clone(), 1)], "not what changed hands since");
        let bell: Vec<(String, Vec<String>)> = server.get(&["XRANGE", "moontide:bell", "-", "+"]);
        assert_eq!(bell.iter().map(|(_, fields)| fields.join(" ")).collect::<Vec<_>>(), ["freed g"]);
        assert_eq!(take(&other, &owner(FREE, None), 10).await, (vec![(1, 1, 0), (2, 1, 0)], false));
        takeover::give_back(&one, "s", "g", &entries[..2]).await.expect("the server answers");
        assert_eq!(take(&one, &owner(FREE, None), 10).await, (vec![], false), "they are the other's now");
    }
}

#[tokio::test]
async fn who_lives_is_not_robbed() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        fill(&server, 2, DEAD);
        server.call(&["HSET", "moontide:beats", "dead:1", "8"]);
        for beat in [None, Some(7)] {
            assert_eq!(take(&store, &owner(DEAD, beat), 10).await, (vec![], false), "its counter moved");
        }
        assert_eq!(consumers(&server), [(DEAD.into(), 2)]);
        assert_eq!(take(&store, &owner(DEAD, Some(8)), 10).await.0.len(), 2);
    }
}

#[tokio::test]
async fn only_the_dead_of_our_own_and_what_is_free_are_orphans() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        let beat = Beat::begin(store.clone()).await.expect("the server answers");
        let living = self::store(&server);
        let _living = Beat::begin(living.clone()).await.expect("the server answers");
        fill(&server, 1, "somebody else's");
        for (n, consumer) in [(2, DEAD), (3, FREE), (4, &*living.consumer), (5, &*store.consumer)] {
            server.call(&["XADD", "s", &format!("{n}-0"), "n", "1"]);
            server.call(&["XREADGROUP", "GROUP", "g", consumer, "STREAMS", "s", ">"]);
        }
        let read = [("s".into(), "g".into()), ("s".into(), "missing".into()), ("missing".into(), "g".into())];
        let found = takeover::orphans(&store, &beat, &read).await.expect("the server answers");
        let ours = |consumer: &str| Owner { consumer: consumer.into(), beat: None, pending: 1 };
        assert_eq!(found, [vec![ours(DEAD), ours(FREE)], vec![], vec![]]);
        let taken = takeover::take_over(&store, "s", "g", &found[0], 10).await.expect("the server answers");
        assert_eq!(seen(&taken.entries), [(2, 2, 0), (3, 1, 0)]);
        let found = takeover::orphans(&store, &beat, &read[..1]).await.expect("the server answers");
        assert_eq!(found, [vec![]], "nothing is left");
        let missing = takeover::take_over(&store, "s", "missing", &[ours(DEAD)], 10).await;
        assert!(matches!(missing, Err(super::super::fault::Fault::NoGroup)), "{missing:?}");
        store.close();
        living.close();
    }
}

#[tokio::test]
async fn what_was_deleted_while_it_was_pending_is_counted_and_not_looked_for_again() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        fill(&server, 4, DEAD);
        server.call(&["XDEL", "s", "1-0", "3-0"]);
        assert_eq!(take(&store, &owner(DEAD, None), 3).await, (vec![(2, 2, 0)], true));
        server.call(&["XDEL", "s", "2-0"]);
        let own = takeover::own_pending(&store, "s", "g", EntryId(0, 0), 10, |_| false).await;
        assert_eq!(own.expect("the server answers").0, []);
        assert_eq!(server.get::<i64>(&["HGET", "moontide:group:g", "lost"]), 3);
        assert_eq!(consumers(&server), [(DEAD.into(), 1), (store.consumer.clone(), 0)]);
    }
}

#[tokio::test]
async fn a_death_under_an_open_mark_is_charged_and_nothing_else_is() {
    for server in KINDS.map(Server::new) {
        let (store, other) = (store(&server), store(&server));
        fill(&server, 2, &store.consumer);
        let entry = EntryId(1, 0);
        let mark = async |store: &Store, count| {
            takeover::mark(store, "s", "g", entry, count).await.expect("the server answers")
        };
        assert!(!mark(&other, 1).await && !mark(&store, 2).await, "it is not theirs");
        assert!(mark(&store, 1).await);
        assert_eq!(server.get::<String>(&["HGET", "moontide:marks:g", "s/1-0"]), "0 1");
        // Its process dies.
        assert_eq!(take(&other, &owner(&store.consumer, None), 9).await.0, [(1, 2, 1), (2, 2, 0)]);
        // Another one dies before it writes the mark again.
        assert_eq!(take(&store, &owner(&other.consumer, None), 9).await.0, [(1, 3, 1), (2, 3, 0)]);
        // It is given back under the mark.
        assert!(mark(&store, 3).await);
        takeover::give_back(&store, "s", "g", &[(entry, 3)]).await.expect("the server answers");
        assert_eq!(server.get::<String>(&["HGET", "moontide:marks:g", "s/1-0"]), "1 0");
        assert_eq!(take(&other, &owner(FREE, None), 9).await.0, [(1, 3, 1)]);
        // Its inbox is closed under the mark.
        assert!(mark(&other, 3).await);
        let again = takeover::own_pending(&other, "s", "g", EntryId(0, 0), 9, |_| false).await;
        assert_eq!(seen(&again.expect("the server answers").0), [(1, 3, 1)]);
        assert_eq!(take(&store, &owner(&other.consumer, None), 9).await.0, [(1, 4, 1)]);
        let missing = takeover::mark(&store, "s", "missing", entry, 4).await;
        assert!(!missing.expect("a group that is gone is an answer"));
    }
}

#[tokio::test]
async fn our_own_pending_entries_are_found_by_page_and_without_a_trace() {
    for server in KINDS.map(Server::new) {
        let store = store(&server);
        fill(&server, 5, &store.consumer);
        let held = |entry: EntryId| entry.0 == 2;
        let (mut after, mut all) = (Some(EntryId(0, 0)), Vec::new());
        while let Some(from) = after {
            let (found, next) = takeover::own_pending(&store, "s", "g", from, 2, held).await.expect("it answers");
            all.extend(seen(&found));
            after = next;
        }
        assert_eq!(all, [(1, 1, 0), (3, 1, 0), (4, 1, 0), (5, 1, 0)]);
    }
}
