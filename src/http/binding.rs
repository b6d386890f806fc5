//! The CloudEvents HTTP binding: from headers and a body to drafts, in structured, batched and binary mode.

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use percent_encoding::percent_decode_str;
use serde_json::value::{RawValue, to_raw_value};

use super::attributes::{self, Fault, check_name, is_json};
use super::document::{self, Members};
use super::guard::one;
use super::problem::Problem;
use crate::draft::Draft;

/// How an event lies in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Structured,
    Batched,
    Binary,
}

const PREFIX: &str = "ce-";

impl Mode {
    /// The mode that the headers speak of.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let content_type = one(headers, &CONTENT_TYPE)?;
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/cloudevents+json" => Ok(Self::Structured),
            "application/cloudevents-batch+json" => Ok(Self::Batched),
            other if other.starts_with("application/cloudevents") => {
                Err(Problem::media_type(format!("{other} is not taken; application/cloudevents+json is")))
            }
            _ if headers.contains_key("ce-specversion") => check_type(content_type).map(|()| Self::Binary),
            _ if content_type.is_some_and(is_json) => Err(Problem::bad(
                "is JSON, but no CloudEvent: send ce-… headers, or application/cloudevents+json, or plain JSON to \
                 /events/TYPE",
            )),
            _ => Err(Problem::media_type(
                "CloudEvents are sent as application/cloudevents+json, as application/cloudevents-batch+json, or with \
                 ce-… headers and a JSON body",
            )),
        }
    }
}

/// A body beside `ce-…` headers is JSON; where nothing is said of it, it will show. Pages of other sites cannot send those
/// headers unasked.
fn check_type(content_type: Option<&str>) -> Result<(), Problem> {
    match content_type {
        Some(kind) if !is_json(kind) => Err(Problem::media_type(format!("{kind} is not taken; application/json is"))),
        _ => Ok(()),
    }
}

/// The event, or events, of a request to `/events`.
pub fn events(mode: Mode, headers: &HeaderMap, body: &Bytes) -> Result<Vec<Draft>, Problem> {
    match mode {
        Mode::Structured => one_event(attributes::event(parse(body)?)).map(|draft| vec![draft]),
        Mode::Batched => {
            let batch: Vec<Members> = parse(body)?;
            let numbered = batch.into_iter().enumerate();
            numbered.map(|(at, members)| refuse(attributes::event(members), &format!("event {}", at + 1))).collect()
        }
        Mode::Binary => {
            let mut members = header_attributes(headers)?;
            for name in ["type", "source", "id"] {
                if !members.0.contains_key(name) {
                    return Err(Problem::bad(format!("the event has no ce-{name}, which every CloudEvent must have")));
                }
            }
            // Nothing in the body says that there is no data.
            let data = if body.is_empty() { None } else { Some(data(body)?) };
            members.0.remove("specversion");
            check_version(headers)?;
            one_event(attributes::draft(members, data)).map(|draft| vec![draft])
        }
    }
}

/// The event of a request to `/events/{type}`: the body is its data; `ce-…` headers may say more.
pub fn plain(kind: &str, headers: &HeaderMap, body: &Bytes) -> Result<Draft, Problem> {
    match one(headers, &CONTENT_TYPE)? {
        Some(content_type) => check_type(Some(content_type))?,
        None => return Err(Problem::media_type("has no Content-Type; send JSON as application/json")),
    }
    let mut members = header_attributes(headers)?;
    if let Some(other) = attributes::text(&mut members, "type").map_err(Problem::bad)?.filter(|other| other != kind) {
        return Err(Problem::bad(format!("has the ce-type {other:?}, but was sent to /events/{kind}")));
    }
    let draft = one_event(attributes::draft(members, Some(data(body)?)))?;
    Ok(Draft { kind: kind.to_owned(), ..draft })
}

fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    match one(headers, &HeaderName::from_static("ce-specversion"))? {
        Some("1.0") | None => Ok(()),
        Some(other) => Err(Problem::bad(format!("has the ce-specversion {other:?}; 1.0 is known"))),
    }
}

