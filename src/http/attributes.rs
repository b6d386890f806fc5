//! CloudEvents 1.0 attributes → [`Draft`]: which must be there, what they may be called, what they may hold.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::document::{self, Members};
use crate::draft::Draft;
use crate::event::Json;

/// Why attributes make no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are wrong.
    Wrong(String),
    /// They are right, but the data is nothing that is taken here.
    MediaType(String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

/// An event in the JSON format: its attributes, and its data in `data` or `data_base64`.
pub fn event(mut members: Members) -> Result<Draft, Fault> {
    let content_type = text(&mut members, "datacontenttype")?;
    if let Some(kind) = content_type.as_deref().filter(|kind| !is_json(kind)) {
        return Err(Fault::MediaType(format!("has data of the type {kind:?}; only JSON is taken")));
    }
    let plain = members.0.remove("data");
    let data = match (plain, text(&mut members, "data_base64")?) {
        (Some(_), Some(_)) => return Err(Fault::Wrong("has both \"data\" and \"data_base64\"".into())),
        (Some(data), None) => Some(String::from(Box::<str>::from(data)).into_bytes()),
        (None, Some(encoded)) => Some(decode(&encoded)?),
        (None, None) => None,
    };
    let data = data.map(|text| document::read(text.into())).transpose();
    let data = data.map_err(|problem| Fault::Wrong(format!("has data that {problem}")))?;
    for name in ["specversion", "type", "source", "id"] {
        if !members.0.contains_key(name) {
            return Err(Fault::Wrong(format!("has no {name:?}, which every CloudEvent must have")));
        }
    }
    draft(members, data)
}

fn decode(encoded: &str) -> Result<Vec<u8>, Fault> {
    BASE64_STANDARD.decode(encoded).map_err(|error| Fault::Wrong(format!("has \"data_base64\" that is none: {error}")))
}

/// An event of these attributes; those that are missing are left to whoever finishes it.
pub fn draft(mut members: Members, data: Option<Json>) -> Result<Draft, Fault> {
    if let Some(version) = text(&mut members, "specversion")?.filter(|version| version != "1.0") {
        return Err(Fault::Wrong(format!("has \"specversion\" {version:?}; \"1.0\" is known")));
    }
    let mut attribute = |name| text(&mut members, name);
    let draft = Draft {
        kind: attribute("type")?.unwrap_or_default(),
        id: attribute("id")?,
        source: attribute("source")?,
        subject: attribute("subject")?,
        time: attribute("time")?,
        dataschema: attribute("dataschema")?,
        correlation_id: attribute("correlationid")?,
        causation_id: attribute("causationid")?,
        traceparent: attribute("traceparent")?,
        ext: extensions(members)?,
        data,
    };
    Ok(draft)
}

/// What is left: attributes of the sender's own.
fn extensions(members: Members) -> Result<Option<Json>, String> {
    let mut kept = members.0;
    kept.retain(|_, value| value.get() != "null");
    for (name, value) in &kept {
        check_name(name)?;
        if !is_scalar(value) {
            return Err(format!("has the attribute {name:?} that is no text, whole number, true or false"));
        }
    }
    if kept.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_vec(&kept).map_err(|error| format!("has attributes that cannot be kept: {error}"))?;
    Ok(Some(Json::trusted(text)))
}

/// Letters and digits: what all bindings of CloudEvents can carry.
pub fn check_name(name: &str) -> Result<(), String> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Ok(());
    }
    let right: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let instead = if right.is_empty() { "traceid" } else { &right };
    Err(format!("has the attribute {name:?}; names have small letters and digits only: {instead:?}"))
}

fn is_scalar(value: &RawValue) -> bool {
    match value.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(value.get()).is_ok(),
        Some(b't' | b'f') => true,
        Some(b'-' | b'0'..=b'9') => value.get().parse::<i32>().is_ok(),
        _ => false,
    }
}

