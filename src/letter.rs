//! A dead letter as JSON, for whoever asks: on the command line or over HTTP.
//!
//! Owns the names of what is shown of an event, of what is none, and of failures; they are stable.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::bus::{DeadLetter, PastFailure, Undecodable};
use crate::clock::rfc3339;
use crate::event::Event;

/// What the listing over HTTP shows of a letter: document 3's names, where it has some.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    /// As text: it may be larger than what every reader of JSON can count to.
    pub id: String,
    #[serde(rename = "type")]
    pub kind: Option<&'a str>,
    pub stream: Option<&'a str>,
    pub original_id: Option<String>,
    pub handler: Option<&'a str>,
    pub reason: &'static str,
    pub error: Option<&'a str>,
    pub attempts: Option<u32>,
    pub failed_at: String,
    /// When it was replayed, while the replay is on its way.
    pub replayed_at: Option<String>,
    pub data: Option<Box<RawValue>>,
}

impl<'a> Summary<'a> {
    pub fn of(letter: &'a DeadLetter) -> Self {
        let event = letter.event.as_ref().ok();
        Self {
            id: letter.id.to_string(),
            kind: event.map(|event| event.kind.as_str()),
            stream: said(&letter.stream),
            original_id: letter.entry.map(|entry| entry.to_string()),
            handler: said(&letter.handler),
            reason: letter.reason.as_str(),
            error: letter.error(),
            attempts: (letter.attempts > 0).then_some(letter.attempts),
            failed_at: rfc3339(letter.failed_at),
            replayed_at: letter.replayed_at.map(rfc3339),
            data: event.and_then(|event| event.data.as_ref()).map(|data| data.document()),
        }
    }
}

/// All that is known of a letter.
#[derive(Debug, Serialize)]
pub struct Detail<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    failures: Vec<FailureView<'a>>,
    /// `null` for what is no event.
    event: Option<EventView<'a>>,
    /// What lay there, for what is no event.
    raw: Option<RawView<'a>>,
}

impl<'a> Detail<'a> {
    pub fn of(letter: &'a DeadLetter) -> Self {
        Self {
            summary: Summary::of(letter),
            group: said(&letter.group),
            version: said(&letter.version),
            idempotency_key: letter.idempotency_key.as_deref(),
            failures: letter.failures.iter().map(FailureView::of).collect(),
            event: letter.event.as_ref().ok().map(EventView::of),
            raw: letter.event.as_ref().err().map(RawView::of),
        }
    }
}

/// A text, unless it is empty.
pub fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The error of one attempt.
#[derive(Debug, Serialize)]
pub struct FailureView<'a> {
    pub attempt: u32,
    pub at: String,
    pub version: &'a str,
    pub kind: &'static str,
    pub message: &'a str,
    pub file: Option<&'a str>,
    pub line: Option<u32>,
    pub trace: Option<&'a str>,
}

impl<'a> FailureView<'a> {
    pub fn of(past: &'a PastFailure) -> Self {
        Self {
            attempt: past.attempt,
            at: rfc3339(past.at),
            version: &past.version,
            kind: past.failure.kind.as_str(),
            message: &past.failure.message,
            file: past.failure.file.as_deref(),
            line: past.failure.line,
            trace: past.failure.trace.as_deref(),
        }
    }
}

/// An event.
#[derive(Debug, Serialize)]
pub struct EventView<'a> {
    pub id: &'a str,
    pub source: &'a str,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub subject: Option<&'a str>,
    pub time: Option<&'a str>,
    pub dataschema: Option<&'a str>,
    pub correlation_id: Option<&'a str>,
    pub causation_id: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub ext: Option<Box<RawValue>>,
    pub data: Option<Box<RawValue>>,
}

impl<'a> EventView<'a> {
    pub fn of(event: &'a Event) -> Self {
        Self {
            id: &event.id,
            source: &event.source,
            kind: &event.kind,
            subject: event.subject.as_deref(),
            time: event.time.as_deref(),
            dataschema: event.dataschema.as_deref(),
            correlation_id: event.correlation_id.as_deref(),
            causation_id: event.causation_id.as_deref(),
            traceparent: event.traceparent.as_deref(),
            ext: event.ext.as_ref().map(|ext| ext.document()),
            data: event.data.as_ref().map(|data| data.document()),
        }
    }
}

/// What is no event.
#[derive(Debug, Serialize)]
pub struct RawView<'a> {
    pub reason: &'a str,
    /// Names and values in their order; what is not UTF-8 as 0x….
    pub fields: Vec<(String, String)>,
}

impl<'a> RawView<'a> {
    pub fn of(raw: &'a Undecodable) -> Self {
        let field = |(name, value)| (readable(name), readable(value));
        Self { reason: &raw.reason, fields: raw.fields.iter().map(|(name, value)| field((name, value))).collect() }
    }
}

/// Bytes as text, if they are, or else in hexadecimal.
fn readable(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{DeadId, DeadReason};
    use crate::event::Json;

    fn foreign(event: Result<Event, Undecodable>) -> DeadLetter {
        DeadLetter {
            id: DeadId(u64::MAX),
            handler: String::new(),
            group: String::new(),
            version: String::new(),
            reason: DeadReason::Foreign,
            stream: String::new(),
            entry: None,
            event,
            attempts: 0,
            failed_at: 0,
            failures: Vec::new(),
            foreign_error: Some("why".into()),
            idempotency_key: None,
            replayed_at: None,
        }
    }

    #[test]
    fn what_is_not_known_is_null_and_every_digit_stays() {
        let data = Some(Json::trusted(r#"{"n":12345678901234567890123}"#));
        let letter = foreign(Ok(Event { data, ..Event::new("1", "s", "t") }));
        let shown = serde_json::to_string(&Summary::of(&letter)).expect("it is JSON");
        let expected = r#"{"id":"18446744073709551615","type":"t","stream":null,"original_id":null,"handler":null,"reason":"foreign","error":"why","attempts":null,"failed_at":"1970-01-01T00:00:00.000Z","replayed_at":null,"data":{"n":12345678901234567890123}}"#;
        assert_eq!(shown, expected);
        let all = serde_json::to_string(&Detail::of(&letter)).expect("it is JSON");
        assert!(all.starts_with(&expected[..expected.len() - 1]), "{all}");
        assert!(
            all.contains(r#""event":{"id":"1","source":"s","type":"t""#) && all.ends_with(r#""raw":null}"#),
            "{all}"
        );
    }

    #[test]
    fn bytes_stay_readable() {
        let field = |name: &'static [u8], value: &'static [u8]| (Bytes::from_static(name), Bytes::from_static(value));
        let fields = vec![field(b"caf\xc3\xa9", b"\xff\x00"), field(b"", b"a")];
        let raw = Undecodable { reason: "no".into(), fields };
        let letter = foreign(Err(raw));
        let all = serde_json::to_value(Detail::of(&letter)).expect("it is JSON");
        assert_eq!(all["raw"]["fields"], serde_json::json!([["café", "0xff00"], ["", "a"]]));
        assert_eq!((&all["event"], &all["type"], &all["data"]), (&().into(), &().into(), &().into()));
    }
}
