//! Sentinels replace a master that died: work goes on at the new one, which holds all that had reached it, and nothing half.

use std::collections::BTreeSet;

use super::rig::{Rig, entries, pending};
use super::until;
use moontide_stage::proxy::{Mode, Proxy, Way};
use moontide_stage::server::{Kind, Server};

/// A master, a replica that follows it through a proxy, and a sentinel.
struct Deployment {
    master: Server,
    replica: Server,
    sentinel: Server,
    line: Proxy,
}

impl Deployment {
    async fn new() -> Self {
        let (master, replica) = (Server::with(Kind::Redis, &[]), Server::with(Kind::Redis, &[]));
        let line = Proxy::before(master.port()).await;
        replica.call(&["REPLICAOF", "127.0.0.1", &line.port().to_string()]);
        until(|| replica.get::<String>(&["INFO", "replication"]).contains("master_link_status:up")).await;
        let sentinel = Server::sentinel(&master);
        let info = || sentinel.get::<String>(&["INFO", "sentinel"]);
        until(|| info().contains("status=ok") && info().contains("slaves=1")).await;
        Self { master, replica, sentinel, line }
    }

    /// The first sentinel named does not answer.
    fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main", self.sentinel.port())
    }

    async fn replicated(&self) {
        until(|| self.replica.get::<Vec<String>>(&["KEYS", "*"]).len() == self.master.get::<usize>(&["DBSIZE"])).await;
        let offset = |server: &Server, field: &str| {
            let info = server.get::<String>(&["INFO", "replication"]);
            info.lines().find_map(|line| line.strip_prefix(field).map(str::to_owned))
        };
        until(|| offset(&self.master, "master_repl_offset:") == offset(&self.replica, "slave_repl_offset:")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_at_the_new_master() {
    let servers = Deployment::new().await;
    let mut rig = Rig::new(&servers.url()).await;
    for _ in 0..5 {
        rig.one().await;
    }
    rig.publish(2).await;
    let in_hand = rig.receive(1).await;
    servers.replicated().await;
    servers.master.kill();
    let answers = rig.settle(&in_hand).await;
    assert!(answers.iter().all(super::rig::is_settled), "{answers:?}");
    let waited = rig.receive(1).await;
    rig.settle(&waited).await;
    rig.one().await;
    rig.check_all(&servers.replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_had_not_reached_the_new_master_is_gone_as_a_whole() {
    let servers = Deployment::new().await;
    let mut rig = Rig::new(&servers.url()).await;
    rig.one().await;
    rig.publish(1).await;
    servers.replicated().await;
    servers.line.set(Way::ToClient, Mode::Lose);
    // The new master will know the event as waiting, and nothing of its effects.
    let second = rig.receive(1).await;
    rig.settle(&second).await;
    for _ in 0..5 {
        rig.one().await;
    }
    assert_eq!(entries(&servers.master, "out").len(), 7);
    servers.master.kill();
    rig.one().await;
    // The second one comes again, since its effects are gone too.
    while entries(&servers.replica, "out").len() < 3 {
        let again = rig.receive(1).await;
        rig.settle(&again).await;
    }
    let handled: BTreeSet<String> = entries(&servers.replica, "out").into_iter().collect();
    assert_eq!(handled, ["0001", "0002", "0008"].map(String::from).into());
    rig.check(&servers.replica, &handled.into_iter().collect::<Vec<_>>());
    assert_eq!(pending(&servers.replica), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_no_sentinel_watches_is_named() {
    let master = Server::with(Kind::Redis, &[]);
    let sentinel = Server::sentinel(&master);
    let url = format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port());
    let error = super::rig::open(&url).await.map(drop).expect_err("nobody knows it");
    assert!(error.to_string().contains("watches no service \"other\""), "{error}");
    let url = format!("redis://127.0.0.1:{}", sentinel.port());
    let error = super::rig::open(&url).await.map(drop).expect_err("it is a sentinel");
    assert!(error.to_string().contains("it is a sentinel; write"), "{error}");
}
