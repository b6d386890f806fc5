//! Which streams a group asks for, as stores keep it.
//!
//! Kept so that a stream which appears while nobody of the group is there is found to be missing, and read from its first
//! entry.

use serde::{Deserialize, Serialize};

use super::Subscription;
use crate::event::TypePattern;

/// What a subscription selects.
#[derive(Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Selection {
    streams: Vec<String>,
    discover: Vec<(String, String)>,
}

impl Selection {
    pub fn of(subscription: &Subscription) -> Self {
        let discover = subscription.discover.iter().map(|(prefix, types)| (prefix.clone(), types.as_str().to_owned()));
        Self { streams: subscription.streams.clone(), discover: discover.collect() }
    }

    /// The stored form.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("lists of texts are always JSON")
    }

    /// The stored form, read back; what is not readable selects nothing.
    pub fn read(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }

    pub fn selects(&self, name: &str) -> bool {
        let discovers = |(prefix, types): &(String, String)| {
            TypePattern::parse(types).is_ok_and(|types| discovered(name, prefix, &types))
        };
        self.streams.iter().any(|stream| stream == name) || self.discover.iter().any(discovers)
    }
}

/// Whether `subscription` reads the stream called `name` without naming it.
pub(super) fn discovers(subscription: &Subscription, name: &str) -> bool {
    subscription.discover.iter().any(|one| fits(name, one))
}

/// Whether a stream called `name` is one of those that begin with a prefix and go on as a pattern says.
pub(super) fn fits(name: &str, (prefix, types): &(String, TypePattern)) -> bool {
    discovered(name, prefix, types)
}

fn discovered(name: &str, prefix: &str, types: &TypePattern) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| types.matches(rest))
}
