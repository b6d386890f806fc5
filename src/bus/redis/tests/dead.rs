//! What becomes of an event in a dead letter, and back.

use std::sync::Arc;

use super::*;
use crate::bus::{Lease, Past};
use crate::event::TypePattern;
use crate::outcome::{Failure, FailureKind};
use crate::streams::StreamRule;

fn delivery(event: Result<Event, Undecodable>) -> Delivery {
    let past = Past {
        attempts: 2,
        snoozes: 0,
        stream: "orders".into(),
        entry: EntryId(17, 3),
        first_received: 0,
        failures: Vec::new(),
        replay_of: None,
        steps: None,
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

fn shelf<'s>(layout: Option<&'s Layouts>, streams: &'s Streams) -> Shelf<'s> {
    Shelf { name: "event_dlq", layout, streams }
}

fn preset(name: &str) -> Layouts {
    Layouts::of_stream(&[name], &[]).expect("it is a preset")
}

fn lay(shelf: Shelf<'_>, delivery: &Delivery) -> Laid {
    let failure = Failure { line: Some(3), ..Failure::new(FailureKind::Error, "no stock") };
    let failures = vec![PastFailure { attempt: 3, at: 5, version: Arc::from("v1"), failure }];
    let mut laid = shelf.lay(&Letter {
        handler: "billing",
        group: "bills",
        version: "v2",
        delivery,
        reason: DeathReason::Exhausted,
        failures: &failures,
        idempotency_key: Some("17"),
    });
    laid.fields.insert(0, ("failed_at".into(), "2026-11-21T00:24:00.007Z".into()));
    laid
}

fn back(shelf: Shelf<'_>, laid: Laid) -> Option<Found> {
    let at = EntryId(1_795_220_640_009, 1);
    let id = DeadId::at(at).expect("it has a number");
    shelf.read((id, at), laid.fields, laid.original.as_ref(), Some(8))
}

fn there_and_back(event: Result<Event, Undecodable>) -> DeadLetter {
    let streams = Streams::default();
    let shelf = shelf(None, &streams);
    let letter = back(shelf, lay(shelf, &delivery(event))).expect("our own fields are readable").letter;
    assert_eq!((letter.handler.as_str(), letter.group.as_str(), letter.version.as_str()), ("billing", "bills", "v2"));
    assert_eq!((letter.stream.as_str(), letter.entry, letter.attempts), ("orders", Some(EntryId(17, 3)), 3));
    assert_eq!((letter.failed_at, letter.replayed_at), (1_795_220_640_007, Some(8)));
    assert_eq!((letter.reason, letter.error()), (DeathReason::Exhausted.into(), Some("no stock")));
    assert_eq!(letter.failures[0].failure.line, Some(3));
    assert_eq!(letter.idempotency_key.as_deref(), Some("17"));
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

fn value<'l>(laid: &'l Laid, name: &str) -> Option<&'l [u8]> {
    laid.fields.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| &value[..])
}

