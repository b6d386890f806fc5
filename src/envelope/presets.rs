//! The layouts of services that are there already, by the names of their presets.
//!
//! Each is data, as a layout of the configuration is. What they are like is the contract towards those services:
//! `docs/layouts.md` shows an entry of each.

use super::layout::{ID, Layout, TIME};
use super::spec::{Copied, Encoding, ExtSpec, Otherwise, Place, Room, Spec, TraceSpec};
use super::time::Unit;
use super::{CHANNEL, MESSAGE};
use crate::event::TRAIL;

/// Layouts of streams' entries, in the order in which they are recognised.
pub const STREAM_PRESETS: &[&str] = &["event_data", "payload", "aggregate", "cloudevents"];
/// Layouts of channels' messages, in the order in which they are recognised.
pub const MESSAGE_PRESETS: &[&str] = &["event_data", "domain", "subject", "cloudevents"];

/// The layout of entries that is called `name`, one of [`STREAM_PRESETS`].
pub(super) fn stream(name: &str) -> Layout {
    let spec = match name {
        "event_data" => event_data("event_data"),
        "payload" => payload(),
        "aggregate" => aggregate(),
        _ => cloudevents(),
    };
    built(name, spec)
}

/// The layout of messages that is called `name`, one of [`MESSAGE_PRESETS`].
pub(super) fn message(name: &str) -> Layout {
    let spec = match name {
        "event_data" => event_data(MESSAGE),
        "domain" => domain(),
        "subject" => subject(),
        _ => structured(),
    };
    built(name, spec)
}

fn built(name: &str, spec: Spec) -> Layout {
    Layout::build(name, spec).expect("a preset says where type and data lie, and a test builds each")
}

fn field(name: &str) -> Place {
    Place::Field(name.to_owned())
}

fn member(field: &str, path: &[&str]) -> Place {
    Place::Path(field.to_owned(), path.iter().map(|part| (*part).to_owned()).collect())
}

fn ext(name: &'static str, place: Place, otherwise: Otherwise) -> ExtSpec {
    ExtSpec { name, place, otherwise }
}

/// One field per attribute, `data` as JSON text.
fn cloudevents() -> Spec {
    let attributes = ["id", "source", "type", "subject", "time", "dataschema"];
    let attributes = attributes.iter().chain(&["correlation_id", "causation_id", "traceparent"]);
    Spec {
        attributes: attributes.map(|name| (*name, field(name))).collect(),
        data: Some((field("data"), Encoding::Json)),
        marks: vec![field("type")],
        ..Spec::default()
    }
}

/// `type`, `payload`, and `ts` in seconds.
fn payload() -> Spec {
    Spec {
        attributes: vec![("type", field("type"))],
        data: Some((field("payload"), Encoding::Json)),
        time: Some((field("ts"), Unit::Seconds)),
        ..Spec::default()
    }
}

/// `type`, `aggregate_id`, `aggregate_type`, `data`, `timestamp` without zone, `retries`.
fn aggregate() -> Spec {
    Spec {
        attributes: vec![("type", field("type"))],
        ext: vec![
            ext("aggregate_id", field("aggregate_id"), Otherwise::Subject("\"\"")),
            ext("aggregate_type", field("aggregate_type"), Otherwise::Json("\"\"")),
            ext("retries", field("retries"), Otherwise::Json("\"0\"")),
        ],
        data: Some((field("data"), Encoding::Json)),
        time: Some((field("timestamp"), Unit::WithoutZone)),
        marks: vec![field("type"), field("aggregate_id")],
        ..Spec::default()
    }
}

