//! An event as a user writes it, and what is filled in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::{Millis, rfc3339};
use crate::event::{ATTRIBUTE_BYTES_MAX, Event, Json, check_type};
use crate::outcome::Emit;
use crate::streams::Streams;

/// What holds where the event itself is silent.
pub struct Defaults {
    pub source: String,
    pub subject: Option<String>,
    pub correlation_id: Option<String>,
    pub delay: Option<Duration>,
    pub payload_bytes_max: usize,
    pub streams: Arc<Streams>,
}

/// An event as it was written.
#[derive(Debug, Default)]
pub struct Draft {
    pub kind: String,
    pub id: Option<String>,
    pub source: Option<String>,
    pub subject: Option<String>,
    pub time: Option<String>,
    pub dataschema: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
    pub ext: Option<Json>,
    pub data: Option<Json>,
}

type Fields = BTreeMap<String, Box<RawValue>>;

impl Draft {
    /// Reads one line of a file; the error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let no_object = |error: serde_json::Error| {
            // The line has a number of its own.
            let error = error.to_string().replace("at line 1 column", "at column");
            format!("is no JSON object: {error}; each line is one: {{\"type\": \"order.created\", \"data\": {{…}}}}")
        };
        Json::parse(Bytes::copy_from_slice(line)).map_err(|error| match error.is_data() {
            true => format!("cannot be taken: {error}"),
            false => no_object(error),
        })?;
        let mut fields: Fields = serde_json::from_slice(line).map_err(no_object)?;
        check_envelope(&mut fields)?;
        let kind = text(&mut fields, "type")?.ok_or("has no \"type\"")?;
        let mut field = |name| text(&mut fields, name);
        let mut draft = Self {
            kind,
            id: field("id")?,
            source: field("source")?,
            subject: field("subject")?,
            time: field("time")?,
            dataschema: field("dataschema")?,
            correlation_id: field("correlation_id")?,
            causation_id: field("causation_id")?,
            traceparent: field("traceparent")?,
            ..Self::default()
        };
        draft.data = fields.remove("data").map(|data| Json::trusted(String::from(Box::<str>::from(data))));
        if !fields.is_empty() {
            let text = serde_json::to_vec(&fields).map_err(|error| format!("cannot be kept: {error}"))?;
            draft.ext = Some(Json::trusted(text));
        }
        Ok(draft)
    }

    /// Checks it and fills in what is missing; the error says what is wrong with it.
    pub fn finish(self, defaults: &Defaults, now: Millis) -> Result<Emit, String> {
        check_type(&self.kind).map_err(|error| format!("has the type {:?}: {error}", self.kind))?;
        let length = self.data.as_ref().map_or(0, |data| data.bytes().len());
        if length > defaults.payload_bytes_max {
            return Err(format!("has {length} bytes of data; limits.payload is {} bytes", defaults.payload_bytes_max));
        }
        if let Some(time) = &self.time {
            time.parse::<jiff::Timestamp>()
                .map_err(|_| format!("has the time {time:?}; write it like \"{}\" (RFC 3339)", rfc3339(now)))?;
        }
        let event = Event {
            id: self.id.unwrap_or_else(|| Uuid::now_v7().to_string()),
            source: self.source.unwrap_or_else(|| defaults.source.clone()),
            kind: self.kind,
            subject: self.subject.or_else(|| defaults.subject.clone()),
            time: self.time.or_else(|| Some(rfc3339(now))),
            dataschema: self.dataschema,
            correlation_id: self.correlation_id.or_else(|| defaults.correlation_id.clone()),
            causation_id: self.causation_id,
            traceparent: self.traceparent,
            ext: self.ext,
            data: self.data,
        };
        check_lengths(&event)?;
        let stream = defaults.streams.of(&event.kind);
        defaults.streams.check(&stream, &event)?;
        Ok(Emit { stream, event, delay: defaults.delay })
    }
}

