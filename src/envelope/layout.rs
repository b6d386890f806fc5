//! A layout, every field of it by its number, so that an entry is looked through once.

use std::sync::Arc;

use bytes::Bytes;

use super::spec::{Copied, Encoding, Otherwise, Place, Room, Spec, SpecError, TraceSpec};
use super::time::Unit;
use super::{Fields, MESSAGE};

/// The attributes that lie somewhere, by their names.
pub(super) const ATTRIBUTES: [&str; 9] =
    ["id", "source", "type", "subject", "time", "dataschema", "correlation_id", "causation_id", "traceparent"];
pub(super) const ID: usize = 0;
pub(super) const SOURCE: usize = 1;
pub(super) const TYPE: usize = 2;
pub(super) const SUBJECT: usize = 3;
pub(super) const TIME: usize = 4;
pub(super) const DATASCHEMA: usize = 5;
pub(super) const CORRELATION: usize = 6;
pub(super) const CAUSATION: usize = 7;
pub(super) const TRACEPARENT: usize = 8;

/// The field of what has no field of its own: a JSON object.
pub(super) const EXT: &str = "ext";

/// Where something lies, its field as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    Field(usize),
    Path(usize, Box<[String]>),
    Constant(String),
}

/// Where the trace context lies, fields as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    Whole(At),
    Parts { trace_id: At, parent_id: At },
}

/// A layout.
#[derive(Clone, Debug)]
pub struct Layout(Arc<Parts>);

impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

/// What a layout says, each field by its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub name: String,
    /// The fields that mean something, in the order in which they are written.
    pub fields: Vec<String>,
    /// Their names, as they are written.
    pub names: Vec<Bytes>,
    /// For each attribute the places where it may lie.
    pub attributes: [Vec<At>; ATTRIBUTES.len()],
    pub trace: Option<Trace>,
    pub time: Unit,
    pub data: At,
    pub encoding: Encoding,
    pub ext: Vec<(&'static str, At, Otherwise)>,
    pub copies: Vec<(At, Copied)>,
    pub room: Room,
    /// The field [`EXT`], where there is room in fields.
    pub rest: Option<usize>,
    marks: Vec<At>,
}

impl Layout {
    /// Builds a layout called `name`.
    ///
    /// # Errors
    /// When the type or the data lies nowhere, or within something else.
    pub fn build(name: &str, spec: Spec) -> Result<Self, SpecError> {
        Builder::default().build(name, spec).map(|parts| Self(Arc::new(parts)))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it is one of channels' messages, and not of streams' entries.
    pub fn is_for_channels(&self) -> bool {
        matches!(&self.0.room, Room::Members(field, _) if field == MESSAGE)
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    /// Whether an entry has what this layout needs.
    pub(super) fn fits(&self, fields: &Fields) -> bool {
        self.0.marks.iter().all(|mark| self.has(mark, fields))
    }

    fn has(&self, mark: &At, fields: &Fields) -> bool {
        match mark {
            At::Constant(_) => true,
            At::Field(field) => self.value(*field, fields).is_some(),
            At::Path(field, path) => {
                self.value(*field, fields).is_some_and(|text| super::document::find(text, path).is_some())
            }
        }
    }

    fn value<'f>(&self, field: usize, fields: &'f Fields) -> Option<&'f [u8]> {
        let name = self.0.fields[field].as_bytes();
        fields.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..])
    }

    /// The type, where a field of its own says it.
    pub(super) fn kind<'f>(&self, fields: &'f Fields) -> Option<&'f str> {
        match &self.0.attributes[TYPE][..] {
            [At::Field(field)] => std::str::from_utf8(self.value(*field, fields)?).ok(),
            _ => None,
        }
    }
}

/// Numbers the fields.
#[derive(Default)]
struct Builder {
    fields: Vec<String>,
}

