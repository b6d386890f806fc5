//! Dead letters of other services, which share the stream with ours.
//!
//! Owns what is made of their fields: whatever these are, there is a letter to look at. An event that was given up has its
//! fields, and beside them at least why and when, and which entry it was; without those it is as it lay in its stream.

use bytes::Bytes;

use super::dead::{Shelf, failed_at};
use super::entry::Fields;
use super::reply::parse_id;
use crate::bus::{DeadId, DeadLetter, DeadReason, Undecodable};
use crate::clock::Millis;
use crate::envelope::{Layouts, Lying};
use crate::event::{EntryId, Event, check_type};
use crate::streams::{Streams, check_stream};

const ORIGIN: &str = "original_id";
const ERROR: &str = "error";
const FAILED_AT: &str = "failed_at";
/// What others add to an event's fields when they give it up.
const ADDED: [&str; 3] = [ORIGIN, ERROR, FAILED_AT];

const STREAMS: [&str; 2] = ["original_stream", "stream"];
const HANDLERS: [&str; 2] = ["handler", "consumer_group"];
/// How often it was tried. The second one counts in the stream, too, and begins anew there.
const ATTEMPTS: [&str; 2] = ["attempts", RETRIES];
const RETRIES: &str = "retries";
const TYPES: [&str; 2] = ["type", "event_type"];

/// What somebody else put at `at`.
pub(super) fn read(shelf: &Shelf<'_>, (id, at): (DeadId, EntryId), fields: Fields) -> DeadLetter {
    let say = |names: &[&str]| names.iter().find_map(|name| text(&fields, name));
    let entry = say(&[ORIGIN]).and_then(|text| parse_id(&text));
    let named = streams(shelf, &fields).into_iter().next();
    let event = event(shelf, named.as_deref(), (entry, at), &as_it_was(&fields));
    DeadLetter {
        id,
        handler: say(&HANDLERS).unwrap_or_default(),
        group: String::new(),
        version: String::new(),
        reason: DeadReason::Foreign,
        stream: named.or_else(|| of_its_type(shelf.streams, &event, &fields)).unwrap_or_default(),
        entry,
        attempts: say(&ATTEMPTS).and_then(|text| text.parse().ok()).unwrap_or(0),
        failed_at: say(&[FAILED_AT]).and_then(|text| failed_at(&text)).unwrap_or(at.0 as Millis),
        failures: Vec::new(),
        foreign_error: say(&[ERROR]),
        idempotency_key: None,
        replayed_at: None,
        event: event.map_err(|reason| Undecodable { reason, fields }),
    }
}

/// Where the event of a foreign letter may go back to.
pub(super) struct WayBack {
    /// Streams that its fields may name.
    pub named: Vec<String>,
    /// The stream of its type.
    pub of_its_type: Option<String>,
    pub fields: Fields,
}

/// The way back of a letter with these fields.
pub(super) fn way_back(shelf: &Shelf<'_>, letter: &DeadLetter, fields: &Fields) -> WayBack {
    let mut back = as_it_was(fields);
    let retries = back.iter_mut().filter(|(name, _)| name == RETRIES.as_bytes());
    retries.for_each(|(_, value)| *value = Bytes::from_static(b"0"));
    WayBack {
        named: streams(shelf, fields),
        of_its_type: of_its_type(shelf.streams, &letter.event, fields),
        fields: back,
    }
}

/// The fields without what was added when it was given up.
fn as_it_was(fields: &Fields) -> Fields {
    let added = |name: &Bytes| ADDED.iter().any(|added| added.as_bytes() == name);
    fields.iter().filter(|(name, _)| !added(name)).cloned().collect()
}

/// The text of a field, if it says something.
fn text(fields: &Fields, name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(found, _)| found == name.as_bytes())?;
    let text = String::from_utf8_lossy(value).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Streams that the fields may name; never one of the host's, nor this one.
fn streams(shelf: &Shelf<'_>, fields: &Fields) -> Vec<String> {
    let named = STREAMS.iter().filter_map(|name| text(fields, name));
    named.filter(|name| check_stream(name).is_ok() && name != shelf.name).collect()
}

fn of_its_type<E>(streams: &Streams, event: &Result<Event, E>, fields: &Fields) -> Option<String> {
    let said = || TYPES.iter().find_map(|name| text(fields, name)).filter(|kind| check_type(kind).is_ok());
    let kind = event.as_ref().ok().map(|event| event.kind.clone()).or_else(said)?;
    Some(streams.of(&kind))
}

/// The event, in whatever layout it is: that of the stream it names, that of this stream, that of another one to which its
/// type belongs, or a preset. One without an id of its own is called after where it lay, as far as that is known.
fn event(
    shelf: &Shelf<'_>,
    named: Option<&str>,
    (origin, at): (Option<EntryId>, EntryId),
    fields: &Fields,
) -> Result<Event, String> {
    let Shelf { name, layout, streams } = *shelf;
    let lying = match named.zip(origin) {
        Some((stream, entry)) => Lying { stream, entry },
        None => Lying { stream: name, entry: at },
    };
    // One that no rule names has Moontide's own layout, as which almost everything can be read.
    let of_named = named.map(|stream| streams.layouts(stream)).filter(|layouts| !layouts.is_own());
    let at_home = |layouts: &Layouts| {
        let event = layouts.recognise(lying, fields)?;
        (streams.layouts(&streams.of(&event.kind)) == layouts).then_some(event)
    };
    let recognised = of_named.into_iter().chain(layout).find_map(|layouts| layouts.recognise(lying, fields));
    let rules = || streams.rules.iter().filter(|rule| !rule.layouts.is_own());
    let event = match recognised.or_else(|| rules().find_map(|rule| at_home(&rule.layouts))) {
        Some(event) => event,
        None => Layouts::any().read(lying, fields)?,
    };
    match named {
        Some(_) => Ok(event),
        None => self::event(shelf, Some(&streams.of(&event.kind)), (origin, at), fields),
    }
}
