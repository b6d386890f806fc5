//! Channels of Redis Pub/Sub: which are listened to, and which types are published to one besides.
//!
//! Owns what `[[channel]]` and `[[mirror]]` say. Who listens, and what a message becomes, is the bus's.

use bytes::Bytes;

use crate::envelope::Layouts;
use crate::event::{Event, TypePattern};

/// One `[[channel]]` table: events that come by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// A channel, or a pattern as Redis reads them: `*`, `?` and `[…]`.
    pub name: String,
    pub layouts: Layouts,
    pub deliver: Deliver,
}

impl Channel {
    /// Whether the name stands for several channels.
    pub fn is_pattern(&self) -> bool {
        self.name.contains(['*', '?', '['])
    }
}

/// How handlers get what comes by channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deliver {
    /// It is stored in the stream of its type first.
    #[default]
    Stream,
    /// At once, and at most once.
    Direct,
}

/// One `[[mirror]]` table: what is stored is published besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub types: Vec<TypePattern>,
    /// May contain `{type}`.
    pub channel: String,
    pub layouts: Layouts,
}

impl Mirror {
    /// Whether events of type `kind` are published here.
    pub fn wants(&self, kind: &str) -> bool {
        self.types.iter().any(|pattern| pattern.matches(kind))
    }

    /// Where `event` is published, and as what.
    pub fn message(&self, event: &Event) -> (String, Bytes) {
        (self.channel.replace("{type}", &event.kind), self.layouts.message(event))
    }
}
