//! What every part of the bus shares: the way to the server, the names of our keys, and who we are.

use redis::{Cmd, Value};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::fault::Fault;
use super::keys::{self, Keys};
use super::link::Link;
use super::procedure::Procedure;
use crate::bus::BusError;

/// The shared part of a [`RedisBus`](super::RedisBus).
pub(super) struct Store {
    pub link: Link,
    pub keys: Keys,
    pub options: Options,
    /// Name of this process on the server: unique per start.
    pub process: String,
    /// Our consumer in every group.
    pub consumer: String,
    /// Ends every task of the bus.
    pub closed: CancellationToken,
}

impl Store {
    pub fn new(options: Options) -> Self {
        let process = format!("{}:{:08x}", options.instance, rand::random::<u32>());
        Self {
            link: Link::new(options.address.clone()),
            keys: Keys::new(&options.prefix, &options.state_prefix),
            consumer: keys::consumer(&process),
            process,
            options,
            closed: CancellationToken::new(),
        }
    }

    /// One command, for those who tell others.
    pub async fn call(&self, command: &Cmd) -> Result<Value, BusError> {
        self.check_open()?;
        self.link.call(command).await.map_err(|fault| self.told(fault))
    }

    /// One script of ours, for those who tell others.
    pub async fn run(&self, procedure: &Procedure, call: &Cmd) -> Result<Value, BusError> {
        self.check_open()?;
        procedure.run(&self.link, call).await.map_err(|fault| self.told(fault))
    }

    /// `fault` as others see it.
    pub fn told(&self, fault: Fault) -> BusError {
        fault.told(&self.options.address.to_string())
    }

    /// From now on nothing is answered.
    pub fn close(&self) {
        self.closed.cancel();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.is_closed() { Err(BusError::Closed) } else { Ok(()) }
    }
}
