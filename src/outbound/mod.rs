//! Calls of handlers to services outside, over HTTP.
//!
//! Owns which hosts may be called and under which addresses (`grant`, `address`, `resolve`), what a call may cost, how its
//! redirects are followed (`client`), what tells a service that it is the same call again (`identity`), and when a service
//! that is busy is to be asked again (`busy`). Knows no scripts and no stores.

mod address;
mod busy;
mod client;
mod error;
mod grant;
mod identity;
mod redirect;
mod resolve;
mod roots;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;

pub use self::busy::busy_for;
pub use self::client::Outbound;
pub use self::error::CallError;
pub use self::grant::HostGrant;
pub use self::identity::{Identity, traceparent};
pub use self::target::Target;

/// One call, before anything was sent.
pub struct Call {
    /// Who calls.
    pub handler: Arc<str>,
    /// What it may call.
    pub grants: Arc<[HostGrant]>,
    pub method: Method,
    pub target: Target,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// From the start until the whole answer is there.
    pub timeout: Duration,
    /// Longest body of the answer.
    pub max_bytes: usize,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What became of a call, for whoever counts.
pub struct Called<'a> {
    pub handler: &'a str,
    /// The grant that it used, as the configuration has it; `None`: none.
    pub host: Option<&'a str>,
    /// `2xx` and the like, `refused` or `error`.
    pub result: &'static str,
    pub took: Duration,
}

/// Whoever counts calls.
pub trait Observer: Send + Sync {
    /// A call has ended.
    fn called(&self, called: Called<'_>);
}
