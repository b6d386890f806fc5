//! A dead letter as JSON and as text.

use std::fmt::Write;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::bus::{DeadLetter, PastFailure, Undecodable};
use crate::cli::output::{cell, counted, document, or_dash, readable};
use crate::clock::rfc3339;
use crate::event::Event;

/// What is known; field names are stable.
#[derive(Serialize)]
pub struct View<'a> {
    /// As text: it may be larger than what every reader of JSON can count to.
    id: String,
    handler: &'a str,
    group: &'a str,
    version: &'a str,
    reason: &'static str,
    stream: &'a str,
    entry: String,
    attempts: u32,
    failed_at: String,
    idempotency_key: Option<&'a str>,
    /// When it was replayed, while the replay is on its way.
    replayed_at: Option<String>,
    failures: Vec<FailureView<'a>>,
    /// `null` for what is no event.
    event: Option<EventView<'a>>,
    /// What lay there, for what is no event.
    raw: Option<RawView<'a>>,
}

#[derive(Serialize)]
struct FailureView<'a> {
    attempt: u32,
    at: String,
    version: &'a str,
    kind: &'static str,
    message: &'a str,
    file: Option<&'a str>,
    line: Option<u32>,
    trace: Option<&'a str>,
}

#[derive(Serialize)]
struct EventView<'a> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: Option<&'a str>,
    time: Option<&'a str>,
    dataschema: Option<&'a str>,
    correlation_id: Option<&'a str>,
    causation_id: Option<&'a str>,
    traceparent: Option<&'a str>,
    ext: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct RawView<'a> {
    reason: &'a str,
    /// Names and values in their order; what is not UTF-8 as 0x….
    fields: Vec<(String, String)>,
}

impl<'a> View<'a> {
    pub fn of(letter: &'a DeadLetter) -> Self {
        Self {
            id: letter.id.to_string(),
            handler: &letter.handler,
            group: &letter.group,
            version: &letter.version,
            reason: letter.reason.as_str(),
            stream: &letter.stream,
            entry: letter.entry.to_string(),
            attempts: letter.attempts,
            failed_at: rfc3339(letter.failed_at),
            idempotency_key: letter.idempotency_key.as_deref(),
            replayed_at: letter.replayed_at.map(rfc3339),
            failures: letter.failures.iter().map(FailureView::of).collect(),
            event: letter.event.as_ref().ok().map(EventView::of),
            raw: letter.event.as_ref().err().map(RawView::of),
        }
    }

    /// A row of the listing.
    pub fn row(&self) -> [String; 8] {
        let event = self.event.as_ref();
        [
            self.id.clone(),
            self.handler.to_owned(),
            self.reason.to_owned(),
            or_dash(event.map(|event| event.kind)),
            or_dash(event.map(|event| event.id)),
            self.attempts.to_string(),
            self.failed_at.clone(),
            or_dash(self.why()),
        ]
    }

    /// Why it was given up: the last failure, or why it is no event.
    fn why(&self) -> Option<&str> {
        let last = self.failures.last().map(|failure| failure.message);
        last.or(self.raw.as_ref().map(|raw| raw.reason))
    }

    /// Everything, readable.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name:<16} {}", plain(value));
            }
        };
        line("dead letter", Some(&self.id));
        line("handler", Some(&format!("{} (version {}, group {})", self.handler, self.version, self.group)));
        line(
            "given up",
            Some(&format!("{}, {} after {}", self.failed_at, self.reason, counted(self.attempts as usize, "attempt"))),
        );
        line("lay at", Some(&format!("{}/{}", self.stream, self.entry)));
        line("idempotency key", self.idempotency_key);
        line("replayed at", self.replayed_at.as_deref());
        if let Some(event) = &self.event {
            event.lines(&mut line);
        }
        if let Some(raw) = &self.raw {
            line("no event", Some(raw.reason));
            raw.fields.iter().for_each(|(name, value)| line(&format!("  {}", cell(name)), Some(value)));
        }
        for failure in &self.failures {
            failure.write(&mut text);
        }
        text
    }
}

