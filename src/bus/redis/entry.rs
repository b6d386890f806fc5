//! How an event lies in an entry: one field per attribute, `data` as JSON text.
//!
//! Owns the names of the fields. Extension attributes that are texts are fields of their own, as other services write
//! them; the rest of them lies together in `ext`. An entry that is no event keeps its fields as they were.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::bus::{Past, Undecodable, past};
use crate::event::{ATTRIBUTE_BYTES_MAX, EntryId, Event, Json};

/// Names and values, in their order.
pub(super) type Fields = Vec<(Bytes, Bytes)>;

/// In the host's own streams: what a delivery went through.
const PAST: &str = "moontide-past";
const EXT: &str = "ext";
/// The names that mean something to us.
const KNOWN: [&str; 12] = [
    "id",
    "source",
    "type",
    "subject",
    "time",
    "dataschema",
    "correlation_id",
    "causation_id",
    "traceparent",
    "data",
    EXT,
    PAST,
];
/// Extension attributes that become fields of their own; where there are more, they lie together.
const EXT_FIELDS_MAX: usize = 256;

/// The fields of an event, or those that it had where it was none.
pub(super) fn fields(event: &Result<Event, Undecodable>) -> Fields {
    match event {
        Ok(event) => event_fields(event),
        Err(raw) if raw.fields.is_empty() => vec![field("ext", Bytes::new())],
        Err(raw) => raw.fields.clone(),
    }
}

/// The fields of a delivery in the host's own stream.
pub(super) fn fields_with_past(event: &Result<Event, Undecodable>, past: &Past) -> Fields {
    let mut fields = fields(event);
    fields.push(field(PAST, past::write(past).into()));
    fields
}

/// The fields of an event.
pub(super) fn event_fields(event: &Event) -> Fields {
    let mut fields = Vec::with_capacity(KNOWN.len());
    let mut text = |name, value: &str| fields.push(field(name, Bytes::copy_from_slice(value.as_bytes())));
    text("id", &event.id);
    text("source", &event.source);
    text("type", &event.kind);
    for (name, value) in [
        ("subject", &event.subject),
        ("time", &event.time),
        ("dataschema", &event.dataschema),
        ("correlation_id", &event.correlation_id),
        ("causation_id", &event.causation_id),
        ("traceparent", &event.traceparent),
    ] {
        if let Some(value) = value {
            text(name, value);
        }
    }
    if let Some(ext) = &event.ext {
        extension_fields(ext, &mut fields);
    }
    if let Some(data) = &event.data {
        fields.push(field("data", data.bytes().clone()));
    }
    fields
}

fn field(name: &'static str, value: Bytes) -> (Bytes, Bytes) {
    (Bytes::from_static(name.as_bytes()), value)
}

fn extension_fields(ext: &Json, fields: &mut Fields) {
    let Ok(members) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(ext.bytes()) else {
        return fields.push(field(EXT, ext.bytes().clone()));
    };
    if members.len() > EXT_FIELDS_MAX {
        return fields.push(field(EXT, ext.bytes().clone()));
    }
    let mut rest = BTreeMap::new();
    for (name, value) in members {
        match serde_json::from_str::<String>(value.get()) {
            Ok(text) if !name.is_empty() && !KNOWN.contains(&name.as_str()) => fields.push((name.into(), text.into())),
            _ => drop(rest.insert(name, value)),
        }
    }
    if !rest.is_empty() {
        let rest = serde_json::to_vec(&rest).expect("texts and JSON are always JSON");
        fields.push(field(EXT, rest.into()));
    }
}

/// What an entry of the host's own stream holds: an event and what it went through.
pub(super) fn read_own(stream: &str, entry: EntryId, mut fields: Fields) -> (Result<Event, Undecodable>, Option<Past>) {
    let Some(at) = fields.iter().position(|(name, _)| name == PAST.as_bytes()) else {
        return (read(stream, entry, fields), None);
    };
    let (_, text) = fields.remove(at);
    match past::read(&text) {
        Ok(past) => (read(&past.stream, past.entry, fields), Some(past)),
        Err(error) => {
            let reason = format!("what it went through is not readable: {error}");
            (Err(Undecodable { reason, fields }), None)
        }
    }
}

