//! A key claims its body, and nothing is stored twice or in part.

use super::super::RedisBus;
use super::*;
use crate::bus::{Claim, Intake, Overview, TakenIn};
use crate::event::Event;
use crate::outcome::{Emit, RecordKey};

fn emit(stream: &str, id: &str) -> Emit {
    Emit { stream: stream.into(), event: Event::new(id, "test", "order.created"), delay: None }
}

#[tokio::test]
async fn a_body_is_stored_once_and_another_one_is_refused() {
    let server = Server::new(Kind::Redis);
    let bus = RedisBus::open(options(&server)).await.expect("the server can be used");
    let claim = |body| Claim { key: RecordKey([7; 16]), body, window: Duration::from_secs(60) };
    let send = async |body| bus.take_in(vec![emit("orders", "a"), emit("orders", "b")], claim(body)).await;
    assert_eq!(send(1).await.expect("it is taken"), TakenIn::Stored);
    assert_eq!(send(1).await.expect("it is known"), TakenIn::Before);
    assert_eq!(send(2).await.expect("it is known"), TakenIn::OtherBody);
    assert_eq!(bus.history("orders", None, 10).await.expect("it is readable").len(), 2);
    server.advance(60_001);
    assert_eq!(send(2).await.expect("the window is over"), TakenIn::Stored);
}

#[tokio::test]
async fn what_cannot_be_stored_claims_nothing() {
    let server = Server::new(Kind::Redis);
    let bus = RedisBus::open(options(&server)).await.expect("the server can be used");
    server.call(&["SET", "text", "1"]);
    let claim = Claim { key: RecordKey([7; 16]), body: 1, window: Duration::from_secs(60) };
    let refused = bus.take_in(vec![emit("orders", "a"), emit("text", "b")], claim).await.expect_err("it is a text");
    assert!(refused.to_string().contains("holds a string"), "{refused}");
    assert_eq!(server.get::<u64>(&["XLEN", "orders"]), 0);
    assert_eq!(bus.take_in(vec![emit("orders", "a")], claim).await.expect("it is taken"), TakenIn::Stored);
}

#[tokio::test]
async fn what_the_acl_forbids_is_asked_before_anything_is_stored() {
    // Every key of ours, claims only to be read; every key of ours, and not the stream.
    let mut but_claims = vec!["~orders", "%R~moontide:intake:*"];
    but_claims.extend(["~moontide:parked", "~moontide:due", "~moontide:delayed", "~moontide:bell"]);
    but_claims.extend(["~moontide:streams", "~moontide:published"]);
    for allowed in [but_claims, vec!["~moontide:*"]] {
        let server = Server::new(Kind::Redis);
        server.call(&["ACL", "SETUSER", "worker", "on", ">geheim", "~*", "&*", "+@all"]);
        let address = server.url().replace("redis://", "redis://worker:geheim@");
        let address = Address::parse(&address).expect("it is an address");
        let bus = RedisBus::open(Options { address, ..options(&server) }).await.expect("the server can be used");
        let claim = Claim { key: RecordKey([7; 16]), body: 1, window: Duration::from_secs(60) };
        server.call(&[&["ACL", "SETUSER", "worker", "resetkeys"][..], &allowed].concat());
        let error = bus.take_in(vec![emit("orders", "a")], claim).await.expect_err("it is forbidden");
        assert!(error.is_passing() && error.to_string().contains("ACL"), "nobody's fault: {error}");
        server.call(&["ACL", "SETUSER", "worker", "~*"]);
        assert_eq!(server.get::<u64>(&["XLEN", "orders"]), 0, "{allowed:?}");
        assert_eq!(bus.take_in(vec![emit("orders", "a")], claim).await.expect("it is taken"), TakenIn::Stored);
    }
}
