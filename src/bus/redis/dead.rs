//! How a dead letter of ours lies in the stream of dead letters.
//!
//! The event's fields come first, as they lay in their stream or in the layout that this stream is to have; what is known
//! about the death follows. Nothing is lost: a field of the event that is called like one of ours lies under `event.` and
//! its name, and an event that lies in another layout than its own is kept beside the letter as it was.

use std::collections::HashMap;

use bytes::Bytes;

use super::entry::{self, Fields, Read};
use super::reply::parse_id;
use crate::bus::past as stored;
use crate::bus::{DeadId, DeadLetter, Delivery, PastFailure, Undecodable};
use crate::clock::{Millis, rfc3339};
use crate::envelope::{Layouts, Lying};
use crate::event::{EntryId, Event, Json};
use crate::judge::DeathReason;
use crate::streams::Streams;

/// In front of the name of an event's field that is called like one of ours.
const ESCAPE: &[u8] = b"event.";

const ORIGIN: &str = "original_id";
const STREAM: &str = "stream";
const HANDLER: &str = "handler";
const GROUP: &str = "group";
const VERSION: &str = "version";
const REASON: &str = "reason";
const ERROR: &str = "error";
const ATTEMPTS: &str = "attempts";
const FAILURES: &str = "failures";
const KEY: &str = "idempotency_key";
/// The layout of the event's fields; missing where they are as they lay in their stream.
const LAYOUT: &str = "layout";
const UNDECODABLE: &str = "undecodable";
const FAILED_AT: &str = "failed_at";

const OURS: [&str; 13] =
    [ORIGIN, STREAM, HANDLER, GROUP, VERSION, REASON, ERROR, ATTEMPTS, FAILURES, KEY, LAYOUT, UNDECODABLE, FAILED_AT];

/// What becomes a dead letter.
pub(super) struct Letter<'a> {
    pub handler: &'a str,
    pub group: &'a str,
    /// Of the handler that gave it up.
    pub version: &'a str,
    pub delivery: &'a Delivery,
    pub reason: DeathReason,
    /// Oldest first; the last one is why.
    pub failures: &'a [PastFailure],
    pub idempotency_key: Option<&'a str>,
}

/// A letter as it is stored.
pub(super) struct Laid {
    /// All but `failed_at`: only the server knows when that is (`scripts/iso8601.lua`).
    pub fields: Fields,
    /// The event as Moontide writes it, packed, where its fields are in a layout that may not have room for all of it.
    pub original: Option<Bytes>,
}

/// The stream of dead letters.
#[derive(Clone, Copy)]
pub(super) struct Shelf<'s> {
    pub name: &'s str,
    /// The layout that events have there; `None`: as they lay in their streams.
    pub layout: Option<&'s Layouts>,
    pub streams: &'s Streams,
}

/// A letter, and its event as it lay where it came from.
#[derive(Debug)]
pub(super) struct Found {
    pub letter: DeadLetter,
    pub lay: Option<Box<Fields>>,
    /// Its fields, where it is none of ours.
    pub foreign: Option<Fields>,
}