impl<'a> EventView<'a> {
    fn of(event: &'a Event) -> Self {
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
            ext: event.ext.as_ref().map(document),
            data: event.data.as_ref().map(document),
        }
    }

    fn lines(&self, line: &mut impl FnMut(&str, Option<&str>)) {
        line("event", Some(self.id));
        line("  type", Some(self.kind));
        line("  source", Some(self.source));
        line("  subject", self.subject);
        line("  time", self.time);
        line("  dataschema", self.dataschema);
        line("  correlation_id", self.correlation_id);
        line("  causation_id", self.causation_id);
        line("  traceparent", self.traceparent);
        line("  ext", self.ext.as_deref().map(RawValue::get));
        line("  data", self.data.as_deref().map(RawValue::get));
    }
}

impl<'a> RawView<'a> {
    fn of(raw: &'a Undecodable) -> Self {
        let field = |(name, value)| (readable(name), readable(value));
        Self { reason: &raw.reason, fields: raw.fields.iter().map(|(name, value)| field((name, value))).collect() }
    }
}

impl<'a> FailureView<'a> {
    fn of(past: &'a PastFailure) -> Self {
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

    fn write(&self, text: &mut String) {
        let place = match (self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            (Some(file), None) => format!("{file}: "),
            _ => String::new(),
        };
        let (message, attempt) = (plain(self.message), format!("attempt {}", self.attempt));
        let _ = writeln!(text, "{attempt:<16} {} {} (version {}): {place}{message}", self.at, self.kind, self.version);
        for line in self.trace.into_iter().flat_map(str::lines) {
            let _ = writeln!(text, "{:<16}   {}", "", plain(line));
        }
    }
}

/// Text that cannot steer a terminal; line breaks stay, indented.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(shown).collect::<String>().replace('\n', &format!("\n{:<17}", ""))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bus::DeadId;
    use crate::event::{EntryId, Json};
    use crate::judge::DeathReason;
    use crate::outcome::{Failure, FailureKind};

    fn letter(event: Result<Event, Undecodable>) -> DeadLetter {
        let failure = Failure {
            file: Some("mail.luau".into()),
            line: Some(7),
            trace: Some("mail.luau:7 in send\nmail.luau:3".into()),
            ..Failure::new(FailureKind::Error, "no\x1b[2J\nroute")
        };
        DeadLetter {
            id: DeadId(17),
            handler: "mail".into(),
            group: "mail-group".into(),
            version: "abc".into(),
            reason: DeathReason::Exhausted,
            stream: "events:x".into(),
            entry: EntryId(4, 0),
            event,
            attempts: 2,
            failed_at: 0,
            failures: vec![PastFailure { attempt: 2, at: 0, version: "abc".into(), failure }],
            idempotency_key: Some("k".into()),
            replayed_at: None,
        }
    }

    fn event() -> Event {
        Event { data: Some(Json::trusted(r#"{"n":12345678901234567890}"#)), ..Event::new("e1", "shop", "x") }
    }

    #[test]
    fn all_that_is_known_is_shown_and_cannot_steer_a_terminal() {
        let letter = letter(Ok(event()));
        let expected = "\
dead letter      17
handler          mail (version abc, group mail-group)
given up         1970-01-01T00:00:00.000Z, exhausted after 2 attempts
lay at           events:x/4-0
idempotency key  k
event            e1
  type           x
  source         shop
  data           {\"n\":12345678901234567890}
attempt 2        1970-01-01T00:00:00.000Z error (version abc): mail.luau:7: no\u{fffd}[2J
                 route
                   mail.luau:7 in send
                   mail.luau:3
";
        assert_eq!(View::of(&letter).text(), expected);
        let json = serde_json::to_string(&View::of(&letter)).expect("a view is JSON");
        assert!(json.starts_with(r#"{"id":"17","#), "{json}");
        assert!(json.contains(r#""data":{"n":12345678901234567890}"#) && json.contains(r#""raw":null"#), "{json}");
    }

    #[test]
    fn what_is_no_event_is_shown_as_it_lay_there() {
        let fields = vec![(Bytes::from_static(b"type"), Bytes::from_static(b"\xff\xfe"))];
        let letter = letter(Err(Undecodable { reason: "no data".into(), fields }));
        let text = View::of(&letter).text();
        assert!(text.contains("no event         no data\n  type           0xfffe\n"), "{text}");
        let json = serde_json::to_string(&View::of(&letter)).expect("a view is JSON");
        assert!(json.contains(r#""raw":{"reason":"no data","fields":[["type","0xfffe"]]}"#), "{json}");
    }
}
