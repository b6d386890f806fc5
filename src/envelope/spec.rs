//! How a layout is described, by a preset or by the configuration: where in an entry each part of an event lies.

use super::MESSAGE;
use super::time::Unit;

/// Where something lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The whole of a field.
    Field(String),
    /// Within a field's JSON: names of members and numbers of elements.
    Path(String, Vec<String>),
    /// Nowhere: it is always this.
    Constant(String),
}

impl Place {
    /// Reads `field`, `field/member/0/member` or `=constant`; a message's own members are `/member`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(constant) = text.strip_prefix('=') {
            return Ok(Self::Constant(constant.to_owned()));
        }
        let (field, path) = text.split_once('/').unwrap_or((text, ""));
        if text.is_empty() {
            return Err("names no field; write a field, field/path, or =constant".into());
        }
        let path: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Ok(if path.is_empty() { Self::Field(field.to_owned()) } else { Self::Path(field.to_owned(), path) })
    }

    fn is_in_message(&self) -> bool {
        matches!(self, Self::Field(field) | Self::Path(field, _) if field == MESSAGE)
    }
}

/// How the payload lies in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON text.
    #[default]
    Json,
    /// Any text; the event's data is that text.
    Text,
    /// Any bytes; the event's data is their base64 text.
    Base64,
}

/// Where the W3C trace context lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceSpec {
    Whole(Place),
    /// Its two parts, in places of their own.
    Parts {
        trace_id: Place,
        parent_id: Place,
    },
}

/// A member of `ext` that lies elsewhere than in a field of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtSpec {
    pub name: &'static str,
    pub place: Place,
    pub otherwise: Otherwise,
}

/// What is written where an event lacks something; JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    Nothing,
    Json(&'static str),
    /// The subject, and where there is none, this.
    Subject(&'static str),
}

/// What is written once more for those who look for it there, and read by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    Attribute(usize),
    Constant(&'static str),
}

/// Where `ext` goes that has no place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Room {
    /// Fields of their own names; so do attributes without a place.
    #[default]
    Fields,
    /// Members of this object within a field.
    Members(String, Vec<String>),
}

/// What a layout is built from.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Places of attributes by their names; `type` may have several, of which the first that is there counts.
    pub attributes: Vec<(&'static str, Place)>,
    pub trace: Option<TraceSpec>,
    pub time: Option<(Place, Unit)>,
    pub data: Option<(Place, Encoding)>,
    pub(super) ext: Vec<ExtSpec>,
    pub(super) copies: Vec<(Place, Copied)>,
    pub(super) room: Room,
    /// What an entry has that has this layout; empty: the places of type and data.
    pub(super) marks: Vec<Place>,
}

impl Spec {
    /// A layout of somebody's own. One that looks into a message ([`MESSAGE`]) is for channels, and has room there.
    pub fn described(
        attributes: Vec<(&'static str, Place)>,
        trace: Option<TraceSpec>,
        time: Option<(Place, Unit)>,
        data: Option<(Place, Encoding)>,
    ) -> Self {
        let mut spec = Self { attributes, trace, time, data, ..Self::default() };
        if spec.places().any(Place::is_in_message) {
            spec.room = Room::Members(MESSAGE.to_owned(), Vec::new());
        }
        spec
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        let trace = match &self.trace {
            None => [None, None],
            Some(TraceSpec::Whole(place)) => [Some(place), None],
            Some(TraceSpec::Parts { trace_id, parent_id }) => [Some(trace_id), Some(parent_id)],
        };
        let attributes = self.attributes.iter().map(|(_, place)| place);
        let time = self.time.iter().map(|(place, _)| place);
        attributes.chain(trace.into_iter().flatten()).chain(time).chain(self.data.iter().map(|(place, _)| place))
    }
}

/// Why a [`Spec`] is no layout.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    #[error("says nowhere what the type is; write type = \"FIELD\" or type = \"=TYPE\"")]
    NoType,
    #[error("says nowhere where the data lies; write data = \"FIELD\"")]
    NoData,
    #[error("data lies somewhere, and is no constant; write data = \"FIELD\"")]
    ConstantData,
    #[error("data in {0:?} is {1}, so nothing else can lie within it")]
    WithinBytes(String, &'static str),
}
