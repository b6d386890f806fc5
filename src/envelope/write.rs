//! From an event to an entry: each part is put where the layout says, then the fields are written in the layout's order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::Fields;
use super::document::{Draft, Members, members, quoted};
use super::extensions;
use super::layout::{ATTRIBUTES, At, Layout, Parts, SUBJECT, TIME, TRACEPARENT, Trace, is_written};
use super::spec::{Copied, Encoding, Otherwise, Room};
use crate::event::{Event, Json};

/// The fields of `event` in the layout.
pub(super) fn fields(layout: &Layout, event: &Event) -> Fields {
    let mut writing = Writing::new(layout.parts());
    writing.attributes(event);
    let absent = writing.extensions(event);
    writing.data(event);
    for at in absent {
        writing.otherwise(at, event);
    }
    writing.copies(event);
    writing.done()
}

/// Why `event` cannot be written.
///
/// # Errors
/// What the layout needs of its data.
pub(super) fn check(layout: &Layout, event: &Event) -> Result<(), String> {
    let parts = layout.parts();
    let (At::Field(field), Some(data)) = (&parts.data, &event.data) else { return Ok(()) };
    let begins = data.bytes().trim_ascii_start().first();
    let (name, needs) = match parts.encoding {
        Encoding::Json if parts.writes_into(*field) && begins != Some(&b'{') => (layout.name(), "a table with names"),
        Encoding::Text if text(data).is_none() => (layout.name(), "a text"),
        Encoding::Base64 if bytes(data).is_none() => (layout.name(), "a text in base64"),
        _ => return Ok(()),
    };
    Err(format!("the layout {name} needs {needs} as data"))
}

fn text(data: &Json) -> Option<String> {
    serde_json::from_slice(data.bytes()).ok()
}

fn bytes(data: &Json) -> Option<Vec<u8>> {
    STANDARD.decode(text(data)?).ok()
}

/// An entry that is being written.
struct Writing<'p> {
    parts: &'p Parts,
    values: Vec<Option<Bytes>>,
    documents: Vec<Draft>,
    /// Fields that the layout does not know.
    others: Fields,
}

impl<'p> Writing<'p> {
    fn new(parts: &'p Parts) -> Self {
        let documents = parts.fields.iter().map(|_| Draft::default()).collect();
        Self { parts, values: vec![None; parts.fields.len()], documents, others: Fields::new() }
    }

