//! Who is taken for dead, and who is not.

use super::*;
use crate::bus::redis::beat::{Beat, Registration, bury};
use crate::bus::redis::roll;

const HOUR: Duration = Duration::from_secs(3600);

fn processes(server: &Server) -> Vec<String> {
    let mut known = strings(server, &["HKEYS", "moontide:beats"]);
    known.sort();
    known
}

async fn begin(server: &Server, recovery_time: Duration, beat_every: Duration) -> (Arc<Store>, Arc<Beat>) {
    let store = Arc::new(Store::new(Options { recovery_time, beat_every, ..options(server) }));
    let beat = Beat::begin(store.clone()).await.expect("the server answers");
    (store, beat)
}

async fn died(deaths: &mut tokio::sync::watch::Receiver<u64>) {
    let told = tokio::time::timeout(Duration::from_secs(20), deaths.changed()).await;
    told.expect("somebody dies").expect("it beats");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_on_this_machine_is_dead_at_once() {
    for server in KINDS.map(Server::new) {
        let (ours, beat) = begin(&server, HOUR, Duration::from_millis(10)).await;
        let (theirs, their_beat) = begin(&server, HOUR, Duration::from_millis(10)).await;
        let record: String = server.get(&["HGET", "moontide:processes", &theirs.process]);
        let record: Registration = serde_json::from_str(&record).expect("people and we can read it");
        assert_eq!((record.started_at, record.recovery_ms), (server.now(), 3_600_000));
        let mut deaths = beat.deaths();
        server.call(&["HSET", &format!("moontide:receipts:{}", theirs.process), "g/1", "1"]);
        // One beat later they know each other.
        let beats = || server.get::<i64>(&["HGET", "moontide:beats", &ours.process]);
        let before = beats();
        until("it beats on", || beats() > before + 1).await;
        assert!(beat.dead_at(&theirs.process).is_none() && !deaths.has_changed().expect("it beats"));
        // As a killed process: what it held is dropped by the kernel, whoever still knows of it.
        theirs.close();
        died(&mut deaths).await;
        until("it is forgotten", || processes(&server) == [&*ours.process]).await;
        assert_eq!(strings(&server, &["HKEYS", "moontide:processes"]), [&*ours.process]);
        assert_eq!(server.get::<i64>(&["EXISTS", &format!("moontide:receipts:{}", theirs.process)]), 0);
        drop(their_beat);
        ours.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_killed_on_this_machine_is_not_shown_any_more() {
    let server = Server::new(Kind::Redis);
    let (theirs, _beat) = begin(&server, HOUR, HOUR).await;
    let looking = store(&server);
    let shown = async || {
        let (alive, _) = roll::alive(&looking).await.expect("the server answers");
        alive.contains_key(&theirs.process)
    };
    assert!(shown().await);
    theirs.close();
    let gone = async { while shown().await {} };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the kernel says so");
    assert_eq!(processes(&server), [&*theirs.process], "nobody else has noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_counter_stands_still_is_dead_until_it_moves() {
    for server in KINDS.map(Server::new) {
        let (theirs, _silent) = begin(&server, 4 * HOUR, HOUR).await;
        let (ours, beat) = begin(&server, Duration::from_millis(100), HOUR).await;
        let mut deaths = beat.deaths();
        // The server's clock has no say.
        server.advance(100 * 3_600_000);
        died(&mut deaths).await;
        until("it is dead", || beat.dead_at(&theirs.process) == Some(1)).await;
        server.call(&["HINCRBY", "moontide:beats", &theirs.process, "1"]);
        until("it lives", || beat.dead_at(&theirs.process) != Some(1)).await;
        assert!(processes(&server).contains(&theirs.process), "who is only silent is not forgotten");
        ours.close();
        theirs.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_dies_because_the_server_was_away() {
    let server = Server::new(Kind::Redis);
    let recovery_time = Duration::from_secs(2);
    let (ours, beat) = begin(&server, recovery_time, HOUR).await;
    let beats = || server.get::<i64>(&["HGET", "moontide:beats", &ours.process]);
    server.call(&["HSET", "moontide:beats", "elsewhere:1", "1"]);
    let before = beats();
    until("it has seen the other one", || beats() > before).await;
    server.pause();
    tokio::time::sleep(recovery_time * 3 / 2).await;
    let mut deaths = beat.deaths();
    server.resume();
    // Ours is the first to get through; the other one's counter still stands where it stood before.
    let before = beats();
    until("it looks again", || beats() > before).await;
    assert_eq!((deaths.has_changed().expect("it beats"), beat.dead_at("elsewhere:1")), (false, None));
    died(&mut deaths).await;
    assert_eq!(beat.dead_at("elsewhere:1"), Some(1), "this time it stood still while everybody could beat");
    ours.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_forgotten_registers_again() {
    let server = Server::new(Kind::Redis);
    let (ours, _beat) = begin(&server, HOUR, Duration::from_millis(10)).await;
    server.call(&["DEL", "moontide:beats", "moontide:processes"]);
    until("it is back", || strings(&server, &["HKEYS", "moontide:processes"]) == [&*ours.process]).await;
    assert_eq!(processes(&server), [&*ours.process]);
    ours.close();
}

#[tokio::test]
async fn whose_counter_moved_after_it_was_taken_for_dead_is_not_buried() {
    let server = Server::new(Kind::Redis);
    let store = store(&server);
    server.call(&["HSET", "moontide:beats", "dead", "5", "back again", "6"]);
    bury(&store, vec![("dead".into(), 5), ("back again".into(), 5)]).await.expect("the server answers");
    assert_eq!(processes(&server), ["back again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_farewell_leaves_nothing_but_what_is_pending() {
    for server in KINDS.map(Server::new) {
        let (ours, beat) = begin(&server, HOUR, Duration::from_millis(5)).await;
        for stream in ["done", "undone"] {
            server.call(&["XADD", stream, "1-0", "n", "1"]);
            server.call(&["XGROUP", "CREATE", stream, "g", "0"]);
            server.call(&["XREADGROUP", "GROUP", "g", &ours.consumer, "STREAMS", stream, ">"]);
        }
        server.call(&["XACK", "done", "g", "1-0"]);
        server.call(&["HSET", &format!("moontide:receipts:{}", ours.process), "g/1", "1"]);
        let read = ["done", "undone", "missing"].map(|stream| (Arc::from(stream), Arc::from("g")));
        beat.farewell(&read).await.expect("the server answers");
        let consumers = |stream| server.get::<Vec<redis::Value>>(&["XINFO", "CONSUMERS", stream, "g"]).len();
        assert_eq!((consumers("done"), consumers("undone")), (0, 1));
        let pending: (i64, redis::Value, redis::Value, redis::Value) = server.get(&["XPENDING", "undone", "g"]);
        assert_eq!(pending.0, 1);
        // Whatever beat was under way has come before.
        server.call(&["PING"]);
        assert_eq!(strings(&server, &["KEYS", "moontide:*"]), ["moontide:bell"], "the others are told");
        ours.close();
    }
}