#[test]
fn others_find_the_event_in_their_layout_and_it_comes_back_as_it_was() {
    let (aggregate, streams) = (preset("aggregate"), Streams::default());
    let event = Event {
        subject: Some("123".into()),
        time: Some("2026-11-21T02:00:00+02:00".into()),
        data: Some(Json::trusted(r#"{"task_id":123}"#)),
        ..Event::new("a", "shop", "task.created")
    };
    let shelf = shelf(Some(&aggregate), &streams);
    let laid = lay(shelf, &delivery(Ok(event.clone())));
    for (name, expected) in [
        ("type", "task.created"),
        ("aggregate_id", "123"),
        ("aggregate_type", ""),
        ("data", r#"{"task_id":123}"#),
        ("timestamp", "2026-11-21T00:00:00"),
        ("retries", "0"),
        ("original_id", "17-3"),
        ("error", "no stock"),
        ("failed_at", "2026-11-21T00:24:00.007Z"),
        ("layout", "aggregate"),
    ] {
        assert_eq!(value(&laid, name), Some(expected.as_bytes()), "{name}");
    }
    assert_eq!(back(shelf, laid).expect("it is ours").letter.event, Ok(event.clone()));
    // Whatever became of the original: the event can be read.
    let read = back(shelf, Laid { original: None, ..lay(shelf, &delivery(Ok(event.clone()))) });
    let read = read.expect("it is ours").letter.event.expect("it is an event");
    assert_eq!((read.id, read.source, read.data), (event.id, event.source, event.data));
}

#[test]
fn others_find_a_time_and_data_even_where_there_are_none() {
    let (aggregate, streams) = (preset("aggregate"), Streams::default());
    let shelf = shelf(Some(&aggregate), &streams);
    let event = Event::new("a", "shop", "task.created");
    let laid = lay(shelf, &delivery(Ok(event.clone())));
    assert_eq!(value(&laid, "timestamp"), Some(&b"1970-01-01T00:00:00.017"[..]), "when it was stored");
    assert_eq!(value(&laid, "data"), Some(&b"null"[..]));
    assert_eq!(back(shelf, laid).expect("it is ours").letter.event, Ok(event));
}

#[test]
fn moontides_own_layout_needs_no_original() {
    let rule = StreamRule { types: Vec::new(), name: "orders".into(), retain: None, layouts: preset("payload") };
    let (own, streams) = (preset("cloudevents"), Streams { rules: vec![rule], ..Streams::default() });
    let entry: Fields = [("type", "T"), ("payload", "[1]")].map(field).into();
    let read = entry::read(&streams, "orders", EntryId(17, 3), entry);
    let delivery = Delivery { lay: read.lay, ..delivery(read.event) };
    let laid = lay(shelf(Some(&own), &streams), &delivery);
    assert_eq!((value(&laid, "data"), value(&laid, "layout")), (Some(&b"[1]"[..]), Some(&b"cloudevents"[..])));
    assert!(laid.original.is_none() && value(&laid, "time").is_none());
    assert_eq!(back(shelf(Some(&own), &streams), laid).expect("it is ours").letter.event, delivery.event);
}

#[test]
fn what_lay_in_the_layout_lies_there_as_it_lay_and_what_it_cannot_hold_does_too() {
    let types = vec![TypePattern::parse("*").expect("a pattern")];
    let (event_data, aggregate) = (preset("event_data"), preset("aggregate"));
    let rule = StreamRule { types, name: "orders".into(), retain: None, layouts: aggregate.clone() };
    let streams = Streams { rules: vec![rule], ..Streams::default() };
    let entry: Fields =
        [("type", "T"), ("aggregate_id", "1"), ("data", "[1]"), ("retries", "2"), ("x", "y")].map(field).into();
    let read = entry::read(&streams, "orders", EntryId(17, 3), entry.clone());
    let delivery = Delivery { lay: read.lay, ..delivery(read.event) };
    for layout in [Some(&aggregate), Some(&event_data), None] {
        // A list is no data for event_data.
        let shelf = shelf(layout, &streams);
        let laid = lay(shelf, &delivery);
        assert_eq!(laid.fields[1..=entry.len()], entry, "{layout:?}");
        assert!(laid.original.is_none() && value(&laid, "layout").is_none());
        let found = back(shelf, laid).expect("it is ours");
        assert_eq!((found.letter.event, found.lay.as_deref()), (delivery.event.clone(), Some(&entry)));
    }
}

#[test]
fn what_moontide_wrote_is_read_as_that_whatever_the_layout_of_its_stream_is_by_now() {
    let rule = StreamRule { types: Vec::new(), name: "orders".into(), retain: None, layouts: preset("payload") };
    let (before, after) = (Streams::default(), Streams { rules: vec![rule], ..Streams::default() });
    let event = Event { data: Some(Json::trusted("1")), ..Event::new("a", "shop", "order.created") };
    let laid = lay(shelf(None, &before), &delivery(Ok(event.clone())));
    assert_eq!(back(shelf(None, &after), laid).expect("it is ours").letter.event, Ok(event));
}

#[test]
fn what_is_not_readable_as_ours_is_none() {
    let streams = Streams::default();
    let shelf = shelf(None, &streams);
    let event = Event::new("a", "shop", "order.created");
    for (name, wrong) in [
        ("original_id", "error-1"),
        ("reason", "later version"),
        ("attempts", "many"),
        ("failures", "{"),
        ("stream", ""),
        ("handler", ""),
        ("version", ""),
        ("failed_at", ""),
    ] {
        let mut laid = lay(shelf, &delivery(Ok(event.clone())));
        match wrong {
            "" => laid.fields.retain(|(found, _)| found != name.as_bytes()),
            wrong => laid.fields.push(field((name, wrong))),
        }
        assert!(back(shelf, laid).is_none(), "{name}");
    }
}

fn field((name, value): (&'static str, &'static str)) -> (Bytes, Bytes) {
    (name.into(), value.into())
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