    fn attributes(&mut self, event: &Event) {
        let values = attributes(event);
        for (number, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let Some(at) = self.parts.attributes[number].first() else { continue };
            match number {
                TIME => self.text(at, &self.parts.time.write(value)),
                _ => self.text(at, value),
            }
        }
        match (&self.parts.trace, values[TRACEPARENT]) {
            (Some(Trace::Whole(at)), Some(trace)) => self.text(at, trace),
            (Some(Trace::Parts { trace_id, parent_id }), Some(trace)) => {
                let mut parts = trace.split('-').skip(1);
                for at in [trace_id, parent_id] {
                    self.text(at, parts.next().unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, at: &At, text: &str) {
        match at {
            At::Field(field) => self.values[*field] = Some(Bytes::copy_from_slice(text.as_bytes())),
            At::Path(field, path) if is_written(path) => self.documents[*field].put(path, &quoted(text)),
            At::Path(..) | At::Constant(_) => {}
        }
    }

    fn json(&mut self, at: &At, json: &str) {
        match at {
            At::Field(_) => {
                let text = serde_json::from_str::<String>(json);
                self.text(at, text.as_deref().unwrap_or(json));
            }
            At::Path(field, path) if is_written(path) => self.documents[*field].put(path, json),
            At::Path(..) | At::Constant(_) => {}
        }
    }

    /// Writes what `ext` holds; answers which of the layout's extensions it lacks.
    fn extensions(&mut self, event: &Event) -> Vec<usize> {
        let parts = self.parts;
        let Some(ext) = &event.ext else { return (0..parts.ext.len()).collect() };
        let Some(Members(mut members)) = members(ext.bytes()) else {
            // It is no object: it lies together, where there is room for that.
            if let Some(rest) = parts.rest {
                self.values[rest] = Some(ext.bytes().clone());
            }
            return (0..parts.ext.len()).collect();
        };
        let mut absent = Vec::new();
        for (number, (name, at, _)) in parts.ext.iter().enumerate() {
            match members.iter().position(|(found, _)| found == name) {
                Some(found) => self.json(at, members.remove(found).1.get()),
                None => absent.push(number),
            }
        }
        self.room(members);
        absent
    }

    /// Extensions without a place of their own.
    fn room(&mut self, members: Vec<(String, &RawValue)>) {
        match &self.parts.room {
            Room::Fields => {
                let others = &mut self.others;
                let rest =
                    extensions::fields(members, &self.parts.fields, &mut |name, value| others.push((name, value)));
                if let (Some(rest), Some(field)) = (rest, self.parts.rest) {
                    self.values[field] = Some(rest.bytes().clone());
                }
            }
            Room::Members(field, path) => {
                let Some(number) = self.parts.fields.iter().position(|name| name == field) else { return };
                for (name, value) in members {
                    let place: Vec<String> = path.iter().cloned().chain([name]).collect();
                    self.documents[number].put(&place, value.get());
                }
            }
        }
    }

    fn data(&mut self, event: &Event) {
        let parts = self.parts;
        let data = event.data.as_ref();
        match &parts.data {
            At::Field(field) if parts.writes_into(*field) => {
                if let Some(data) = data {
                    self.documents[*field].put(&[], &data.text());
                }
            }
            At::Field(field) => {
                self.values[*field] = match (parts.encoding, data) {
                    (Encoding::Json, data) => data.map(|data| data.bytes().clone()),
                    (Encoding::Text, data) => data.and_then(text).map(Bytes::from),
                    (Encoding::Base64, data) => data.and_then(bytes).map(Bytes::from),
                };
            }
            at => self.json(at, &data.map_or("null".into(), Json::text)),
        }
    }

    fn otherwise(&mut self, number: usize, event: &Event) {
        let parts = self.parts;
        let (_, at, otherwise) = &parts.ext[number];
        match (otherwise, &event.subject) {
            (Otherwise::Json(json), _) | (Otherwise::Subject(json), None) => self.json(at, json),
            (Otherwise::Subject(_), Some(subject)) => self.text(at, subject),
            (Otherwise::Nothing, _) => {}
        }
    }

    fn copies(&mut self, event: &Event) {
        let parts = self.parts;
        for (at, of) in &parts.copies {
            match of {
                Copied::Constant(text) => self.text(at, text),
                Copied::Attribute(number) => {
                    if let Some(value) = attributes(event)[*number] {
                        self.text(at, value);
                    }
                }
            }
        }
    }

    fn done(self) -> Fields {
        let mut fields = Fields::with_capacity(self.parts.fields.len() + self.others.len());
        for ((name, value), document) in self.parts.names.iter().zip(self.values).zip(self.documents) {
            let value = if document.is_empty() { value } else { Some(document.text().into()) };
            if let Some(value) = value {
                fields.push((name.clone(), value));
            }
        }
        fields.extend(self.others);
        fields
    }
}

/// The attributes of an event, in their order.
fn attributes(event: &Event) -> [Option<&str>; ATTRIBUTES.len()] {
    let mut values = [
        Some(&event.id),
        Some(&event.source),
        Some(&event.kind),
        None,
        event.time.as_ref(),
        event.dataschema.as_ref(),
        event.correlation_id.as_ref(),
        event.causation_id.as_ref(),
        event.traceparent.as_ref(),
    ];
    values[SUBJECT] = event.subject.as_ref();
    values.map(|value| value.map(String::as_str))
}