/// The event in an entry. Without an id of its own it is named after the entry, and without a source after the stream.
pub(super) fn read(stream: &str, entry: EntryId, fields: Fields) -> Result<Event, Undecodable> {
    match event(stream, entry, &fields) {
        Ok(event) => Ok(event),
        Err(reason) => Err(Undecodable { reason, fields }),
    }
}

fn event(stream: &str, entry: EntryId, fields: &Fields) -> Result<Event, String> {
    let mut known: [Option<&Bytes>; KNOWN.len()] = [None; KNOWN.len()];
    let mut rest: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for (name, value) in fields {
        let name = std::str::from_utf8(name).map_err(|_| "the name of a field is not UTF-8".to_owned())?;
        let twice = match KNOWN.iter().position(|known| *known == name) {
            Some(at) if name != PAST => known[at].replace(value).is_some(),
            _ => rest.insert(name, quoted(utf8(name, value)?)).is_some(),
        };
        if twice {
            return Err(format!("field {name:?} is there twice"));
        }
    }
    let [id, source, kind, subject, time, dataschema, correlation_id, causation_id, traceparent, data, ext, _] = known;
    let kind = attribute("type", kind)?.ok_or("field \"type\" is missing")?;
    crate::event::check_type(&kind).map_err(|error| format!("field \"type\": {error}"))?;
    Ok(Event {
        id: attribute("id", id)?.unwrap_or_else(|| format!("{stream}/{entry}")),
        source: attribute("source", source)?.unwrap_or_else(|| stream.to_owned()),
        kind,
        subject: attribute("subject", subject)?,
        time: attribute("time", time)?,
        dataschema: attribute("dataschema", dataschema)?,
        correlation_id: attribute("correlation_id", correlation_id)?,
        causation_id: attribute("causation_id", causation_id)?,
        traceparent: attribute("traceparent", traceparent)?,
        ext: extensions(ext, rest)?,
        data: data.map(|text| json("data", text)).transpose()?,
    })
}

fn utf8<'v>(name: &str, value: &'v Bytes) -> Result<&'v str, String> {
    std::str::from_utf8(value).map_err(|_| format!("field {name:?} is not UTF-8"))
}

fn attribute(name: &str, value: Option<&Bytes>) -> Result<Option<String>, String> {
    let Some(value) = value else { return Ok(None) };
    if value.len() > ATTRIBUTE_BYTES_MAX {
        return Err(format!("field {name:?} has {} bytes; at most {ATTRIBUTE_BYTES_MAX} are taken", value.len()));
    }
    utf8(name, value).map(|text| Some(text.to_owned()))
}

fn json(name: &str, text: &Bytes) -> Result<Json, String> {
    Json::parse(text.clone()).map_err(|error| format!("field {name:?} is not JSON: {error}"))
}

fn quoted(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).expect("a text is always JSON")
}

/// The JSON object of all that has no place of its own.
fn extensions<'f>(ext: Option<&'f Bytes>, rest: BTreeMap<&'f str, Box<RawValue>>) -> Result<Option<Json>, String> {
    let Some(text) = ext else {
        return Ok((!rest.is_empty()).then(|| object(&rest)));
    };
    let whole = json(EXT, text)?;
    if rest.is_empty() && text.trim_ascii_start().starts_with(b"{") {
        return Ok(Some(whole));
    }
    match serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(text) {
        Ok(mut members) => {
            members.extend(rest.into_iter().map(|(name, value)| (name.to_owned(), value)));
            Ok(Some(object(&members)))
        }
        Err(_) => Err(format!("field {EXT:?} is no JSON object")),
    }
}