fn data(body: &Bytes) -> Result<crate::event::Json, Problem> {
    document::read(body.clone()).map_err(|problem| Problem::bad(format!("the body {problem}")))
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad(format!("the body is no CloudEvent in JSON: {error}")))
}

fn one_event(read: Result<Draft, Fault>) -> Result<Draft, Problem> {
    refuse(read, "the event")
}

fn refuse(read: Result<Draft, Fault>, which: &str) -> Result<Draft, Problem> {
    read.map_err(|fault| match fault {
        Fault::Wrong(reason) => Problem::bad(format!("{which} {reason}")),
        Fault::MediaType(reason) => Problem::media_type(format!("{which} {reason}")),
    })
}

/// What the `ce-…` headers say.
fn header_attributes(headers: &HeaderMap) -> Result<Members, Problem> {
    let mut members = Members::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        check_name(attribute).map_err(|problem| Problem::bad(format!("the event {problem}")))?;
        if ["data", "datacontenttype"].contains(&attribute) {
            return Err(Problem::bad(format!("has the header {name}; data is the body, Content-Type its type")));
        }
        let value = one(headers, name)?.unwrap_or_default();
        let value = unescape(value).ok_or_else(|| Problem::bad(format!("has the header {name} that is no UTF-8")))?;
        members.0.insert(attribute.to_owned(), quoted(&value)?);
    }
    Ok(members)
}

fn quoted(text: &str) -> Result<Box<RawValue>, Problem> {
    to_raw_value(text).map_err(|error| Problem::defect(format!("a text could not be written: {error}")))
}

/// A header's value as it was meant: without quotes around it, percent-encoding undone.
fn unescape(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = match inner {
        Some(inner) => {
            let mut text = String::with_capacity(inner.len());
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
            }
            text
        }
        None => value.to_owned(),
    };
    percent_decode_str(&text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))
        };
        list.iter().map(parse).collect()
    }

    const BINARY: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "order.created")];

    #[test]
    fn header_values_are_unescaped() {
        for (value, meant) in [
            ("plain", Some("plain")),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
            ("\"with \\\"quotes\\\"\"", Some("with \"quotes\"")),
            ("50%", Some("50%")),
            ("\"", Some("\"")),
            ("%ff", None),
        ] {
            assert_eq!(unescape(value).as_deref(), meant, "{value}");
        }
    }

    #[test]
    fn binary_mode_takes_attributes_from_headers() {
        let more = [("ce-subject", "a%20b"), ("ce-shard", "7"), ("content-type", "application/json")];
        let headers = headers(&[&BINARY[..], &more].concat());
        assert_eq!(Mode::of(&headers), Ok(Mode::Binary));
        let drafts = events(Mode::Binary, &headers, &Bytes::from("{\"n\":1}")).expect("it is an event");
        assert_eq!((drafts[0].kind.as_str(), drafts[0].subject.as_deref()), ("order.created", Some("a b")));
        assert_eq!(drafts[0].ext.as_ref().expect("one is left").text(), r#"{"shard":"7"}"#);
        let without = events(Mode::Binary, &headers, &Bytes::new()).expect("data may be missing");
        assert_eq!(without[0].data, None);
    }

    #[test]
    fn the_mode_is_recognised_or_refused() {
        for (list, expected) in [
            (&[("content-type", "application/cloudevents+json; charset=utf-8")][..], Ok(Mode::Structured)),
            (&[("content-type", "application/cloudevents-batch+json")], Ok(Mode::Batched)),
            (&[("ce-specversion", "1.0")], Ok(Mode::Binary)),
            (&[("content-type", "application/cloudevents+xml")], Err(415)),
            (&[("content-type", "application/json")], Err(400)),
            (&[("content-type", "text/plain")], Err(415)),
            (&[("content-type", "text/plain"), ("ce-specversion", "1.0")], Err(415)),
            (&[], Err(415)),
        ] {
            assert_eq!(Mode::of(&headers(list)).map_err(|problem| problem.status.as_u16()), expected, "{list:?}");
        }
    }
}
