//! What silent consumers of others hold, and who counts as silent.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::super::adopt::{Adopt, AdoptRules, Adopter};
use super::super::door::Door;
use super::super::keys::FREE;
use super::super::takeover::{self, Owner};
use super::*;
use crate::bus::{Start, Subscription};

const SECOND: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(3);

fn door() -> Arc<Door> {
    let subscription = Subscription {
        handler: "h".into(),
        group: "g".into(),
        types: Vec::new(),
        streams: vec!["s".into()],
        discover: Vec::new(),
        start: Start::Latest,
    };
    let retry: Arc<str> = "moontide:retry:g".into();
    Arc::new(Door::new(Arc::new(subscription), retry.clone(), vec![retry, "s".into()], Arc::default()))
}

/// A process that serves the group and adopts from these.
struct Process {
    adopter: Adopter,
    idle: Arc<Mutex<Duration>>,
    _door: Arc<Door>,
}

impl Process {
    fn new(server: &Server, consumers: &'static [&'static str]) -> Self {
        let (store, door) = (store(server), door());
        store.add_door(&door);
        let consumers: Vec<String> = consumers.iter().map(|pattern| (*pattern).to_owned()).collect();
        let idle = Arc::new(Mutex::new(IDLE));
        let asked = idle.clone();
        let rule =
            move |handler: &str| (handler == "h").then(|| Adopt { consumers: consumers.clone(), idle: *asked.lock() });
        let adopter = Adopter { store, rules: AdoptRules::new(rule), watched: HashMap::new() };
        Self { adopter, idle, _door: door }
    }

    /// Looks once a second for so long.
    async fn watch(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.adopter.round(SECOND).await.expect("the server answers");
        }
    }

    /// What it finds that is nobody's: entry, and how often it was delivered.
    async fn free(&self, max: usize) -> Vec<(u64, u32)> {
        let free = [Owner { consumer: FREE.into(), beat: None, pending: 1 }];
        let taken = takeover::take_over(&self.adopter.store, "s", "g", &free, max).await.expect("the server answers");
        taken.entries.iter().map(|found| (found.entry.0, found.count)).collect()
    }
}

/// A stream with `count` entries, 1-0 and on, of which `consumer` has read all that nobody had.
fn fill(server: &Server, count: usize, consumer: &str) {
    let script = "for n = 1, ARGV[1] do redis.call('XADD', 's', n .. '-0', 'n', n) end
        redis.call('XGROUP', 'CREATE', 's', 'g', '0')";
    server.call(&["EVAL", script, "0", &count.to_string()]);
    read(server, consumer, count);
}

fn read(server: &Server, consumer: &str, count: usize) {
    server.call(&["XREADGROUP", "GROUP", "g", consumer, "COUNT", &count.to_string(), "STREAMS", "s", ">"]);
}

/// How much is pending, by consumer.
fn pending(server: &Server) -> Vec<(String, u64)> {
    type Summary = (u64, Option<String>, Option<String>, Option<Vec<(String, String)>>);
    let (.., consumers): Summary = server.get(&["XPENDING", "s", "g"]);
    let number = |(name, count): (String, String)| (name, count.parse().expect("a number"));
    consumers.unwrap_or_default().into_iter().map(number).collect()
}

fn holds(consumer: &str, count: u64) -> (String, u64) {
    (consumer.into(), count)
}

