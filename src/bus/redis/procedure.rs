//! The scripts that run inside the server.
//!
//! Sent by their hash; a server that has forgotten one (restart, failover, flush) gets its text. Each begins with `#!lua`, so
//! that a server that cannot take its writes refuses it before the first.

use redis::{Cmd, Value};
use sha1_smol::Sha1;

use super::fault::Fault;
use super::link::Link;

/// What settle and publish begin with.
macro_rules! effects {
    ($($file:literal),*) => {
        concat!(include_str!("scripts/effects.lua"), $(include_str!($file)),*)
    };
}

/// The scripts that are called all the time.
pub(super) struct Procedures {
    pub settle: Procedure,
    pub publish: Procedure,
    pub look: Procedure,
}

impl Procedures {
    pub fn new() -> Self {
        Self {
            settle: Procedure::new(effects!(
                "scripts/letters.lua",
                "scripts/iso8601.lua",
                "scripts/number.lua",
                "scripts/settle.lua"
            )),
            publish: Procedure::new(effects!("scripts/publish.lua")),
            look: Procedure::new(concat!(
                "#!lua\nlocal p = ARGV[1]\n",
                include_str!("scripts/ids.lua"),
                include_str!("scripts/lost.lua"),
                include_str!("scripts/look.lua")
            )),
        }
    }
}

/// A script and its hash.
pub(super) struct Procedure {
    text: &'static str,
    hash: String,
}

impl Procedure {
    pub fn new(text: &'static str) -> Self {
        Self { text, hash: Sha1::from(text).digest().to_string() }
    }

    /// A call by hash; arguments are added to it. There are no keys: all names are arguments.
    pub fn call(&self) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.hash).arg(0);
        call
    }

    /// Runs it, and tells the server its text where it must.
    pub async fn run(&self, link: &Link, call: &Cmd) -> Result<Value, Fault> {
        match link.call(call).await {
            Err(Fault::NoScript) => {
                self.load(link).await?;
                link.call(call).await
            }
            answer => answer,
        }
    }

    /// Tells the server the text.
    pub async fn load(&self, link: &Link) -> Result<(), Fault> {
        link.call(redis::cmd("SCRIPT").arg("LOAD").arg(self.text)).await.map(drop)
    }
}
