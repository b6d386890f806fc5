//! Channels of Redis Pub/Sub: `[[channel]]`, `[[mirror]]`, and what their names begin with.

use super::layouts::{Carrier, read_layout};
use super::raw::Table;
use crate::channels::{Channel, Deliver, Mirror};
use crate::envelope::Layout;
use crate::event::{ATTRIBUTE_BYTES_MAX, TypePattern};

/// What is said about channels.
pub(super) struct Channels {
    pub listened: Vec<Channel>,
    pub mirrors: Vec<Mirror>,
}

/// Reads both lists of tables; `prefix` stands before every name.
pub(super) fn read_channels(root: &mut Table<'_>, prefix: &str, layouts: &[Layout]) -> Channels {
    let mut channels = Channels { listened: Vec::new(), mirrors: Vec::new() };
    for mut table in root.tables("channel") {
        let channel = read_channel(&mut table, prefix, layouts);
        if channels.listened.iter().any(|earlier| earlier.name == channel.name) {
            table.note("name", format!("{:?} is listened to already; say it once", channel.name));
        }
        table.close();
        channels.listened.push(channel);
    }
    for mut table in root.tables("mirror") {
        channels.mirrors.push(read_mirror(&mut table, prefix, layouts));
        table.close();
    }
    channels
}

fn read_channel(table: &mut Table<'_>, prefix: &str, layouts: &[Layout]) -> Channel {
    let name = read_name(table, "name", prefix);
    let deliver = table.optional("deliver", "\"stream\" or \"direct\"", |value| {
        Ok(match value.as_str() {
            Some("stream") => Some(Deliver::Stream),
            Some("direct") => Some(Deliver::Direct),
            _ => None,
        })
    });
    Channel { name, layouts: read_layout(table, layouts, Carrier::Channel), deliver: deliver.unwrap_or_default() }
}

fn read_mirror(table: &mut Table<'_>, prefix: &str, layouts: &[Layout]) -> Mirror {
    let channel = read_name(table, "channel", prefix);
    if channel.replacen("{type}", "", 1).contains(['{', '}', '*', '?', '[']) {
        table.note(
            "channel",
            format!("{channel:?} is published to, so it is one channel; it may contain {{type}} once"),
        );
    }
    Mirror { types: read_types(table), channel, layouts: read_layout(table, layouts, Carrier::Channel) }
}

/// The types of a table: patterns, at least one.
pub(super) fn read_types(table: &mut Table<'_>) -> Vec<TypePattern> {
    let texts = table.need("types", |table| {
        let texts = table.optional_texts("types");
        if texts.as_ref().is_some_and(Vec::is_empty) {
            table.note("types", "must name at least one type: [\"Checkout*\"]");
        }
        texts
    });
    let mut types = Vec::with_capacity(texts.len());
    for text in texts {
        match TypePattern::parse(&text) {
            Ok(pattern) => types.push(pattern),
            Err(error) => table.note("types", format!("{text:?} is no pattern: {error}")),
        }
    }
    types
}

fn read_name(table: &mut Table<'_>, key: &'static str, prefix: &str) -> String {
    let name = table.text(key);
    let spaces = name.chars().any(|c| c.is_whitespace() || c.is_control());
    if name.is_empty() || spaces || name.len() > ATTRIBUTE_BYTES_MAX {
        table.note(key, format!("{name:?} is no channel; write 1 to {ATTRIBUTE_BYTES_MAX} bytes without spaces"));
    }
    format!("{prefix}{name}")
}
