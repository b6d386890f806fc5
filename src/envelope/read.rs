//! From an entry to an event: every field is looked at once, then each part of the event is taken from where the layout
//! says that it lies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::document::{self, Members};
use super::extensions;
use super::layout::{
    ATTRIBUTES, At, CAUSATION, CORRELATION, DATASCHEMA, ID, Layout, Parts, SOURCE, SUBJECT, TIME, TRACEPARENT, TYPE,
    Trace,
};
use super::spec::Encoding;
use super::{Fields, Lying};
use crate::event::{ATTRIBUTE_BYTES_MAX, Event, Json, check_type};

/// The event in an entry of the layout.
///
/// # Errors
/// Why it is none; the text names the field.
pub(super) fn event(layout: &Layout, lying: Lying<'_>, fields: &Fields) -> Result<Event, String> {
    let parts = layout.parts();
    let entry = Entry::look(parts, fields)?;
    let kind = entry.kind()?;
    check_type(&kind).map_err(|error| format!("{}: {error}", entry.named(TYPE)))?;
    let time = entry.attribute(TIME)?;
    let time = time.map(|text| parts.time.read(&text).map_err(|why| format!("{} {why}", entry.named(TIME))));
    Ok(Event {
        id: entry.attribute(ID)?.unwrap_or_else(|| format!("{}/{}", lying.stream, lying.entry)),
        source: entry.attribute(SOURCE)?.unwrap_or_else(|| lying.stream.to_owned()),
        kind,
        subject: entry.attribute(SUBJECT)?,
        time: time.transpose()?,
        dataschema: entry.attribute(DATASCHEMA)?,
        correlation_id: entry.attribute(CORRELATION)?,
        causation_id: entry.attribute(CAUSATION)?,
        traceparent: entry.trace()?,
        data: entry.data()?,
        ext: entry.ext()?,
    })
}

/// An entry that was looked through.
struct Entry<'f> {
    parts: &'f Parts,
    /// The values of the layout's fields, by number.
    values: Vec<Option<&'f Bytes>>,
    /// The members of those that hold objects into which the layout looks.
    documents: Vec<Option<Members<'f>>>,
    /// What the layout does not know.
    others: extensions::Members,
}

impl<'f> Entry<'f> {
    fn look(parts: &'f Parts, fields: &'f Fields) -> Result<Self, String> {
        let mut values = vec![None; parts.fields.len()];
        let mut others = extensions::Members::new();
        for (name, value) in fields {
            let name = std::str::from_utf8(name).map_err(|_| "the name of a field is not UTF-8".to_owned())?;
            let twice = match parts.fields.iter().position(|known| known == name) {
                Some(at) => values[at].replace(value).is_some(),
                None => others.insert(name.to_owned(), extensions::text(utf8(name, value)?)).is_some(),
            };
            if twice {
                return Err(format!("field {name:?} is there twice"));
            }
        }
        let mut entry = Self { parts, values, documents: vec![None; parts.fields.len()], others };
        entry.open_documents()?;
        Ok(entry)
    }

    /// Parses what the layout looks into, once.
    fn open_documents(&mut self) -> Result<(), String> {
        for at in self.parts.places() {
            let At::Path(field, _) = at else { continue };
            let (Some(text), None) = (self.values[*field], &self.documents[*field]) else { continue };
            json(&self.parts.fields[*field], text)?;
            self.documents[*field] = Some(document::members(text).unwrap_or_default());
        }
        Ok(())
    }