#[tokio::test]
async fn what_a_silent_consumer_holds_is_nobodys_as_if_it_were_new() {
    for server in KINDS.map(Server::new) {
        let mut process = Process::new(&server, &["worker-*"]);
        fill(&server, 6, "worker-1");
        // It was delivered again and again.
        server.call(&["XCLAIM", "s", "g", "worker-1", "0", "1-0", "2-0", "RETRYCOUNT", "7", "JUSTID"]);
        server.call(&["XCLAIM", "s", "g", "moontide:dead:1", "0", "5-0", "JUSTID"]);
        server.call(&["XCLAIM", "s", "g", "another", "0", "6-0", "JUSTID"]);
        process.watch(3).await;
        assert_eq!(pending(&server)[2], holds("worker-1", 4), "the silence began with the first look");
        process.watch(1).await;
        assert_eq!(pending(&server), [holds("another", 1), holds("moontide:dead:1", 1), holds(FREE, 4)]);
        let bell: Vec<(String, Vec<String>)> = server.get(&["XRANGE", "moontide:bell", "-", "+"]);
        assert_eq!(bell.iter().map(|(_, fields)| fields.join(" ")).collect::<Vec<_>>(), ["freed g"]);
        assert_eq!(process.free(9).await, [(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(server.get::<i64>(&["EXISTS", "moontide:adopted:g"]), 0, "nothing is kept of what is over");
        process.watch(9).await;
        assert_eq!(pending(&server).len(), 3, "nobody else is robbed");
    }
}

#[tokio::test]
async fn a_star_means_nobody_of_ours() {
    for server in KINDS.map(Server::new) {
        let mut process = Process::new(&server, &["*"]);
        fill(&server, 3, "anybody");
        server.call(&["XCLAIM", "s", "g", "moontide:dead:1", "0", "1-0", "JUSTID"]);
        server.call(&["XCLAIM", "s", "g", &process.adopter.store.consumer, "0", "2-0", "JUSTID"]);
        process.watch(5).await;
        let ours = process.adopter.store.consumer.clone();
        let mut expected = [holds("moontide:dead:1", 1), holds(FREE, 1), holds(&ours, 1)];
        expected.sort();
        assert_eq!(pending(&server), expected);
    }
}

#[tokio::test]
async fn who_asks_or_acknowledges_keeps_what_it_has() {
    for server in KINDS.map(Server::new) {
        let mut process = Process::new(&server, &["*"]);
        fill(&server, 40, "busy");
        for n in 1..=30 {
            process.watch(2).await;
            match n {
                ..=15 => server.call(&["XACK", "s", "g", &format!("{n}-0")]),
                _ => {
                    server.call(&["XADD", "s", &format!("{}-0", 100 + n), "n", "1"]);
                    server.advance(1000);
                    read(&server, "busy", 1);
                    redis::Value::Nil
                }
            };
        }
        assert_eq!(pending(&server), [holds("busy", 40)]);
        // By the server's clock it is silent for long.
        server.advance(1000 * 3600 * 1000);
        process.watch(2).await;
        assert_eq!(pending(&server), [holds("busy", 40)], "the server's clock decides nothing");
        process.watch(2).await;
        assert_eq!(pending(&server), [holds(FREE, 40)]);
    }
}

/// As docs/taking-over.md says.
#[tokio::test]
async fn a_read_that_brings_nothing_is_a_sign_of_life_where_the_server_notes_it() {
    for server in KINDS.map(Server::new) {
        let mut process = Process::new(&server, &["*"]);
        fill(&server, 3, "waits");
        let info: Vec<HashMap<String, redis::Value>> = server.get(&["XINFO", "CONSUMERS", "s", "g"]);
        let notes_all = info[0].contains_key("inactive");
        for _ in 0..6 {
            server.advance(1000);
            read(&server, "waits", 1);
            process.watch(1).await;
        }
        assert_eq!(pending(&server), [holds(if notes_all { "waits" } else { FREE }, 3)]);
    }
}

#[tokio::test]
async fn a_sign_of_life_between_the_last_look_and_the_step_counts() {
    for server in KINDS.map(Server::new) {
        for acknowledges in [true, false] {
            server.call(&["FLUSHALL"]);
            let mut process = Process::new(&server, &["*"]);
            fill(&server, 5, "slow");
            *process.idle.lock() = 100 * SECOND;
            process.watch(90).await;
            match acknowledges {
                true => server.call(&["XACK", "s", "g", "5-0"]),
                false => {
                    server.advance(1000);
                    server.call(&["XREADGROUP", "GROUP", "g", "slow", "STREAMS", "s", "0"])
                }
            };
            // By what was seen of it, it is silent for long enough.
            *process.idle.lock() = 50 * SECOND;
            process.watch(1).await;
            assert_eq!(pending(&server), [holds("slow", 5 - u64::from(acknowledges))]);
            process.watch(50).await;
            assert_eq!(pending(&server)[0].0, FREE, "and now it is");
        }
    }
}

#[tokio::test]
async fn ten_thousand_are_moved_in_steps_and_processes_do_not_take_each_other_for_life() {
    for server in KINDS.map(Server::new) {
        let mut processes = [Process::new(&server, &["*"]), Process::new(&server, &["*"])];
        fill(&server, 10_000, "old");
        for process in &mut processes {
            process.watch(3).await;
        }
        let before = calls(&server, "xclaim");
        let [one, other] = &mut processes;
        // Side by side, step by step.
        tokio::join!(one.watch(1), other.watch(1));
        assert_eq!(pending(&server), [holds(FREE, 10_000)]);
        assert_eq!(calls(&server, "xclaim") - before, 20, "no step is larger than 500");
        assert_eq!(server.get::<i64>(&["EXISTS", "moontide:adopted:g"]), 0);
        let mut all = Vec::new();
        while all.len() < 10_000 {
            all.extend(one.free(500).await);
        }
        assert!(all.iter().zip(1..).all(|(found, n)| *found == (n, 1)), "each once, in their order");
    }
}

/// How often a command was called.
fn calls(server: &Server, command: &str) -> u64 {
    let stats: String = server.get(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()).map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn who_stops_in_the_middle_loses_nothing_and_another_goes_on() {
    let server = Server::new(Kind::Redis);
    let mut process = Process::new(&server, &["*"]);
    fill(&server, 2000, "old");
    process.watch(3).await;
    {
        let mut watching = std::pin::pin!(process.watch(1));
        // Its process is killed when it has made a step or two.
        let killed = async {
            while pending(&server)[0] == holds("old", 2000) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { biased; () = &mut watching => panic!("it has done it all at once"), () = killed => {} }
    }
    let [(free, some), (old, rest)] = &pending(&server)[..] else { panic!("it was in the middle") };
    assert_eq!((free.as_str(), old.as_str(), some + rest), (FREE, "old", 2000), "nothing is lost");
    // Another one has seen nothing of all that, and begins to look.
    let mut another = Process::new(&server, &["*"]);
    another.watch(4).await;
    assert_eq!(pending(&server), [holds(FREE, 2000)]);
    assert_eq!(another.free(500).await.len(), 500);
}

#[tokio::test]
async fn what_was_deleted_while_it_was_pending_is_counted_as_lost() {
    for server in KINDS.map(Server::new) {
        let mut process = Process::new(&server, &["*"]);
        fill(&server, 6, "old");
        server.call(&["XTRIM", "s", "MINID", "3-0"]);
        process.watch(4).await;
        assert_eq!(server.get::<i64>(&["HGET", "moontide:group:g", "lost"]), 2);
        assert_eq!(pending(&server), [holds(FREE, 4)]);
        assert_eq!(process.free(9).await, [(3, 1), (4, 1), (5, 1), (6, 1)]);
    }
}

#[tokio::test]
async fn a_group_that_is_not_there_is_nothing_to_look_at() {
    let server = Server::new(Kind::Redis);
    let mut process = Process::new(&server, &["*"]);
    process.watch(5).await;
    server.call(&["XADD", "s", "1-0", "n", "1"]);
    process.watch(5).await;
    assert_eq!(server.get::<i64>(&["EXISTS", "moontide:bell"]), 0);
}
