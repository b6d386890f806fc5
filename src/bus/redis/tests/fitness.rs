//! Servers that cannot be used are refused before anything is written, and say why.

use super::super::{RedisBus, promises};
use super::*;
use crate::bus::BusError;

async fn refused(options: Options) -> String {
    match RedisBus::open(options).await {
        Ok(_) => panic!("it is used"),
        Err(error @ BusError::Unusable { .. }) => error.to_string(),
        Err(error) => panic!("it is not for good: {error}"),
    }
}

#[tokio::test]
async fn a_server_that_throws_keys_away_is_refused_unless_that_is_accepted() {
    let server = Server::with(Kind::Redis, &["--maxmemory-policy", "allkeys-lru"]);
    assert!(refused(options(&server)).await.contains("maxmemory-policy is allkeys-lru"));
    assert_eq!(server.get::<u64>(&["DBSIZE"]), 0, "nothing was written");
    let bus = RedisBus::open(Options { allow_eviction: true, ..options(&server) }).await;
    bus.expect("that is accepted").close().await;
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_one_of_ours_is_not() {
    for kind in KINDS {
        let server = Server::new(kind);
        for _ in 0..2 {
            RedisBus::open(options(&server)).await.expect("it can be used").close().await;
        }
        server.call(&["SET", "moontide:format", "2"]);
        assert!(refused(options(&server)).await.contains("newer version"));
        assert_eq!(server.get::<String>(&["GET", "moontide:format"]), "2");
    }
}

#[tokio::test]
async fn what_is_promised_depends_on_what_the_server_writes_down() {
    for (settings, power) in [
        (&["--appendonly", "yes", "--appendfsync", "always"][..], "nothing that was answered is lost"),
        (&["--appendonly", "yes"][..], "about two seconds"),
        (&[][..], "since the last snapshot"),
    ] {
        let server = Server::with(Kind::Redis, settings);
        let promised = promises(&options(&server)).await.expect("it answers");
        let row = promised.iter().find(|row| row.when == "the server's machine loses power").expect("there is one");
        assert!(row.holds.contains(power), "{settings:?}: {}", row.holds);
    }
}