fn check_lengths(event: &Event) -> Result<(), String> {
    let attributes = [
        ("id", Some(&event.id)),
        ("source", Some(&event.source)),
        ("subject", event.subject.as_ref()),
        ("dataschema", event.dataschema.as_ref()),
        ("correlation_id", event.correlation_id.as_ref()),
        ("causation_id", event.causation_id.as_ref()),
        ("traceparent", event.traceparent.as_ref()),
    ];
    for (name, value) in attributes.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        if value.is_empty() || value.len() > ATTRIBUTE_BYTES_MAX {
            return Err(format!("has {name:?} of {} bytes; 1 to {ATTRIBUTE_BYTES_MAX} can be kept", value.len()));
        }
    }
    Ok(())
}

/// CloudEvents' own fields about the envelope: nothing is kept of them, but what they say must hold.
fn check_envelope(fields: &mut Fields) -> Result<(), String> {
    if fields.contains_key("data_base64") {
        return Err("has \"data_base64\"; data that is not JSON is not available in this version".into());
    }
    if let Some(version) = text(fields, "specversion")?.filter(|version| version != "1.0") {
        return Err(format!("has \"specversion\" {version:?}; \"1.0\" is known"));
    }
    let kind = text(fields, "datacontenttype")?.unwrap_or_else(|| "application/json".into());
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") {
        return Err(format!("has \"datacontenttype\" {kind:?}; only JSON is available in this version"));
    }
    Ok(())
}

/// Takes a text out of the fields; `null` counts as missing.
fn text(fields: &mut Fields, name: &str) -> Result<Option<String>, String> {
    let Some(raw) = fields.remove(name) else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|_| format!("has {name:?} that is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(line: &str) -> Result<Emit, String> {
        let defaults = Defaults {
            source: "moontide".into(),
            subject: None,
            correlation_id: Some("c".into()),
            delay: None,
            payload_bytes_max: 20,
            streams: Arc::default(),
        };
        Draft::parse(line.as_bytes())?.finish(&defaults, 0)
    }

    #[test]
    fn what_is_missing_is_filled_in_and_the_rest_is_kept() {
        let line = r#"{"specversion":"1.0","type":"order.created","data":{"n":1.0, "m":1},"shard":[1,2],"time":null}"#;
        let emit = finish(line).expect("the line is an event");
        assert_eq!(emit.stream, "events:order.created");
        let event = emit.event;
        assert_eq!(event.source, "moontide");
        assert_eq!(event.time.as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(event.correlation_id.as_deref(), Some("c"));
        assert_eq!(event.data.expect("data was given").text(), r#"{"n":1.0, "m":1}"#, "byte for byte");
        assert_eq!(event.ext.expect("a field is left over").text(), r#"{"shard":[1,2]}"#);
        assert_eq!(Uuid::parse_str(&event.id).map(|id| id.get_version_num()), Ok(7));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, says) in [
            ("[1]", "is no JSON object: invalid type: sequence"),
            (r#"{"type":"a""#, "is no JSON object: EOF"),
            (r#"{"type":"a","type":"b"}"#, "cannot be taken: the key \"type\" stands twice"),
            (r#"{"data":1}"#, "has no \"type\""),
            (r#"{"type":7}"#, "has \"type\" that is no text"),
            (r#"{"type":"a b"}"#, "has the type \"a b\": ' ' cannot stand in an event type"),
            (r#"{"type":"a","data":"0123456789012345678901"}"#, "has 24 bytes of data; limits.payload is 20 bytes"),
            (r#"{"type":"a","time":"yesterday"}"#, "has the time \"yesterday\"; write it like"),
            (r#"{"type":"a","id":""}"#, "has \"id\" of 0 bytes; 1 to 1024 can be kept"),
            (r#"{"type":"a","dataschema":""}"#, "has \"dataschema\" of 0 bytes; 1 to 1024 can be kept"),
            (r#"{"type":"a","traceparent":""}"#, "has \"traceparent\" of 0 bytes; 1 to 1024 can be kept"),
            (r#"{"type":"a","specversion":"0.3"}"#, "has \"specversion\" \"0.3\"; \"1.0\" is known"),
            (r#"{"type":"a","datacontenttype":"text/xml"}"#, "has \"datacontenttype\" \"text/xml\""),
            (r#"{"type":"a","data_base64":"AA=="}"#, "has \"data_base64\""),
        ] {
            let problem = finish(line).expect_err(line);
            assert!(problem.starts_with(says), "{line}: {problem}");
        }
    }
}