    /// JSON within a field's document.
    fn within(&self, field: usize, path: &[String]) -> Option<&'f str> {
        let (first, rest) = path.split_first()?;
        match self.documents[field].as_ref()?.get(first) {
            Some(member) => document::find(member.get().as_bytes(), rest),
            // Elements of a list.
            None => document::find(self.values[field]?, path),
        }
    }

    /// The text at a place, if something is there.
    fn text(&self, at: &At) -> Result<Option<String>, String> {
        let text = match at {
            At::Constant(text) => Some(text.clone()),
            At::Field(field) => match self.values[*field] {
                Some(value) => Some(utf8(&self.parts.fields[*field], value)?.to_owned()),
                None => None,
            },
            At::Path(field, path) => match self.within(*field, path) {
                None | Some("null") => None,
                Some(value) => Some(scalar(value).ok_or_else(|| format!("{} is no text", self.parts.show(at)))?),
            },
        };
        match text {
            Some(text) if text.len() > ATTRIBUTE_BYTES_MAX => Err(format!(
                "{} has {} bytes; at most {ATTRIBUTE_BYTES_MAX} are taken",
                self.parts.show(at),
                text.len()
            )),
            text => Ok(text.filter(|text| !text.is_empty())),
        }
    }

    fn attribute(&self, number: usize) -> Result<Option<String>, String> {
        for at in &self.parts.attributes[number] {
            if let Some(text) = self.text(at)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn kind(&self) -> Result<String, String> {
        self.attribute(TYPE)?.ok_or_else(|| format!("{} is missing", self.named(TYPE)))
    }

    /// How a message names an attribute's place.
    fn named(&self, number: usize) -> String {
        self.parts.attributes[number].first().map_or_else(|| ATTRIBUTES[number].to_owned(), |at| self.parts.show(at))
    }

    fn trace(&self) -> Result<Option<String>, String> {
        match &self.parts.trace {
            None => self.attribute(TRACEPARENT),
            Some(Trace::Whole(at)) => self.text(at),
            Some(Trace::Parts { trace_id, parent_id }) => {
                let (trace, parent) = (self.text(trace_id)?, self.text(parent_id)?);
                Ok(trace.zip(parent).map(|(trace, parent)| format!("00-{trace}-{parent}-01")))
            }
        }
    }

    fn data(&self) -> Result<Option<Json>, String> {
        match (&self.parts.data, self.parts.encoding) {
            (At::Field(field), encoding) => {
                let Some(value) = self.values[*field] else { return Ok(None) };
                let name = &self.parts.fields[*field];
                match encoding {
                    // What was looked into was checked then.
                    Encoding::Json if self.documents[*field].is_some() => Ok(Some(Json::trusted(value.clone()))),
                    Encoding::Json => json(name, value).map(Some),
                    Encoding::Text => Ok(Some(Json::trusted(document::quoted(utf8(name, value)?)))),
                    Encoding::Base64 => Ok(Some(Json::trusted(document::quoted(&STANDARD.encode(value))))),
                }
            }
            (At::Path(field, path), _) => {
                let found = self.within(*field, path).zip(self.values[*field]);
                Ok(found.map(|(text, whole)| Json::trusted(whole.slice_ref(text.as_bytes()))))
            }
            (At::Constant(_), _) => Ok(None),
        }
    }

    fn ext(mut self) -> Result<Option<Json>, String> {
        let together = self.parts.rest.and_then(|rest| self.values[rest]);
        let mut members = std::mem::take(&mut self.others);
        for (name, at, _) in &self.parts.ext {
            if let Some(value) = self.json_at(at)? {
                members.insert((*name).to_owned(), value);
            }
        }
        self.add_unknown(&mut members);
        extensions::joined(together, members)
    }

    fn json_at(&self, at: &At) -> Result<Option<Box<RawValue>>, String> {
        Ok(match at {
            At::Constant(text) => Some(extensions::text(text)),
            At::Field(field) => match self.values[*field] {
                Some(value) => Some(extensions::text(utf8(&self.parts.fields[*field], value)?)),
                None => None,
            },
            At::Path(field, path) => {
                self.within(*field, path).and_then(|text| RawValue::from_string(text.to_owned()).ok())
            }
        })
    }

    /// Members of documents that the layout does not know, and that do not lie in the data.
    fn add_unknown(&self, members: &mut extensions::Members) {
        for (number, document) in self.documents.iter().enumerate() {
            let Some(document) = document.as_ref().filter(|_| self.parts.data != At::Field(number)) else { continue };
            let lies = |at: &At, name: &str| matches!(at, At::Path(of, path) if *of == number && path[0] == name);
            let unknown = document.0.iter().filter(|(name, _)| !self.parts.places().any(|at| lies(at, name)));
            for (name, value) in unknown {
                members.insert(name.clone(), (*value).to_owned());
            }
        }
    }
}

fn utf8<'v>(name: &str, value: &'v Bytes) -> Result<&'v str, String> {
    std::str::from_utf8(value).map_err(|_| format!("{} is not UTF-8", shown(name)))
}

fn json(name: &str, text: &Bytes) -> Result<Json, String> {
    Json::parse(text.clone()).map_err(|error| format!("{} is not JSON: {error}", shown(name)))
}

fn shown(field: &str) -> String {
    if field.is_empty() { "the message".to_owned() } else { format!("field {field:?}") }
}

/// A text, number or truth value as text.
fn scalar(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'{' | b'[' => None,
        _ => Some(json.to_owned()),
    }
}
