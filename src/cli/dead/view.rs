//! A dead letter as JSON and as text.

use std::fmt::Write;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::bus::DeadLetter;
use crate::cli::output::{cell, counted, or_dash};
use crate::clock::rfc3339;
use crate::letter::{EventView, FailureView, RawView, said};

/// What is known; field names are stable.
#[derive(Serialize)]
pub struct View<'a> {
    /// As text: it may be larger than what every reader of JSON can count to.
    id: String,
    /// What a foreign letter does not say is `null`, here and below.
    handler: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    reason: &'static str,
    stream: Option<&'a str>,
    entry: Option<String>,
    attempts: Option<u32>,
    failed_at: String,
    error: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    /// When it was replayed, while the replay is on its way.
    replayed_at: Option<String>,
    failures: Vec<FailureView<'a>>,
    /// `null` for what is no event.
    event: Option<EventView<'a>>,
    /// What lay there, for what is no event.
    raw: Option<RawView<'a>>,
}

impl<'a> View<'a> {
    pub fn of(letter: &'a DeadLetter) -> Self {
        Self {
            id: letter.id.to_string(),
            handler: said(&letter.handler),
            group: said(&letter.group),
            version: said(&letter.version),
            reason: letter.reason.as_str(),
            stream: said(&letter.stream),
            entry: letter.entry.map(|entry| entry.to_string()),
            attempts: (letter.attempts > 0).then_some(letter.attempts),
            failed_at: rfc3339(letter.failed_at),
            error: letter.error(),
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
            or_dash(self.handler),
            self.reason.to_owned(),
            or_dash(event.map(|event| event.kind)),
            or_dash(event.map(|event| event.id)),
            or_dash(self.attempts.map(|attempts| attempts.to_string()).as_deref()),
            self.failed_at.clone(),
            // Why it was given up, or why it is no event.
            or_dash(self.error.or(self.raw.as_ref().map(|raw| raw.reason))),
        ]
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
        let (handler, is_ours) = (self.handler.unwrap_or("-"), self.version.is_some());
        if let (Some(version), Some(group)) = (self.version, self.group.or(Some("-"))) {
            line("handler", Some(&format!("{handler} (version {version}, group {group})")));
        } else {
            line("handler", Some(handler));
        }
        let after = self.attempts.map(|attempts| format!(" after {}", counted(attempts as usize, "attempt")));
        line("given up", Some(&format!("{}, {}{}", self.failed_at, self.reason, after.unwrap_or_default())));
        line("error", self.error.filter(|_| !is_ours));
        let entry = self.entry.as_deref().unwrap_or("?");
        line("lay at", self.stream.map(|stream| format!("{stream}/{entry}")).as_deref());
        line("idempotency key", self.idempotency_key);
        line("replayed at", self.replayed_at.as_deref());
        if let Some(event) = &self.event {
            event_lines(event, &mut line);
        }
        if let Some(raw) = &self.raw {
            line("no event", Some(raw.reason));
            raw.fields.iter().for_each(|(name, value)| line(&format!("  {}", cell(name)), Some(value)));
        }
        for failure in &self.failures {
            write_failure(failure, &mut text);
        }
        text
    }
}

fn event_lines(event: &EventView<'_>, line: &mut impl FnMut(&str, Option<&str>)) {
    line("event", Some(event.id));
    line("  type", Some(event.kind));
    line("  source", Some(event.source));
    line("  subject", event.subject);
    line("  time", event.time);
    line("  dataschema", event.dataschema);
    line("  correlation_id", event.correlation_id);
    line("  causation_id", event.causation_id);
    line("  traceparent", event.traceparent);
    line("  ext", event.ext.as_deref().map(RawValue::get));
    line("  data", event.data.as_deref().map(RawValue::get));
}

fn write_failure(failure: &FailureView<'_>, text: &mut String) {
    let place = match (failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        _ => String::new(),
    };
    let FailureView { at, kind, version, .. } = failure;
    let (message, attempt) = (plain(failure.message), format!("attempt {}", failure.attempt));
    let _ = writeln!(text, "{attempt:<16} {at} {kind} (version {version}): {place}{message}");
    for line in failure.trace.into_iter().flat_map(str::lines) {
        let _ = writeln!(text, "{:<16}   {}", "", plain(line));
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
    use crate::bus::{DeadId, DeadReason, PastFailure, Undecodable};
    use crate::event::{EntryId, Event, Json};
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
            reason: DeathReason::Exhausted.into(),
            stream: "events:x".into(),
            entry: Some(EntryId(4, 0)),
            event,
            attempts: 2,
            failed_at: 0,
            failures: vec![PastFailure { attempt: 2, at: 0, version: "abc".into(), failure }],
            foreign_error: None,
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
    fn of_a_foreign_letter_is_shown_what_it_says() {
        let (handler, group, version) = (String::new(), String::new(), String::new());
        let foreign = DeadLetter {
            reason: DeadReason::Foreign,
            entry: None,
            failures: Vec::new(),
            foreign_error: Some("Connection\ntimeout".into()),
            idempotency_key: None,
            attempts: 0,
            ..letter(Ok(event()))
        };
        let foreign = DeadLetter { handler, group, version, ..foreign };
        let expected = "\
dead letter      17
handler          -
given up         1970-01-01T00:00:00.000Z, foreign
error            Connection
                 timeout
lay at           events:x/?
event            e1
  type           x
  source         shop
  data           {\"n\":12345678901234567890}
";
        let view = View::of(&foreign);
        assert_eq!(view.text(), expected);
        let row = ["17", "-", "foreign", "x", "e1", "-", "1970-01-01T00:00:00.000Z", "Connection timeout"];
        assert_eq!(view.row(), row);
        let json = serde_json::to_string(&view).expect("a view is JSON");
        assert!(json.contains(r#""handler":null,"group":null,"version":null,"reason":"foreign""#), "{json}");
        let unknown = DeadLetter { stream: String::new(), ..foreign };
        assert!(!View::of(&unknown).text().contains("lay at"));
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
