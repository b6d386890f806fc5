//! How a dead letter lies in the stream of dead letters.
//!
//! The event's fields come first, as they lay in their stream; what is known about the death follows. Nothing is lost: a
//! field of the event that is called like one of ours lies under `event.` and its name.

use std::collections::HashMap;

use bytes::Bytes;

use super::entry::{self, Fields, Read};
use super::fault::Fault;
use super::reply::parse_id;
use crate::bus::past as stored;
use crate::bus::{DeadId, DeadLetter, Delivery, PastFailure, Undecodable};
use crate::clock::Millis;
use crate::event::EntryId;
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
const UNDECODABLE: &str = "undecodable";
const FAILED_AT: &str = "failed_at";

const OURS: [&str; 12] =
    [ORIGIN, STREAM, HANDLER, GROUP, VERSION, REASON, ERROR, ATTEMPTS, FAILURES, KEY, UNDECODABLE, FAILED_AT];

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

/// The fields of `letter`, all but `failed_at`: only the server knows when that is (`scripts/iso8601.lua`).
pub(super) fn fields(letter: &Letter<'_>) -> Fields {
    let (stream, entry) = letter.delivery.origin();
    let mut fields = entry::as_it_lay(&letter.delivery.event, letter.delivery.lay.as_deref());
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
    if let Err(raw) = &letter.delivery.event {
        say(UNDECODABLE, &raw.reason);
    }
    fields
}

fn escape(name: &mut Bytes) {
    if name.starts_with(ESCAPE) || is_ours(name) {
        *name = [ESCAPE, name].concat().into();
    }
}

fn is_ours(name: &[u8]) -> bool {
    OURS.iter().any(|ours| ours.as_bytes() == name)
}

/// The number of the letter that lies at `entry`.
pub(super) fn number(entry: EntryId) -> DeadId {
    DeadId(entry.0 << 20 | entry.1 & 0xf_ffff)
}

/// Where the letter of that number lies.
pub(super) fn place(id: DeadId) -> EntryId {
    EntryId(id.0 >> 20, id.0 & 0xf_ffff)
}

/// A letter, and its event as it lay where it came from.
#[derive(Debug)]
pub(super) struct Found {
    pub letter: DeadLetter,
    pub lay: Option<Box<Fields>>,
}

/// The letter that lies at `at`.
pub(super) fn read(
    streams: &Streams,
    at: EntryId,
    fields: Fields,
    replayed_at: Option<Millis>,
) -> Result<Found, Fault> {
    let id = number(at);
    let unreadable = || Fault::Unusable(format!("dead letter {id} is not readable by this version of moontide"));
    let (known, event): (Fields, Fields) = fields.into_iter().partition(|(name, _)| is_ours(name));
    let known: HashMap<Bytes, Bytes> = known.into_iter().collect();
    let text = |name: &str| known.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
    let must = |name: &str| text(name).ok_or_else(unreadable);
    let (stream, origin) = (must(STREAM)?, parse_id(&must(ORIGIN)?).ok_or_else(unreadable)?);
    let event: Fields = event.into_iter().map(|(name, value)| (unescaped(name), value)).collect();
    let failures = stored::read_failures(must(FAILURES)?.as_bytes()).map_err(|_| unreadable())?;
    let read = match text(UNDECODABLE) {
        Some(reason) => Read { event: Err(Undecodable { reason, fields: event }), past: None, lay: None },
        None => entry::read(streams, &stream, origin, event),
    };
    let letter = DeadLetter {
        id,
        handler: must(HANDLER)?,
        group: text(GROUP).unwrap_or_default(),
        version: must(VERSION)?,
        reason: DeathReason::parse(&must(REASON)?).ok_or_else(unreadable)?,
        event: read.event,
        stream,
        entry: origin,
        attempts: must(ATTEMPTS)?.parse().map_err(|_| unreadable())?,
        failed_at: failed_at(&must(FAILED_AT)?).unwrap_or(at.0 as Millis),
        failures,
        idempotency_key: text(KEY),
        replayed_at,
    };
    Ok(Found { letter, lay: read.lay })
}