impl Builder {
    fn build(mut self, name: &str, spec: Spec) -> Result<Parts, SpecError> {
        if !spec.attributes.iter().any(|(name, _)| *name == "type") {
            return Err(SpecError::NoType);
        }
        let (data, encoding) = spec.data.ok_or(SpecError::NoData)?;
        if matches!(data, Place::Constant(_)) {
            return Err(SpecError::ConstantData);
        }
        let marks = if spec.marks.is_empty() { marks(&spec.attributes, &data) } else { spec.marks };
        let mut attributes: [Vec<At>; ATTRIBUTES.len()] = Default::default();
        for (name, place) in spec.attributes {
            if let Some(at) = number(name) {
                attributes[at].push(self.at(place));
            }
        }
        let mut time = Unit::default();
        if let Some((place, unit)) = spec.time {
            attributes[TIME].push(self.at(place));
            time = unit;
        }
        let data = self.at(data);
        let trace = spec.trace.map(|trace| match trace {
            TraceSpec::Whole(place) => Trace::Whole(self.at(place)),
            TraceSpec::Parts { trace_id, parent_id } => {
                Trace::Parts { trace_id: self.at(trace_id), parent_id: self.at(parent_id) }
            }
        });
        let ext = spec.ext.into_iter().map(|ext| (ext.name, self.at(ext.place), ext.otherwise)).collect();
        let copies = spec.copies.into_iter().map(|(place, of)| (self.at(place), of)).collect();
        let rest = match &spec.room {
            Room::Fields => {
                self.open(&mut attributes, trace.is_some());
                Some(self.field(EXT))
            }
            Room::Members(field, _) => {
                self.field(field);
                None
            }
        };
        let parts = Parts {
            name: name.to_owned(),
            marks: marks.into_iter().map(|place| self.at(place)).collect(),
            names: self.fields.iter().map(|name| Bytes::from(name.clone())).collect(),
            fields: self.fields,
            attributes,
            trace,
            time,
            data,
            encoding,
            ext,
            copies,
            room: spec.room,
            rest,
        };
        check_bytes(&parts)?;
        Ok(parts)
    }

    /// Attributes without a place lie in fields of their names, where nothing else does.
    fn open(&mut self, attributes: &mut [Vec<At>; ATTRIBUTES.len()], traced: bool) {
        for (at, name) in ATTRIBUTES.iter().enumerate() {
            let placed = !attributes[at].is_empty() || (at == TRACEPARENT && traced);
            if !placed && !self.fields.iter().any(|field| field == name) {
                attributes[at].push(At::Field(self.field(name)));
            }
        }
    }

    fn at(&mut self, place: Place) -> At {
        match place {
            Place::Field(field) => At::Field(self.field(&field)),
            Place::Path(field, path) => At::Path(self.field(&field), path.into()),
            Place::Constant(text) => At::Constant(text),
        }
    }

    fn field(&mut self, name: &str) -> usize {
        self.fields.iter().position(|field| field == name).unwrap_or_else(|| {
            self.fields.push(name.to_owned());
            self.fields.len() - 1
        })
    }
}

fn number(attribute: &str) -> Option<usize> {
    ATTRIBUTES.iter().position(|name| *name == attribute)
}

fn marks(attributes: &[(&'static str, Place)], data: &Place) -> Vec<Place> {
    let kinds = attributes.iter().filter(|(name, _)| *name == "type").map(|(_, place)| place.clone());
    // Of several places of the type, one is enough.
    kinds.take(1).chain([data.clone()]).collect()
}

/// An element of a list is only read: it lies in the data, and is written with it.
pub(super) fn is_written(path: &[String]) -> bool {
    !path.iter().any(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Bytes and texts that are no JSON have nothing within them.
fn check_bytes(parts: &Parts) -> Result<(), SpecError> {
    let what = match parts.encoding {
        Encoding::Json => return Ok(()),
        Encoding::Text => "text",
        Encoding::Base64 => "bytes",
    };
    match &parts.data {
        At::Field(field) if parts.looks_into(*field) => Err(SpecError::WithinBytes(parts.fields[*field].clone(), what)),
        // Within JSON it is a text already.
        _ => Ok(()),
    }
}

impl Parts {
    /// Every place in which something lies.
    pub fn places(&self) -> impl Iterator<Item = &At> {
        let trace = match &self.trace {
            None => [None, None],
            Some(Trace::Whole(at)) => [Some(at), None],
            Some(Trace::Parts { trace_id, parent_id }) => [Some(trace_id), Some(parent_id)],
        };
        let ext = self.ext.iter().map(|(_, at, _)| at);
        let copies = self.copies.iter().map(|(at, _)| at);
        let attributes = self.attributes.iter().flatten();
        attributes.chain(trace.into_iter().flatten()).chain(ext).chain(copies).chain([&self.data])
    }

    /// Whether something lies within the JSON of `field`.
    pub fn looks_into(&self, field: usize) -> bool {
        self.places().any(|at| matches!(at, At::Path(of, _) if *of == field))
    }

    /// Whether something is written into the JSON of `field`, beside the data.
    pub fn writes_into(&self, field: usize) -> bool {
        self.places().any(|at| matches!(at, At::Path(of, path) if *of == field && is_written(path)))
    }

    /// A place as messages name it.
    pub fn show(&self, at: &At) -> String {
        match at {
            At::Constant(text) => format!("constant {text:?}"),
            At::Field(field) => format!("field {:?}", self.fields[*field]),
            At::Path(field, path) if self.fields[*field].is_empty() => format!("member {:?}", path.join("/")),
            At::Path(field, path) => format!("{:?} in field {:?}", path.join("/"), self.fields[*field]),
        }
    }
}