impl Shelf<'_> {
    /// `letter` as it is stored.
    pub fn lay(&self, letter: &Letter<'_>) -> Laid {
        let (stream, entry) = letter.delivery.origin();
        let Written { mut fields, layout, original } = self.write(letter.delivery);
        fields.iter_mut().for_each(|(name, _)| escape(name));
        let error = letter.failures.last().map_or("", |last| last.failure.message.as_str());
        let mut say =
            |name: &'static str, value: &str| fields.push((name.into(), Bytes::copy_from_slice(value.as_bytes())));
        say(ORIGIN, &entry.to_string());
        say(STREAM, stream);
        say(HANDLER, letter.handler);
        say(GROUP, letter.group);
        say(VERSION, letter.version);
        say(REASON, letter.reason.as_str());
        say(ERROR, error);
        say(ATTEMPTS, itoa::Buffer::new().format(letter.delivery.attempt()));
        say(FAILURES, &stored::write_failures(letter.failures));
        if let Some(key) = letter.idempotency_key {
            say(KEY, key);
        }
        if let Some(layout) = layout {
            say(LAYOUT, layout);
        }
        if let Err(raw) = &letter.delivery.event {
            say(UNDECODABLE, &raw.reason);
        }
        Laid { fields, original }
    }

    fn write(&self, delivery: &Delivery) -> Written<'_> {
        let (stream, at) = delivery.origin();
        let lay = delivery.lay.as_deref();
        let other = self.layout.filter(|layout| lay.is_none() || *layout != self.streams.layouts(stream));
        match (&delivery.event, other) {
            (Ok(event), Some(layout)) if layout.check(event).is_ok() => {
                let original = (!layout.is_own()).then(|| Layouts::own().write(event));
                let shown = original.as_ref().map(|_| complete(event, at));
                Written {
                    fields: layout.write(shown.as_ref().unwrap_or(event)),
                    layout: layout.names().next(),
                    original: original.as_ref().map(entry::pack),
                }
            }
            (event, _) => {
                let own = if event.is_ok() && lay.is_none() { Layouts::own().names().next() } else { None };
                Written { fields: entry::as_it_lay(event, lay), layout: own, original: None }
            }
        }
    }

    /// The letter of ours that lies at `at`; `original`: what is kept of its event besides. `None`: it is none.
    pub fn read(
        &self,
        (id, at): (DeadId, EntryId),
        fields: Fields,
        original: Option<&Bytes>,
        replayed_at: Option<Millis>,
    ) -> Option<Found> {
        let (known, event): (Fields, Fields) = fields.into_iter().partition(|(name, _)| is_ours(name));
        let known: HashMap<Bytes, Bytes> = known.into_iter().collect();
        let text = |name: &str| known.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
        let (stream, origin) = (text(STREAM)?, parse_id(&text(ORIGIN)?)?);
        let event: Fields = event.into_iter().map(|(name, value)| (unescaped(name), value)).collect();
        let read = match (text(UNDECODABLE), original.and_then(entry::unpack)) {
            (Some(reason), _) => Read { event: Err(Undecodable { reason, fields: event }), past: None, lay: None },
            (None, Some(original)) => entry::read_own(self.streams, &stream, origin, original),
            (None, None) => self.read_event(text(LAYOUT), Lying { stream: &stream, entry: origin }, event),
        };
        let letter = DeadLetter {
            id,
            handler: text(HANDLER)?,
            group: text(GROUP).unwrap_or_default(),
            version: text(VERSION)?,
            reason: DeathReason::parse(&text(REASON)?)?.into(),
            event: read.event,
            stream,
            entry: Some(origin),
            attempts: text(ATTEMPTS)?.parse().ok()?,
            failed_at: failed_at(&text(FAILED_AT)?).unwrap_or(at.0 as Millis),
            failures: stored::read_failures(text(FAILURES)?.as_bytes()).ok()?,
            foreign_error: None,
            idempotency_key: text(KEY),
            replayed_at,
        };
        Some(Found { letter, lay: read.lay, foreign: None })
    }

    fn read_event(&self, layout: Option<String>, lying: Lying<'_>, fields: Fields) -> Read {
        let preset = layout.and_then(|name| Layouts::of_stream(&[&name], &[]).ok());
        match preset.map(|layout| layout.read(lying, &fields)) {
            None => entry::read(self.streams, lying.stream, lying.entry, fields),
            Some(event) => {
                let event = event.map_err(|reason| Undecodable { reason, fields });
                Read { event, past: None, lay: None }
            }
        }
    }
}

/// The fields of an event, and in which layout they are.
struct Written<'s> {
    fields: Fields,
    layout: Option<&'s str>,
    original: Option<Bytes>,
}

/// The event with all that those who read its layout look for: a time, and data.
fn complete(event: &Event, entry: EntryId) -> Event {
    let mut event = event.clone();
    event.time.get_or_insert_with(|| rfc3339(entry.0 as Millis));
    event.data.get_or_insert_with(|| Json::trusted("null"));
    event
}

fn escape(name: &mut Bytes) {
    if name.starts_with(ESCAPE) || is_ours(name) {
        *name = [ESCAPE, name].concat().into();
    }
}

fn is_ours(name: &[u8]) -> bool {
    OURS.iter().any(|ours| ours.as_bytes() == name)
}

fn unescaped(name: Bytes) -> Bytes {
    if name.starts_with(ESCAPE) { name.slice(ESCAPE.len()..) } else { name }
}

/// A time as we write it, or as others do: without a zone.
pub(super) fn failed_at(text: &str) -> Option<Millis> {
    let zoned = || format!("{}Z", text.trim()).parse().ok();
    let at: jiff::Timestamp = text.trim().parse().ok().or_else(zoned)?;
    Some(at.as_millisecond())
}

#[cfg(test)]
mod times {
    use super::*;

    #[test]
    fn the_server_writes_times_as_we_read_them() {
        let lua = mlua::Lua::new();
        let script = concat!(include_str!("scripts/iso8601.lua"), "\nreturn iso8601(...)");
        let written: mlua::Function = lua.load(script).into_function().expect("it compiles");
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_123, "2024-02-29T00:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_220_640_007, "2026-11-21T00:24:00.007Z"),
        ];
        for (at, expected) in cases {
            assert_eq!(written.call::<String>(at as f64).expect("it runs"), expected);
            assert_eq!(failed_at(expected), Some(at));
        }
        for (theirs, at) in [("2025-01-15T10:35:00", 1_736_937_300_000), ("2025-01-15 10:35:00.5", 1_736_937_300_500)] {
            assert_eq!(failed_at(theirs), Some(at));
        }
        assert_eq!(failed_at("yesterday"), None);
    }
}
#[cfg(test)]
#[path = "tests/dead.rs"]
mod tests;
