//! Why a call has no answer.
//!
//! Owns that a message never shows more of a URL than scheme, host and port: the rest may hold secrets.

use std::error::Error;
use std::time::Duration;

use super::resolve::Misled;
use super::target::Target;
use crate::units::{show_bytes, show_duration};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No grant fits.
    #[error(
        "the host {host:?} is not granted to {handler}; the configuration would grant it by: [handlers.{handler:?}] grants = {{ hosts = [{host:?}] }}"
    )]
    NotGranted { host: String, handler: String },
    /// Its name leads where it must not.
    #[error("{why}{hint}")]
    Misled { why: String, hint: String },
    #[error("the answer redirects {0}")]
    Redirect(String),
    #[error("no whole answer within timeout = \"{}\"", show_duration(*.0))]
    Timeout(Duration),
    #[error("the body of the answer is longer than {}", show_bytes(*.0 as u64))]
    TooLong(usize),
    /// The connection, or what came over it.
    #[error("{0}")]
    Transport(String),
}

impl CallError {
    /// No grant of `handler` fits `target`.
    pub(super) fn not_granted(handler: &str, target: &Target) -> Self {
        let usual = target.port == if target.tls { 443 } else { 80 };
        let host = if usual { target.host.to_string() } else { format!("{}:{}", target.host, target.port) };
        Self::NotGranted { host, handler: handler.to_owned() }
    }

    /// Whether nothing was sent because it was not allowed to be.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotGranted { .. } | Self::Misled { .. })
    }

    /// What the client reported of a call to `target`.
    pub(super) fn of(error: &reqwest::Error, target: &Target) -> Self {
        // The outermost one shows the URL; the innermost one says what happened.
        let mut why = "the request could not be sent".to_owned();
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(misled) = inner.downcast_ref::<Misled>() {
                return Self::misled(misled, target);
            }
            why = inner.to_string();
            source = inner.source();
        }
        Self::Transport(why)
    }

    fn misled(misled: &Misled, target: &Target) -> Self {
        let hint = match misled.is_private() {
            true => {
                format!("; where that is meant, the grant says so: {{ host = \"{}\", private = true }}", target.host)
            }
            false => String::new(),
        };
        Self::Misled { why: misled.to_string(), hint }
    }
}
