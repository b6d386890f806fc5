//! Where a round's events lie: a file, or a server.

use std::fmt;
use std::path::Path;

use clap::ValueEnum;
use moontide_stage::server::{Kind, Server};
use serde::{Deserialize, Serialize};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    Redis,
    Sqlite,
}

impl Bus {
    pub const ALL: [Self; 2] = [Self::Redis, Self::Sqlite];
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Sqlite => "sqlite",
        })
    }
}

/// A store of a round's own.
pub enum Place {
    File,
    Server(Server),
}

impl Place {
    pub fn new(bus: Bus) -> Self {
        Self::with(bus, &[])
    }

    /// A server gets these options, as on its command line.
    pub fn with(bus: Bus, options: &[&str]) -> Self {
        match bus {
            Bus::Redis => Self::Server(Server::with(Kind::Redis, options)),
            Bus::Sqlite => Self::File,
        }
    }

    /// As `bus.url` names it, for a round in `folder`.
    pub fn url(&self, folder: &Path) -> String {
        match self {
            Self::File => format!("sqlite:{}", folder.join(FILE).display()),
            Self::Server(server) => server.url(),
        }
    }
}

/// The name of a file that is a store.
pub const FILE: &str = "moontide.db";
