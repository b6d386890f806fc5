//! An event: CloudEvents 1.0 attributes and JSON data, immutable.
//!
//! Owns what an event is, where an entry lies, and how types are matched. Knows nothing of wires, stores or scripts.
//! `data` stays JSON text until a script needs it, so that what is only forwarded is never parsed.

mod shape;
mod trail;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Error, IgnoredAny};
use serde_json::value::RawValue;

pub use trail::{TRAIL, Trail};

/// Longest event type, source, id or subject in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// A JSON document as text, known to be well-formed where it came through [`Json::parse`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Bytes);

impl Json {
    /// Takes `text` if it is one well-formed JSON document that scripts can be given: at most 128 levels deep, and no key
    /// twice in one object (errors of the category "data").
    pub fn parse(text: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_slice::<IgnoredAny>(&text)?;
        shape::check(&text).map_err(Error::custom)?;
        Ok(Self(text))
    }

    /// Takes `text` without looking: for what a store kept or an encoder just wrote.
    pub fn trusted(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// The text as bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text; what is not UTF-8 (possible only in [`Json::trusted`] input) is replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The text as part of another document, as it is. What was trusted and is no document becomes the text that it is.
    pub fn document(&self) -> Box<RawValue> {
        let text = self.text().into_owned();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        RawValue::from_string(text.clone()).or_else(|_| RawValue::from_string(quoted(&text))).unwrap_or_default()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// One event. Attributes as in CloudEvents 1.0; `kind` is the attribute `type`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unique within `source`.
    pub id: String,
    /// Who made it.
    pub source: String,
    /// The CloudEvents `type`.
    pub kind: String,
    pub subject: Option<String>,
    /// RFC 3339 text, as it came.
    pub time: Option<String>,
    pub dataschema: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Extension attributes and a layout's other fields: the text of one JSON object.
    pub ext: Option<Json>,
    /// The payload.
    pub data: Option<Json>,
}

impl Event {
    /// An event with nothing but what every event has.
    pub fn new(id: impl Into<String>, source: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            kind: kind.into(),
            subject: None,
            time: None,
            dataschema: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            ext: None,
            data: None,
        }
    }
}

/// Where an entry lies within its stream: a sequence number, or whatever pair of numbers the bus counts by
/// (Redis: milliseconds and sequence; Kafka: partition and offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u64, pub u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Which event types a handler asks for.
///
/// `order.created` is that type; `order.*` has one more segment; `order.**` any number of further segments; `Order*` is
/// one segment that begins so; `*` alone is everything. Case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TypePattern(Arc<str>);

/// Why a text is no type pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    #[error("an event type cannot be empty")]
    Empty,
    #[error("an event type has at most {ATTRIBUTE_BYTES_MAX} bytes")]
    TooLong,
    #[error("{0:?} cannot stand in an event type; letters, digits and . _ - : / can")]
    Character(char),
    #[error("`**` stands only at the end, after a dot: order.**")]
    DoubleStar,
    #[error("`*` stands for a segment or for the rest of one: order.*, *.created, Order*")]
    InnerStar,
}

impl TypePattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        check_characters(text, true)?;
        let segments: Vec<&str> = text.split('.').collect();
        for (at, segment) in segments.iter().enumerate() {
            match *segment {
                "**" if at == 0 || at + 1 != segments.len() => return Err(PatternError::DoubleStar),
                "**" => {}
                other if other.trim_end_matches('*').contains('*') || other.ends_with("**") => {
                    return Err(PatternError::InnerStar);
                }
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one type and no other.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether `kind` is asked for.
    pub fn matches(&self, kind: &str) -> bool {
        if self.is_exact() {
            return &*self.0 == kind;
        }
        &*self.0 == "*" || segments_match(&self.0, kind)
    }
}

fn segments_match(pattern: &str, kind: &str) -> bool {
    let mut have = kind.split('.');
    for want in pattern.split('.') {
        match (want, have.next()) {
            ("**", Some(_)) => return true,
            (_, None) => return false,
            (want, Some(have)) => match want.strip_suffix('*') {
                Some(prefix) if !have.starts_with(prefix) => return false,
                None if want != have => return false,
                _ => {}
            },
        }
    }
    have.next().is_none()
}

/// Checks that `kind` can be the type of an event: letters, digits and `. _ - : /`, 1 to 1,024 bytes.
pub fn check_type(kind: &str) -> Result<(), PatternError> {
    check_characters(kind, false)
}

fn check_characters(text: &str, stars: bool) -> Result<(), PatternError> {
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    if text.len() > ATTRIBUTE_BYTES_MAX {
        return Err(PatternError::TooLong);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c) || (stars && c == '*');
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(PatternError::Character(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_every_digit() {
        let text = r#"{"n":12345678901234567890123}"#;
        assert_eq!(Json::trusted(text).document().get(), text);
        assert_eq!(Json::trusted("no \"json").document().get(), r#""no \"json""#);
    }

    #[test]
    fn patterns_match_by_segment() {
        let cases = [
            ("order.created", "order.created", true),
            ("order.created", "Order.created", false),
            ("order.*", "order.created", true),
            ("order.*", "order.created.v2", false),
            ("order.*", "order", false),
            ("order.**", "order.created.v2", true),
            ("order.**", "order", false),
            ("*.created", "order.created", true),
            ("Checkout*", "CheckoutInitiated", true),
            ("Checkout*", "OrderCreated", false),
            ("*", "anything.at.all", true),
        ];
        for (pattern, kind, expected) in cases {
            let parsed = TypePattern::parse(pattern).expect("the pattern is valid");
            assert_eq!(parsed.matches(kind), expected, "{pattern} against {kind}");
        }
    }

    #[test]
    fn patterns_that_would_mislead_are_refused() {
        for (text, error) in [
            ("", PatternError::Empty),
            ("**", PatternError::DoubleStar),
            ("a.**.b", PatternError::DoubleStar),
            ("Check*out", PatternError::InnerStar),
            ("a.b**", PatternError::InnerStar),
            ("a b", PatternError::Character(' ')),
        ] {
            assert_eq!(TypePattern::parse(text), Err(error), "{text}");
        }
    }
}
