//! The store, a stream or a group vanishes under load: what was in hand is dropped, the group is there again by itself, and
//! nothing that is left, or comes later, is missed or handled twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use moontide::bus::{Answer, Bus, Subscription};

use super::rig::{Rig, entries, handled, ids, is_settled, open, passing, pending};
use super::until;
use crate::conformance::{PATIENCE, emit, subscription};
use moontide_stage::proxy::{Proxy, Way};
use moontide_stage::server::{Kind, Server};

const KINDS: [Kind; 2] = [Kind::Redis, Kind::Valkey];

/// An event in hand, one handled, two that wait.
struct Load {
    server: Server,
    rig: Rig,
    in_hand: Vec<Arc<moontide::bus::Delivery>>,
}

impl Load {
    async fn new(kind: Kind, options: &[&str]) -> Self {
        let server = Server::with(kind, options);
        let mut rig = Rig::new(&server.url()).await;
        rig.one().await;
        rig.publish(3).await;
        let in_hand = rig.receive(1).await;
        Self { server, rig, in_hand }
    }

    /// What was in hand is answered so; then everything that is left, and what comes now, is handled.
    async fn goes_on(mut self, expected: Answer, left: &[&str]) {
        let answers = self.rig.settle(&self.in_hand).await;
        assert_eq!(answers, [expected]);
        let handled_before: BTreeSet<String> = entries(&self.server, "out").into_iter().collect();
        self.rig.publish(2).await;
        let expected: BTreeSet<String> = left.iter().chain(&["0005", "0006"]).map(|id| id.to_string()).collect();
        let mut handled = BTreeSet::new();
        while !handled.is_superset(&expected) {
            let some = self.rig.receive(1).await;
            let answers = self.rig.settle(&some).await;
            // What came again is a duplicate.
            let again = ids(&some).is_subset(&handled_before);
            assert!(answers.iter().all(|answer| is_settled(answer) != again), "{some:?}: {answers:?}");
            handled.extend(ids(&some));
        }
        let all: Vec<String> = handled_before.union(&handled).cloned().collect();
        self.rig.check(&self.server, &all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_destroyed_goes_on_where_it_was() {
    for kind in KINDS {
        let load = Load::new(kind, &[]).await;
        load.server.call(&["XGROUP", "DESTROY", "orders", "group"]);
        load.goes_on(Answer::StoreReset, &["0002", "0003", "0004"]).await;
    }
}

/// The group's mark stays before what is in hand, though what lies after it is settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_hand_before_something_settled_comes_again_to_a_group_that_is_destroyed() {
    let server = Server::with(Kind::Redis, &[]);
    let mut rig = Rig::new(&server.url()).await;
    rig.publish(3).await;
    let in_hand = rig.receive(2).await;
    rig.settle(&in_hand[1..]).await;
    server.call(&["XGROUP", "DESTROY", "orders", "group"]);
    assert_eq!(rig.settle(&in_hand[..1]).await, [Answer::StoreReset]);
    let mut left = BTreeSet::from(["0001".to_owned(), "0003".to_owned()]);
    while !left.is_empty() {
        let some = rig.receive(1).await;
        rig.settle(&some).await;
        left = &left - &ids(&some);
    }
    rig.check_all(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_is_there_again() {
    for kind in KINDS {
        let load = Load::new(kind, &[]).await;
        load.server.call(&["DEL", "orders"]);
        load.goes_on(Answer::StoreReset, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_flushed_is_set_up_again() {
    for kind in KINDS {
        let load = Load::new(kind, &[]).await;
        load.server.call(&["FLUSHALL"]);
        load.goes_on(Answer::StoreReset, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_empty_is_set_up_again() {
    for kind in KINDS {
        let load = Load::new(kind, &[]).await;
        load.server.lose_everything();
        load.goes_on(Answer::StoreReset, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_with_everything_is_gone_on_with() {
    for kind in KINDS {
        let load = Load::new(kind, &["--appendonly", "yes", "--appendfsync", "always"]).await;
        load.server.kill();
        load.server.start();
        load.goes_on(Answer::Done { dead: None }, &["0003", "0004"]).await;
    }
}

/// Nobody publishes and nobody settles: only the idle inbox can notice, and whoever publishes next knows nothing of groups.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_inbox_whose_store_vanished_misses_nothing() {
    for kind in KINDS {
        for vanish in [&["FLUSHALL"][..], &["DEL", "orders"], &["XGROUP", "DESTROY", "orders", "group"]] {
            let server = Server::with(kind, &[]);
            let mut rig = Rig::new(&server.url()).await;
            rig.one().await;
            let (inbox, waiting) = (rig.inbox.clone(), tokio::sync::oneshot::channel());
            let idle = tokio::spawn(async move {
                waiting.0.send(()).expect("the test lives");
                inbox.receive(1).await
            });
            waiting.1.await.expect("it began");
            until(|| server.get::<String>(&["CLIENT", "LIST"]).contains("cmd=xread")).await;
            server.call(vanish);
            server.call(&["XADD", "orders", "*", "id", "foreign", "type", "order.created", "source", "somebody"]);
            let received = idle.await.expect("it did not panic");
            let received: Vec<_> = match super::rig::passing(received) {
                Ok(received) => received.into_iter().map(Arc::new).collect(),
                Err(_) => rig.receive(1).await,
            };
            assert_eq!(ids(&received).into_iter().collect::<Vec<_>>(), ["foreign"], "{vanish:?}");
            let answers = moontide::bus::Inbox::settle(&*rig.inbox, received.iter().map(handled).collect()).await;
            assert!(answers.is_ok_and(|answers| answers.iter().all(is_settled)), "{vanish:?}");
            assert_eq!(pending(&server), 0);
        }
    }
}

/// Entries of one stream are found again while the group of the next one is missing: they are handed out all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_again_beside_a_group_that_vanished_is_handed_out() {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    let bus = open(&proxy.url()).await.expect("the server can be used");
    let streams = vec!["orders".into(), "second".into()];
    let both = Subscription { streams, ..subscription("group") };
    let inbox = bus.subscribe(both).await.expect("the group is opened").inbox;
    proxy.cut_at("XREADGROUP", Way::ToClient, 100);
    bus.publish(vec![emit("orders", "a"), emit("orders", "b")]).await.expect("it is stored");
    // They are delivered to nobody.
    passing(inbox.receive(10).await).expect_err("the answer is cut");
    assert!(proxy.was_cut());
    server.call(&["XGROUP", "DESTROY", "second", "group"]);
    let mut received = Vec::new();
    let receiving = async {
        while received.len() < 2 {
            let some = passing(inbox.receive(10).await).unwrap_or_default();
            received.extend(some.into_iter().map(Arc::new));
        }
    };
    tokio::time::timeout(PATIENCE, receiving).await.expect("both come");
    let answers = inbox.settle(received.iter().map(handled).collect()).await.expect("it is answered");
    assert!(answers.iter().all(is_settled), "{answers:?}");
    assert_eq!(pending(&server), 0);
}
