//! A replica that has not heard everything takes over.

use std::time::Duration;

use moontide_stage::proxy::{Mode, Proxy, Way};
use moontide_stage::server::{Kind, Server};

use super::load::{Load, units};
use super::server::OPTIONS;
use crate::seen::server::look;

/// Kills the server while its replica lags, and puts the replica in its place. What the replica does not know of was
/// accepted, and is lost; all else that was taken back is done again.
pub async fn promote(load: &mut Load) -> Server {
    let master = load.stage.server();
    let replica = Server::with(Kind::Redis, OPTIONS);
    let line = Proxy::before(master.port()).await;
    replica.call(&["REPLICAOF", "127.0.0.1", &line.port().to_string()]);
    let follows = async || replica.get::<String>(&["INFO", "replication"]).contains("master_link_status:up");
    load.stage.until("the replica follows", follows).await;
    line.set(Way::ToClient, Mode::Lose);
    load.begin().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let had = look(load.stage.server());
    load.stage.server().kill();
    replica.call(&["REPLICAOF", "NO", "ONE"]);
    let has = look(&replica);
    let accepted = had.accounts().into_keys().filter(|unit| unit.n.unsigned_abs() > has.last());
    load.found.predicted += accepted.count() as u64;
    load.gone.extend(units(has.last() + 1, load.stage.last()));
    replica.call(&["CONFIG", "SET", "port", &load.stage.server().port().to_string()]);
    replica
}