fn object<K: Ord + serde::Serialize>(members: &BTreeMap<K, Box<RawValue>>) -> Json {
    Json::trusted(serde_json::to_vec(members).expect("texts and JSON are always JSON"))
}

/// The `type` of an entry, if it has one that is a text: asked before anything else of it is looked at.
pub(super) fn kind(fields: &Fields) -> Option<&str> {
    let (_, value) = fields.iter().find(|(name, _)| name == b"type".as_slice())?;
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: EntryId = EntryId(17, 3);

    fn raw(fields: &[(&'static str, &'static str)]) -> Fields {
        fields.iter().map(|(name, value)| field(name, Bytes::from_static(value.as_bytes()))).collect()
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        for ext in [
            None,
            Some(r#"{"tenant":"north"}"#),
            Some(r#"{"a":"ü","n":5,"z":null}"#),
            Some(r#"{"data":"taken","id":"taken"}"#),
            Some("{}"),
        ] {
            let event = Event {
                subject: Some("s".into()),
                traceparent: Some("00-1-2-01".into()),
                ext: ext.map(|text| Json::trusted(text.to_owned())),
                data: Some(Json::trusted(r#"{"price":1.50,"n":9007199254740993}"#)),
                ..Event::new("1", "shop", "order.created")
            };
            let back = read("orders", ENTRY, event_fields(&event)).expect("it is an event");
            let same =
                |event: &Event| Event { ext: event.ext.clone().filter(|ext| ext.bytes() != "{}"), ..event.clone() };
            assert_eq!(same(&back), same(&event), "{ext:?}");
        }
    }

    #[test]
    fn what_others_wrote_is_an_event_as_far_as_it_can_be() {
        let event = read("orders", ENTRY, raw(&[("type", "T"), ("data", "[1]"), ("user", "a\"b")])).expect("an event");
        assert_eq!((event.id.as_str(), event.source.as_str()), ("orders/17-3", "orders"));
        assert_eq!(event.ext, Some(Json::trusted(r#"{"user":"a\"b"}"#)));
    }

    #[test]
    fn what_is_no_event_says_why_and_keeps_its_fields() {
        for (fields, why) in [
            (raw(&[("data", "1")]), "field \"type\" is missing"),
            (raw(&[("type", "a b")]), "field \"type\": ' ' cannot stand"),
            (raw(&[("type", "T"), ("type", "T")]), "field \"type\" is there twice"),
            (raw(&[("type", "T"), ("x", "1"), ("x", "2")]), "field \"x\" is there twice"),
            (raw(&[("type", "T"), ("data", "{")]), "field \"data\" is not JSON"),
            (raw(&[("type", "T"), ("ext", "[1]"), ("x", "1")]), "field \"ext\" is no JSON object"),
            (vec![field("type", Bytes::from_static(b"\xff"))], "field \"type\" is not UTF-8"),
            (vec![(Bytes::from_static(b"\xff"), Bytes::new())], "the name of a field is not UTF-8"),
        ] {
            let found = read("orders", ENTRY, fields.clone()).expect_err("it is none");
            assert!(found.reason.contains(why), "{} instead of {why}", found.reason);
            assert_eq!(found.fields, fields);
        }
    }

    #[test]
    fn the_past_is_no_part_of_an_event() {
        let past = Past {
            attempts: 1,
            snoozes: 0,
            stream: "orders".into(),
            entry: EntryId(1, 0),
            first_received: 5,
            failures: Vec::new(),
            replay_of: None,
        };
        let event = Ok(Event::new("1", "shop", "order.created"));
        assert_eq!(read_own("retry", ENTRY, fields_with_past(&event, &past)), (event, Some(past.clone())));
        let garbage = Err(Undecodable { reason: "field \"type\" is missing".into(), fields: raw(&[("x", "1")]) });
        assert_eq!(read_own("retry", ENTRY, fields_with_past(&garbage, &past)), (garbage, Some(past)));
    }
}
