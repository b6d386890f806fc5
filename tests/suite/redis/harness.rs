//! The conformance suite on a real server: each case has a server of its own.

use std::time::Duration;

use async_trait::async_trait;
use moontide::bus::Features;
use moontide::bus::redis::{Address, Options, RedisBus};
use moontide::clock::Millis;

use crate::conformance::{Harness, Host};
use moontide_stage::server::{Kind, Server};

/// So long that a busy machine makes no zombie. Who really dies is known at once: all processes are on this machine.
const RECOVERY: Duration = Duration::from_secs(2);
const HOUR: Duration = Duration::from_secs(3600);

pub struct RedisHarness(Server);

impl RedisHarness {
    pub fn new(kind: Kind) -> Self {
        Self(Server::new(kind))
    }

    async fn host(&self, recovery_time: Duration, beat_every: Duration) -> Host {
        let address = Address::parse(&self.0.url()).expect("the address is valid");
        let options =
            Options { recovery_time, beat_every, upkeep_every: Duration::from_millis(20), ..Options::at(address) };
        let bus = RedisBus::open(options).await.expect("the server can be used");
        Host { bus: bus.clone(), ledger: bus.clone(), dead: bus.clone(), state: bus.clone(), overview: bus }
    }
}

#[async_trait]
impl Harness for RedisHarness {
    fn features(&self) -> Features {
        Features { one_store: true, marks: true, durable: true, shared: true, history: true }
    }
    fn now(&self) -> Millis {
        self.0.now()
    }
    fn advance(&self, millis: Millis) {
        self.0.advance(millis);
    }
    async fn open(&self) -> Host {
        self.host(RECOVERY, RECOVERY).await
    }
    async fn open_silent(&self) -> Host {
        self.host(4 * HOUR, HOUR).await
    }
    async fn put_garbage(&self, _host: &Host, stream: &str) {
        let mut command = redis::cmd("XADD");
        command.arg(stream).arg("*").arg("id").arg("garbage").arg("data").arg(&b"\xff\x00"[..]);
        let _: String = command.query(&mut self.0.connect()).expect("the entry is added");
    }
}