fn unescaped(name: Bytes) -> Bytes {
    if name.starts_with(ESCAPE) { name.slice(ESCAPE.len()..) } else { name }
}

fn failed_at(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bus::{Lease, Past};
    use crate::event::{Event, Json};
    use crate::outcome::{Failure, FailureKind};

    fn delivery(event: Result<Event, Undecodable>) -> Delivery {
        let past = Past {
            attempts: 2,
            snoozes: 0,
            stream: "orders".into(),
            entry: EntryId(17, 3),
            first_received: 0,
            failures: Vec::new(),
            replay_of: None,
        };
        Delivery {
            lease: Lease { claim: 1, epoch: 1 },
            stream: "moontide:retry:billing".into(),
            entry: EntryId(99, 0),
            event,
            lay: None,
            past: Some(Box::new(past)),
            orphaned: 0,
            deaths: 0,
            received: 0,
        }
    }

    fn there_and_back(event: Result<Event, Undecodable>) -> DeadLetter {
        let failure = Failure { line: Some(3), ..Failure::new(FailureKind::Error, "no stock") };
        let failures = vec![PastFailure { attempt: 3, at: 5, version: Arc::from("v1"), failure }];
        let delivery = delivery(event);
        let mut fields = fields(&Letter {
            handler: "billing",
            group: "bills",
            version: "v2",
            delivery: &delivery,
            reason: DeathReason::Exhausted,
            failures: &failures,
            idempotency_key: Some("17"),
        });
        let failed_at = Bytes::from_static(b"2026-11-21T00:24:00.007Z");
        fields.insert(0, (Bytes::from_static(b"failed_at"), failed_at));
        let at = EntryId(1_795_220_640_009, 1);
        let letter = read(&Streams::default(), at, fields, Some(8)).expect("our own fields are readable").letter;
        assert_eq!(
            (letter.handler.as_str(), letter.group.as_str(), letter.version.as_str()),
            ("billing", "bills", "v2")
        );
        assert_eq!((letter.stream.as_str(), letter.entry, letter.attempts), ("orders", EntryId(17, 3), 3));
        assert_eq!((letter.failed_at, letter.replayed_at), (1_795_220_640_007, Some(8)));
        assert_eq!((letter.reason, &letter.failures), (DeathReason::Exhausted, &failures));
        assert_eq!(letter.idempotency_key.as_deref(), Some("17"));
        assert_eq!(place(letter.id), EntryId(1_795_220_640_009, 1));
        letter
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        let ext = r#"{"handler":"theirs","event.reason":"also theirs","tenant":"north"}"#;
        let event = Event {
            subject: Some("lamp".into()),
            ext: Some(Json::trusted(ext)),
            data: Some(Json::trusted(r#"{"n":1.50}"#)),
            ..Event::new("a", "shop", "order.created")
        };
        let read = there_and_back(Ok(event.clone())).event.expect("it is an event");
        let members = |event: &Event| -> serde_json::Value {
            serde_json::from_slice(event.ext.as_ref().expect("there is one").bytes()).expect("it is JSON")
        };
        assert_eq!(members(&read), members(&event));
        assert_eq!(Event { ext: None, ..read }, Event { ext: None, ..event });
    }

    #[test]
    fn what_is_no_event_comes_back_field_by_field() {
        let field = |name: &'static [u8], value: &'static [u8]| (Bytes::from_static(name), Bytes::from_static(value));
        let fields = vec![
            field(b"reason", b"theirs"),
            field(b"event.reason", b"too"),
            field(b"\xff", b"\x00"),
            field(b"reason", b"twice"),
            field(b"undecodable", b""),
        ];
        let raw = Undecodable { reason: "field type is missing".into(), fields };
        assert_eq!(there_and_back(Err(raw.clone())).event, Err(raw));
    }

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
    }
}