/// A flat document that has the payload's own fields beside those of every event.
fn event_data(document: &'static str) -> Spec {
    let at = |name: &str| member(document, &[name]);
    let within = |name: &str| member(document, &["metadata", name]);
    let copies = match document {
        MESSAGE => Vec::new(),
        _ => vec![(field("event_id"), Copied::Attribute(ID)), (field("timestamp"), Copied::Attribute(TIME))],
    };
    Spec {
        attributes: vec![
            ("id", at("event_id")),
            ("type", at("event_type")),
            ("source", at("source_service")),
            ("correlation_id", at("correlation_id")),
            ("subject", within("subject")),
            ("dataschema", within("dataschema")),
            ("causation_id", within("causation_id")),
        ],
        trace: Some(TraceSpec::Whole(within("traceparent"))),
        ext: vec![
            ext("version", at("version"), Otherwise::Json("\"v1\"")),
            ext("user_id", at("user_id"), Otherwise::Nothing),
            // Before what an event of before may have brought along there: what is put first stays.
            ext(TRAIL, within(TRAIL), Otherwise::Nothing),
            ext("metadata", at("metadata"), Otherwise::Json("{}")),
        ],
        time: Some((at("timestamp"), Unit::Rfc3339)),
        data: Some((field(document), Encoding::Json)),
        copies,
        room: Room::Members(document.to_owned(), vec!["metadata".to_owned()]),
        marks: vec![at("event_type")],
    }
}

/// `{"id", "subject", "timestamp", "data"}`; the channel's name is the type where the message has none.
fn subject() -> Spec {
    let at = |name: &str| member(MESSAGE, &[name]);
    Spec {
        attributes: vec![
            ("id", at("id")),
            ("type", at("subject")),
            ("type", field(CHANNEL)),
            ("correlation_id", at("correlation_id")),
            ("causation_id", at("causation_id")),
        ],
        trace: Some(TraceSpec::Whole(at("traceparent"))),
        time: Some((at("timestamp"), Unit::Rfc3339)),
        data: Some((at("data"), Encoding::Json)),
        room: Room::Members(MESSAGE.to_owned(), Vec::new()),
        marks: vec![at("subject")],
        ..Spec::default()
    }
}

/// `{"event_id", "event_name", "aggregate_id", "occurred_at", "version", "metadata", "payload"}`.
fn domain() -> Spec {
    let at = |name: &str| member(MESSAGE, &[name]);
    let within = |name: &str| member(MESSAGE, &["metadata", name]);
    Spec {
        attributes: vec![
            ("id", at("event_id")),
            ("type", at("event_name")),
            ("source", within("source")),
            ("subject", within("subject")),
            ("dataschema", within("dataschema")),
            ("correlation_id", within("correlation_id")),
            ("causation_id", within("causation_id")),
        ],
        trace: Some(TraceSpec::Whole(within("traceparent"))),
        ext: vec![
            ext("aggregate_id", at("aggregate_id"), Otherwise::Subject("null")),
            ext("version", at("version"), Otherwise::Json("1")),
            ext(TRAIL, within(TRAIL), Otherwise::Nothing),
            ext("metadata", at("metadata"), Otherwise::Json("{}")),
        ],
        time: Some((at("occurred_at"), Unit::Rfc3339)),
        data: Some((at("payload"), Encoding::Json)),
        room: Room::Members(MESSAGE.to_owned(), vec!["metadata".to_owned()]),
        marks: vec![at("event_name")],
        ..Spec::default()
    }
}

/// CloudEvents 1.0 in the structured mode: one JSON object per event.
fn structured() -> Spec {
    let at = |name: &str| member(MESSAGE, &[name]);
    let attributes = ["id", "source", "type", "subject", "dataschema"];
    Spec {
        attributes: attributes.iter().map(|name| (*name, at(name))).chain(named_without_bars()).collect(),
        trace: Some(TraceSpec::Whole(at("traceparent"))),
        copies: vec![
            (at("specversion"), Copied::Constant("1.0")),
            (at("datacontenttype"), Copied::Constant("application/json")),
        ],
        time: Some((at("time"), Unit::Rfc3339)),
        data: Some((at("data"), Encoding::Json)),
        room: Room::Members(MESSAGE.to_owned(), Vec::new()),
        marks: vec![at("specversion"), at("type")],
        ..Spec::default()
    }
}

/// Names of CloudEvents attributes have no `_`.
fn named_without_bars() -> [(&'static str, Place); 2] {
    [("correlation_id", "correlationid"), ("causation_id", "causationid")]
        .map(|(name, at)| (name, member(MESSAGE, &[at])))
}