/// Takes out an attribute that is a text.
pub fn text(members: &mut Members, name: &str) -> Result<Option<String>, String> {
    let Some(raw) = members.take(name) else { return Ok(None) };
    serde_json::from_str(raw.get()).map(Some).map_err(|_| format!("has {name:?} that is no text"))
}

/// Whether a media type means JSON in UTF-8.
pub fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let known = essence == "application/json" || essence == "text/json" || essence.ends_with("+json");
    known
        && parts.all(|parameter| match parameter.strip_prefix("charset=") {
            Some(charset) => matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii"),
            None => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Draft, Fault> {
        event(serde_json::from_str(text).map_err(|error| error.to_string())?)
    }

    fn with(more: &str) -> String {
        format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a"{more}}}"#)
    }

    #[test]
    fn attributes_go_to_their_places_and_the_rest_is_kept() {
        let draft = read(&with(
            r#", "subject":"x","time":"2026-01-01T00:00:00Z","correlationid":"c","causationid":null,
               "datacontenttype":"application/vnd.x+json; charset=UTF-8","shard":7,"on":true,"data":{"n": 1.0}"#,
        ));
        let draft = draft.expect("it is an event");
        assert_eq!((draft.kind.as_str(), draft.id.as_deref(), draft.source.as_deref()), ("a", Some("1"), Some("/s")));
        assert_eq!((draft.correlation_id.as_deref(), draft.causation_id), (Some("c"), None));
        assert_eq!(draft.ext.expect("two are left").text(), r#"{"on":true,"shard":7}"#);
        assert_eq!(draft.data.expect("it has data").text(), r#"{"n": 1.0}"#, "byte for byte");
        let encoded = read(&with(r#","data_base64":"eyJuIjoxfQ==""#)).expect("it is an event");
        assert_eq!(encoded.data.expect("it has data").text(), r#"{"n":1}"#);
        assert_eq!(read(&with(r#","data":null"#)).expect("it is an event").data.expect("null is data").text(), "null");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            (r#"{"specversion":"1.0","id":"1","source":"/s"}"#.to_owned(), "has no \"type\""),
            (r#"{"id":"1","source":"/s","type":"a"}"#.to_owned(), "has no \"specversion\""),
            (with("").replace("1.0", "0.3"), "has \"specversion\" \"0.3\"; \"1.0\" is known"),
            (with(r#","id":"2""#), "\"id\" comes twice"),
            (with(r#","subject":7"#), "has \"subject\" that is no text"),
            (with(r#","correlation_id":"c""#), "small letters and digits only: \"correlationid\""),
            (with(r#","tag":["a"]"#), "the attribute \"tag\" that is no text"),
            (with(r#","tag":1.5"#), "the attribute \"tag\" that is no text"),
            (with(r#","tag":3000000000"#), "the attribute \"tag\" that is no text"),
            (with(r#","data":1,"data_base64":"MQ==""#), "has both"),
            (with(r#","data_base64":"?""#), "has \"data_base64\" that is none"),
            (with(r#","data_base64":"PHg+""#), "has data that is no JSON document"),
            (with(r#","data":{"a":1,"a":2}"#), "\"a\" comes twice"),
        ] {
            match read(&text) {
                Err(Fault::Wrong(problem)) => assert!(problem.contains(says), "{text}: {problem}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let xml = read(&with(r#","datacontenttype":"text/xml","data":"<x/>""#));
        assert_eq!(
            xml.map(drop),
            Err(Fault::MediaType("has data of the type \"text/xml\"; only JSON is taken".into()))
        );
    }

    #[test]
    fn json_goes_by_several_names_and_in_one_encoding() {
        for (media_type, expected) in [
            ("application/json", true),
            ("Application/JSON; Charset=\"utf-8\"; x=y", true),
            ("application/problem+json", true),
            ("application/json; charset=utf-16", false),
            ("text/plain", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            assert_eq!(is_json(media_type), expected, "{media_type}");
        }
    }
}
