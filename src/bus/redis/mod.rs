//! Redis Streams: bus and ledger on one server that many processes share.
//!
//! Redis 7.0 or Valkey 7.2 and later. Settle is one script inside the server (`settle`, `scripts/settle.lua`); who owns what is the
//! consumer groups' pending lists, and who is alive is a counter per process (`beat`). Blocking reads have a connection of
//! their own (`bell`); everything else shares one (`link`). The names of all keys are in `keys`.

mod address;
mod beat;
mod due;
mod fault;
mod keys;
mod link;
mod machine;
mod peers;
mod procedure;
mod reply;
mod store;
mod takeover;

use std::sync::Arc;
use std::time::Duration;

pub use address::Address;

use crate::bus::BusError;
use crate::streams::Streams;
use store::Store;

/// How the bus is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: Address,
    /// All keys of ours begin so; scripts cannot reach them.
    pub prefix: String,
    /// Before the keys of `ctx.kv`.
    pub state_prefix: String,
    /// A process whose heartbeat stands still for this long is taken for dead.
    pub recovery_time: Duration,
    /// How often our own heartbeat is raised, at least; a quarter of the recovery time where that is shorter.
    pub beat_every: Duration,
    /// Name of this process, for people.
    pub instance: String,
    /// Where types live, and how much of the past each stream keeps.
    pub streams: Arc<Streams>,
    /// A group without a living handler stops holding back trimming after this time.
    pub forget_group_after: Duration,
    /// Dead letters go when they are this old; `None`: never.
    pub dead_letters_retain: Option<Duration>,
    /// How often history is trimmed and what expired is removed.
    pub upkeep_every: Duration,
}

impl Options {
    /// The defaults, for the server at `address`.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            prefix: "moontide:".into(),
            state_prefix: "state:".into(),
            recovery_time: Duration::from_secs(10),
            beat_every: Duration::from_secs(1),
            instance: format!("process {}", std::process::id()),
            streams: Arc::default(),
            forget_group_after: Duration::from_secs(7 * 24 * 3600),
            dead_letters_retain: None,
            upkeep_every: Duration::from_secs(1),
        }
    }
}

/// The bus. Dropping it stops it at once and tidies nothing, as a crash would; [`RedisBus::close`] is the orderly end.
pub struct RedisBus {
    store: Arc<Store>,
}

impl RedisBus {
    /// Opens the bus.
    ///
    /// # Errors
    /// [`BusError::Away`] where the server cannot be reached, [`BusError::Unusable`] where it cannot be used as it is.
    pub async fn open(options: Options) -> Result<Arc<Self>, BusError> {
        let store = Arc::new(Store::new(options));
        store.call(&redis::cmd("PING")).await?;
        Ok(Arc::new(Self { store }))
    }

    /// Ends in order: what this process still holds goes back uncharged.
    pub async fn close(&self) {
        self.store.close();
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.store.close();
    }
}

#[cfg(test)]
#[path = "../../../tests/suite/redis/server/mod.rs"]
#[expect(dead_code, reason = "the integration tests use all of it")]
mod server;
#[cfg(test)]
mod tests;
