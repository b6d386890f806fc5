//! `[dead_letters]`: how long they are kept, and, on a server, where and how they lie.
//!
//! Decides that nothing else lies where they do: no events that handlers read, none of the host's keys, no state of scripts.

use std::time::Duration;

use super::bus::{Redis, check_stream_name};
use super::layouts::read_writing_layout;
use super::raw::Table;
use crate::envelope::{Layout, Layouts};
use crate::streams::{DEFAULT_STREAM, Streams};

/// `[dead_letters]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetters {
    /// `None`: for ever.
    pub retain: Option<Duration>,
    /// On Redis: their stream; `None`: one of the host's.
    pub stream: Option<String>,
    /// On Redis: the layout of events in them; `None`: as they lay in their streams.
    pub layout: Option<Layouts>,
}

pub(super) fn read_dead_letters(
    mut table: Table<'_>,
    redis: &Redis,
    streams: &Streams,
    layouts: &[Layout],
) -> DeadLetters {
    let retain = table.optional_duration_or_off("retain").flatten();
    let stream = Some(table.text("stream")).filter(|name| !name.is_empty());
    if let Some(Err(message)) = stream.as_deref().map(|name| check(name, redis, streams)) {
        table.note("stream", message);
    }
    let layout = read_writing_layout(&mut table, layouts);
    table.close();
    DeadLetters { retain, stream, layout }
}

fn check(name: &str, redis: &Redis, streams: &Streams) -> Result<(), String> {
    if name.contains(['{', '}']) {
        return Err(format!("{name:?} would be several streams; there is one for all handlers: \"event_dlq\""));
    }
    check_stream_name(name)?;
    if name.starts_with(&redis.prefix) {
        let prefix = &redis.prefix;
        return Err(format!("{name:?} begins with redis.prefix = {prefix:?}; \"\" is the host's own stream there"));
    }
    if !redis.state_prefix.is_empty() && name.starts_with(&redis.state_prefix) {
        let prefix = &redis.state_prefix;
        return Err(format!("{name:?} begins with redis.state_prefix = {prefix:?}: scripts could overwrite it"));
    }
    let events = streams.rules.iter().map(|rule| rule.name.as_str()).chain([DEFAULT_STREAM]);
    let holds = |events: &&str| match events.strip_suffix("{type}") {
        Some(begins) => name.starts_with(begins),
        None => *events == name,
    };
    match events.into_iter().find(holds) {
        Some(events) => {
            Err(format!("{name:?} is a stream of events ({events:?}), which handlers read; choose another"))
        }
        None => Ok(()),
    }
}
