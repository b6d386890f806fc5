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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Layout, Place, Spec};
    use crate::event::TypePattern;
    use crate::streams::StreamRule;

    const AT: EntryId = EntryId(1_736_937_300_000, 1);

    fn fields(fields: &[(&'static str, &'static str)]) -> Fields {
        fields.iter().map(|(name, value)| (Bytes::from(*name), Bytes::from(*value))).collect()
    }

    /// The shop's stream is document 5's, the hooks' is of a layout of somebody's own.
    fn streams() -> Streams {
        let rule = |types: &str, name: &str, layouts| {
            let types = vec![TypePattern::parse(types).expect("a pattern")];
            StreamRule { types, name: name.into(), retain: None, layouts }
        };
        let spec =
            Spec::described(vec![("type", field("kind"))], None, None, Some((field("body"), Default::default())));
        let hook = [Layout::build("hook", spec).expect("it is a layout")];
        let layouts = |name, own| Layouts::of_stream(&[name], own).expect("it is there");
        let shop = rule("Checkout*", "shop", layouts("payload", &[]));
        Streams { rules: vec![shop, rule("hook.*", "hooks", layouts("hook", &hook))], ..Streams::default() }
    }

    fn field(name: &str) -> Place {
        Place::parse(name).expect("it is a place")
    }

    fn shelf<'s>(streams: &'s Streams, layout: Option<&'s Layouts>) -> Shelf<'s> {
        Shelf { name: "event_dlq", layout, streams }
    }

    fn read(lay: &[(&'static str, &'static str)]) -> DeadLetter {
        super::read(&shelf(&streams(), None), (DeadId(1), AT), fields(lay))
    }

    const TASK: [(&str, &str); 6] = [
        ("type", "task.created"),
        ("aggregate_id", "123"),
        ("aggregate_type", "task"),
        ("data", r#"{"task_id":123}"#),
        ("timestamp", "2025-01-15T10:30:00"),
        ("retries", "3"),
    ];
    const GIVEN_UP: [(&str, &str); 3] =
        [("original_id", "1736937000000-0"), ("error", "Connection timeout"), ("failed_at", "2025-01-15T10:35:00")];

    #[test]
    fn what_document_3_puts_there_is_read_in_full() {
        let letter = read(&[&TASK[..], &GIVEN_UP].concat());
        assert_eq!((letter.handler.as_str(), letter.reason), ("", DeadReason::Foreign));
        assert_eq!((letter.error(), letter.attempts), (Some("Connection timeout"), 3));
        assert_eq!(letter.failed_at, 1_736_937_300_000);
        assert_eq!(
            (letter.stream.as_str(), letter.entry),
            ("events:task.created", Some(EntryId(1_736_937_000_000, 0)))
        );
        let event = letter.event.expect("it is an event");
        assert_eq!((event.id.as_str(), event.kind.as_str()), ("events:task.created/1736937000000-0", "task.created"));
        assert_eq!(event.data.expect("it has data").text(), r#"{"task_id":123}"#);
        let ext = event.ext.expect("it has more").text().into_owned();
        assert_eq!(ext, r#"{"aggregate_id":"123","aggregate_type":"task","retries":"3"}"#);
    }

    #[test]
    fn a_layout_is_recognised_wherever_it_may_be_said() {
        let kind = |lay: &[(&'static str, &'static str)]| {
            let letter = read(lay);
            (letter.stream, letter.event.map(|event| (event.id, event.kind)).map_err(|raw| raw.fields.len()))
        };
        let found = |stream: &str, id: &str, kind: &str| (stream.to_owned(), Ok((id.to_owned(), kind.to_owned())));
        let (own, elsewhere) = ("event_dlq/1736937300000-1", "other/1-0");
        for (lay, expected) in [
            // By the stream that it names, by that of its type, by its fields.
            (vec![("stream", "hooks"), ("kind", "x"), ("body", "1")], found("hooks", own, "x")),
            (vec![("kind", "hook.a"), ("body", "1")], found("hooks", own, "hook.a")),
            (vec![("type", "CheckoutDone"), ("payload", "1"), ("ts", "5")], found("shop", own, "CheckoutDone")),
            (vec![("type", "x"), ("payload", "1"), ("ts", "5")], found("events:x", own, "x")),
            (vec![("event_data", r#"{"event_id":"e","event_type":"x"}"#)], found("events:x", "e", "x")),
            (vec![("type", "x"), ("original_stream", "other"), ("original_id", "1-0")], found("other", elsewhere, "x")),
            // A field that is called so need not name a stream.
            (vec![("type", "x"), ("stream", "not a name")], found("events:x", own, "x")),
            (vec![("type", "x"), ("stream", "moontide:due")], found("events:x", own, "x")),
            (vec![("type", "x"), ("stream", "event_dlq")], found("events:x", own, "x")),
            // No event, whatever else is said.
            (vec![("type", "x"), ("data", "{"), ("error", "e")], ("events:x".to_owned(), Err(3))),
            (vec![("kind", "x"), ("body", "1")], (String::new(), Err(2))),
            (vec![("type", "a b")], (String::new(), Err(1))),
            (vec![], (String::new(), Err(0))),
        ] {
            assert_eq!(kind(&lay), expected, "{lay:?}");
        }
    }

    #[test]
    fn the_layout_of_the_dead_letters_themselves_comes_before_the_presets() {
        let streams = streams();
        let hook = &streams.rules[1].layouts;
        let lay = fields(&[("kind", "x"), ("body", "1"), ("type", "y")]);
        let letter = super::read(&shelf(&streams, Some(hook)), (DeadId(1), AT), lay.clone());
        assert_eq!(letter.event.map(|event| event.kind), Ok("x".to_owned()));
        let letter = super::read(&shelf(&streams, None), (DeadId(1), AT), lay);
        assert_eq!(letter.event.map(|event| event.kind), Ok("y".to_owned()));
    }

    #[test]
    fn whatever_lies_there_there_is_a_letter() {
        let bytes = |list: &[(&'static [u8], &'static [u8])]| -> Fields {
            list.iter().map(|(name, value)| (Bytes::from_static(name), Bytes::from_static(value))).collect()
        };
        for lay in [
            bytes(&[(b"\xff", b"\xfe")]),
            bytes(&[(b"type", b"\xff"), (b"error", b"\xff\x00"), (b"original_id", b"\xff")]),
            bytes(&[(b"type", b"x"), (b"type", b"y"), (b"error", b"1"), (b"error", b"2")]),
            bytes(&[(b"", b""), (b"failed_at", b"99999999999999999999-13-45"), (b"attempts", b"-1")]),
            bytes(&[(b"original_id", b"99999999999999999999-0"), (b"stream", b"\n"), (b"handler", b"\x1b[2J")]),
        ] {
            let letter = super::read(&shelf(&streams(), None), (DeadId(1), AT), lay.clone());
            assert_eq!((letter.failed_at, letter.entry, letter.attempts), (AT.0 as Millis, None, 0));
            assert_eq!(letter.event.map_err(|raw| raw.fields), Err(lay));
        }
    }

    #[test]
    fn what_goes_back_is_what_came_and_is_tried_anew() {
        let streams = streams();
        let shelf = shelf(&streams, None);
        let lay =
            fields(&[&TASK[..], &GIVEN_UP, &[("stream", "events:task.created"), ("x", "1"), ("x", "2")]].concat());
        let letter = super::read(&shelf, (DeadId(1), AT), lay.clone());
        let way = way_back(&shelf, &letter, &lay);
        let again: Vec<_> =
            TASK.iter().map(|(name, value)| (*name, if *name == "retries" { "0" } else { value })).collect();
        let rest = [("stream", "events:task.created"), ("x", "1"), ("x", "2")];
        assert_eq!(way.fields, fields(&[&again[..], &rest].concat()));
        assert_eq!(
            (way.named, way.of_its_type.as_deref()),
            (vec!["events:task.created".to_owned()], Some("events:task.created"))
        );
        let lay = fields(&[("event_type", "CheckoutDone"), ("junk", "{")]);
        let letter = super::read(&shelf, (DeadId(1), AT), lay.clone());
        assert_eq!(way_back(&shelf, &letter, &lay).of_its_type.as_deref(), Some("shop"), "even if it is no event");
    }
}
