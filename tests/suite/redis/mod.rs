//! Redis Streams: the conformance suite on real servers, and what only this bus promises.

mod backlog;
mod channels;
mod cuts;
mod errors;
mod event_bus;
mod failover;
mod foreign;
mod harness;
mod letters;
mod outages;
mod power;
mod process;
mod quiet;
mod resets;
mod rig;
mod storm;
mod strange;
pub mod tls;

use harness::RedisHarness;
use moontide_stage::server::{Kind, Server};

use crate::conformance::suite;

suite!(on_redis, crate::redis::RedisHarness::new(crate::redis::Kind::Redis));
suite!(on_valkey, crate::redis::RedisHarness::new(crate::redis::Kind::Valkey));

/// Asks again until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    crate::conformance::until(|| std::future::ready(is_so())).await;
}

#[test]
fn a_servers_clock_stands_still_until_it_is_moved() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let server = Server::new(kind);
        let time = || {
            let (seconds, micros): (i64, i64) = server.get(&["TIME"]);
            seconds * 1000 + micros / 1000
        };
        assert_eq!(time(), server.now());
        server.call(&["SET", "k", "v", "PX", "5000"]);
        server.advance(4999);
        assert_eq!(time(), server.now());
        assert_eq!(server.get::<Option<String>>(&["GET", "k"]).as_deref(), Some("v"));
        assert_eq!(server.get::<String>(&["XADD", "s", "*", "a", "b"]), format!("{}-0", server.now()));
        // A key goes after its last millisecond, not with it.
        server.advance(2);
        assert_eq!(server.get::<Option<String>>(&["GET", "k"]), None);
    }
}

#[test]
fn a_server_keeps_what_it_should_and_loses_what_it_should() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let server = Server::with(kind, &["--appendonly", "yes"]);
        let value = || server.get::<Option<String>>(&["GET", "k"]);
        server.call(&["SET", "k", "kept"]);
        server.kill();
        assert!(server.try_call(&["PING"]).is_err());
        server.start();
        assert_eq!(value().as_deref(), Some("kept"));
        server.stop();
        server.start();
        assert_eq!(value().as_deref(), Some("kept"));
        server.pause();
        server.resume();
        server.lose_everything();
        assert_eq!(value(), None);
    }
}
