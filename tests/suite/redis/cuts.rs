//! The connection is cut at every byte: nothing is lost, nothing happens twice.

use super::rig::{Rig, ids, is_settled};
use moontide_stage::proxy::{Proxy, Way};
use moontide_stage::server::{Kind, Server};

/// More bytes than any request or answer here has.
const BYTES_MAX: usize = 4096;

async fn rig() -> (Server, Proxy, Rig) {
    let server = Server::with(Kind::Redis, &[]);
    let proxy = Proxy::before(server.port()).await;
    let rig = Rig::new(&proxy.url()).await;
    (server, proxy, rig)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settle_whose_answer_is_cut_at_any_byte_happens_once() {
    let (server, proxy, mut rig) = rig().await;
    let mut mine = 0;
    for byte in 0..BYTES_MAX {
        rig.publish(2).await;
        let deliveries = rig.receive(2).await;
        proxy.cut_at("moontide:receipts:", Way::ToClient, byte);
        let answers = rig.settle(&deliveries).await;
        assert!(answers.iter().all(is_settled), "cut after {byte} bytes: {answers:?}");
        if !proxy.was_cut() {
            assert!(byte > 20, "an answer to a settle is longer than {byte} bytes");
            assert!(mine > byte, "what was cut was done before it was repeated: {mine} of {byte} times two");
            return rig.check_all(&server);
        }
        mine += answers.iter().filter(|answer| **answer == moontide::bus::Answer::AlreadyMine).count();
    }
    panic!("the answer to a settle never ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settle_that_is_cut_on_its_way_happens_once() {
    let (server, proxy, mut rig) = rig().await;
    // The words themselves go by with the first bytes; every byte would be too many.
    for byte in (0..BYTES_MAX).step_by(41) {
        rig.publish(1).await;
        let deliveries = rig.receive(1).await;
        proxy.cut_at("moontide:receipts:", Way::ToServer, byte);
        let answers = rig.settle(&deliveries).await;
        assert!(answers.iter().all(is_settled), "cut after {byte} bytes: {answers:?}");
        if !proxy.was_cut() {
            assert!(byte > 100, "a settle is longer than {byte} bytes");
            return rig.check_all(&server);
        }
    }
    panic!("the settle never ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_while_the_answer_is_cut_at_any_byte_is_handed_out_once() {
    let (server, proxy, mut rig) = rig().await;
    for byte in 0..BYTES_MAX {
        proxy.cut_at("XREADGROUP", Way::ToClient, byte);
        rig.publish(2).await;
        let deliveries = rig.receive(2).await;
        assert_eq!(ids(&deliveries).len(), 2, "cut after {byte} bytes");
        let was_cut = proxy.was_cut();
        let answers = rig.settle(&deliveries).await;
        assert!(answers.iter().all(is_settled), "cut after {byte} bytes: {answers:?}");
        if !was_cut {
            assert!(byte > 200, "an answer with two events is longer than {byte} bytes");
            return rig.check_all(&server);
        }
    }
    panic!("the answer to a read never ends");
}
