//! Where the server is.

use std::fmt;

use redis::{Client, IntoConnectionInfo};

use super::fault::{self, Fault};

/// The address of a server: `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS.
#[derive(Clone)]
pub struct Address {
    url: String,
    /// Without user and password, for people.
    shown: String,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let info = url.into_connection_info().map_err(|error| error.to_string())?;
        let shown = format!("redis://{}/{}", info.addr(), info.redis_settings().db());
        Ok(Self { url: url.to_owned(), shown })
    }

    /// A client of the server that is to be written to now.
    pub(super) async fn client(&self) -> Result<Client, Fault> {
        Client::open(self.url.as_str()).map_err(|error| fault::of(&error))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
