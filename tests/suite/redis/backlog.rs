//! A dead process leaves so much behind that no single call may look at all of it.

use std::sync::Arc;
use std::time::Duration;

use moontide::bus::redis::{Address, Options, RedisBus};
use moontide::bus::{Answer, Bus, Overview, Run};

use crate::conformance::{PATIENCE, commit, subscription};
use moontide_stage::server::{Kind, Server};

/// What the server takes longer for is noted; in microseconds.
const SLOW: &str = "50000";
/// Calls that a busy machine may have held up.
const HELD_UP_MAX: usize = 3;
const STEP: usize = 1000;

/// Makes entries that are pending for somebody who is dead.
fn leave_behind(server: &Server, count: usize) {
    const FILL: &str =
        "for i = 1, ARGV[1] do redis.call('XADD', 'orders', '*', 'id', i, 'source', 's', 'type', 'orders') end";
    let call = |words: &[&str]| drop(server.call(words));
    call(&["XGROUP", "CREATE", "orders", "group", "0", "MKSTREAM"]);
    let step = STEP.to_string();
    for _ in 0..count / STEP {
        call(&["EVAL", FILL, "0", &step]);
        call(&["XREADGROUP", "GROUP", "group", "moontide:gone:1", "COUNT", &step, "STREAMS", "orders", ">"]);
    }
}

/// How often the server took long, and what it took longest for, in microseconds.
fn slow(server: &Server) -> (usize, i64) {
    let noted: Vec<Vec<redis::Value>> = server.get(&["SLOWLOG", "GET", "-1"]);
    let times: Vec<i64> =
        noted.iter().map(|call| redis::from_redis_value(call[2].clone()).expect("it is a number")).collect();
    (times.len(), times.into_iter().max().unwrap_or_default())
}

async fn worked_off(kind: Kind, count: usize) {
    let server = Server::with(kind, &["--slowlog-log-slower-than", SLOW, "--slowlog-max-len", "100000"]);
    leave_behind(&server, count);
    server.call(&["SLOWLOG", "RESET"]);
    let address = Address::parse(&server.url()).expect("the address is valid");
    let bus = RedisBus::open(Options { recovery_time: Duration::from_secs(2), ..Options::at(address) });
    let bus = bus.await.expect("the server can be used");
    let inbox = bus.subscribe(subscription("group")).await.expect("the group is opened").inbox;
    let mut done = 0;
    while done < count {
        let got = tokio::time::timeout(PATIENCE, inbox.receive(STEP)).await.expect("there is more");
        let got = got.expect("the server answers");
        let runs: Arc<[Run]> = got.into_iter().map(|delivery| commit(&Arc::new(delivery))).collect();
        assert!(runs.iter().all(|run| run.deliveries[0].delivery.orphaned == 1), "each was with one that died");
        let answers = inbox.settle(runs).await.expect("the server answers");
        assert!(answers.iter().all(|answer| *answer == Answer::Done { dead: None }));
        done += answers.len();
    }
    let status = bus.groups().await.expect("the server answers").remove(0);
    assert_eq!((done, status.in_flight, status.lag), (count, 0, 0));
    let consumers: Vec<redis::Value> = server.get(&["XINFO", "CONSUMERS", "orders", "group"]);
    assert_eq!(consumers.len(), 1, "the dead one is removed");
    let (times, longest) = slow(&server);
    println!("{count} entries: {times} calls took longer than {SLOW} µs, the longest {longest} µs");
    assert!(times <= HELD_UP_MAX, "{times} calls took longer than {SLOW} µs, the longest {longest} µs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_entries_of_a_dead_process_hold_up_nobody() {
    worked_off(Kind::Redis, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_million_entries_of_a_dead_process_hold_up_nobody() {
    for kind in [Kind::Redis, Kind::Valkey] {
        worked_off(kind, 1_000_000).await;
    }
}
