//! What makes two events the same: the idempotency key of a delivery.
//!
//! By default source and id. A path reads the event's JSON text without a VM; values are joined by `/`, and a `/` or `%`
//! within any value but the first is written `%2F`, `%25`, so that different values never make the same key. Numbers keep
//! the text they have in the document.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::Event;

/// Longest key in bytes.
pub(super) const KEY_BYTES_MAX: usize = 1024;
const ATTRIBUTES: [&str; 9] =
    ["id", "source", "type", "subject", "time", "dataschema", "correlation_id", "causation_id", "traceparent"];

/// Why an event has no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    /// The payload is not what it should be.
    #[error("{0}")]
    Undecodable(String),
    #[error("idempotency key: {0}")]
    Invalid(String),
}

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Field(&'a str),
    /// From 1, as in scripts.
    Item(usize),
}

/// Checks that `path` is one that [`from_paths`] can follow.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let steps = steps(path)?;
    match steps.as_slice() {
        [Step::Field("data" | "ext"), ..] => Ok(()),
        [Step::Field(name)] if ATTRIBUTES.contains(name) => Ok(()),
        [Step::Field(name), ..] if ATTRIBUTES.contains(name) => Err(format!("{name} is text and has no parts")),
        _ => Err(format!("a path begins with data, ext, {}", ATTRIBUTES.join(", "))),
    }
}

fn steps(path: &str) -> Result<Vec<Step<'_>>, String> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, mut items) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() {
            return Err("expected a path such as data.lines[1].sku".to_owned());
        }
        steps.push(Step::Field(name));
        while !items.is_empty() {
            let item = items.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let (digits, rest) = item.ok_or("expected an index such as [1]")?;
            let at = digits.parse().ok().filter(|at| *at > 0).ok_or("indices count from 1, as in scripts")?;
            steps.push(Step::Item(at));
            items = rest;
        }
    }
    Ok(steps)
}

/// The key by source and id.
pub(super) fn from_source_and_id(event: &Event) -> Result<String, KeyError> {
    join([event.source.clone(), event.id.clone()])
}

/// The key by the values behind `paths`.
pub(super) fn from_paths(event: &Event, paths: &[String]) -> Result<String, KeyError> {
    join(paths.iter().map(|path| value(event, path)).collect::<Result<Vec<_>, _>>()?)
}

/// The key as a script's function made it.
pub(super) fn from_text(text: String) -> Result<String, KeyError> {
    join([text])
}

fn join(values: impl IntoIterator<Item = String>) -> Result<String, KeyError> {
    let mut values = values.into_iter();
    let mut key = values.next().unwrap_or_default();
    for value in values {
        key.push('/');
        key.push_str(&value.replace('%', "%25").replace('/', "%2F"));
    }
    match key.len() {
        0 => Err(KeyError::Invalid("expected a value, got empty text".to_owned())),
        len if len > KEY_BYTES_MAX => {
            Err(KeyError::Invalid(format!("expected at most {KEY_BYTES_MAX} bytes, got {len}")))
        }
        _ => Ok(key),
    }
}

fn value(event: &Event, path: &str) -> Result<String, KeyError> {
    let invalid = |text: &str| KeyError::Invalid(format!("{path}: expected a text, a number or a boolean, got {text}"));
    let steps = steps(path).map_err(|error| KeyError::Invalid(format!("{path}: {error}")))?;
    let Some((Step::Field(first), rest)) = steps.split_first() else { return Err(invalid("no path")) };
    let json = match *first {
        "data" => event.data.as_ref(),
        "ext" => event.ext.as_ref(),
        name => return attribute(event, name).filter(|text| !text.is_empty()).ok_or_else(|| invalid("nothing")),
    };
    let Some(json) = json else { return Err(invalid("nothing")) };
    let mut document = serde_json::Deserializer::from_slice(json.bytes());
    let found = Follow(rest).deserialize(&mut document).and_then(|found| document.end().map(|()| found));
    let found = found.map_err(|error| KeyError::Undecodable(format!("{first} is not JSON: {error}")))?;
    let text = found.ok_or_else(|| invalid("nothing"))?;
    scalar(text.get()).map_err(invalid)
}

fn attribute(event: &Event, name: &str) -> Option<String> {
    match name {
        "id" => Some(event.id.clone()),
        "source" => Some(event.source.clone()),
        "type" => Some(event.kind.clone()),
        "subject" => event.subject.clone(),
        "time" => event.time.clone(),
        "dataschema" => event.dataschema.clone(),
        "correlation_id" => event.correlation_id.clone(),
        "causation_id" => event.causation_id.clone(),
        "traceparent" => event.traceparent.clone(),
        _ => None,
    }
}

/// The scalar that a JSON text is, or what it is instead.
fn scalar(text: &str) -> Result<String, &'static str> {
    match text.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(text) if text.is_empty() => Err("empty text"),
            Ok(text) => Ok(text),
            Err(_) => Err("text that is not Unicode"),
        },
        Some(b'{') => Err("an object"),
        Some(b'[') => Err("an array"),
        Some(b'n') | None => Err("null"),
        Some(_) => Ok(text.to_owned()),
    }
}

/// Follows the steps into a document and takes the text of what lies there; the rest is only checked. Of duplicate
/// fields the last one counts, as for scripts.
struct Follow<'a>(&'a [Step<'a>]);

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = Option<Box<RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return serde::Deserialize::deserialize(from).map(Some);
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = Option<Box<RawValue>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.split_first() {
                Some((Step::Field(name), rest)) if *name == key => found = map.next_value_seed(Follow(rest))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut found = None;
        if let Some((Step::Item(wanted), rest)) = self.0.split_first() {
            for _ in 1..*wanted {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            found = seq.next_element_seed(Follow(rest))?.flatten();
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Json;

    fn event(data: &str) -> Event {
        Event { data: Some(Json::trusted(data.to_owned())), ..Event::new("a/1", "/shop", "order") }
    }

    #[test]
    fn keys_are_the_values_behind_the_paths() {
        let event = event(r#"{"a": {"b": [{"c": "x/y"}, {"c": 12345678901234567890}]}, "n": 1.50, "t": true}"#);
        let key = |paths: &[&str]| from_paths(&event, &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        assert_eq!(key(&["data.a.b[1].c"]).as_deref(), Ok("x/y"));
        assert_eq!(key(&["data.a.b[2].c"]).as_deref(), Ok("12345678901234567890"));
        assert_eq!(key(&["data.n", "data.a.b[1].c", "id"]).as_deref(), Ok("1.50/x%2Fy/a%2F1"));
        assert_eq!(key(&["data.t", "type"]).as_deref(), Ok("true/order"));
        assert_eq!(from_source_and_id(&event).as_deref(), Ok("/shop/a%2F1"));
    }

    #[test]
    fn what_is_missing_or_no_scalar_is_named_by_its_path() {
        let cases = [
            ("data.x", "got nothing"),
            ("data.a.b[3]", "got nothing"),
            ("data.a.b[1].c.d", "got nothing"),
            ("data.a", "got an object"),
            ("data.a.b", "got an array"),
            ("data.null", "got null"),
            ("data.empty", "got empty text"),
            ("data", "got an object"),
            ("subject", "got nothing"),
            ("ext.tenant", "got nothing"),
        ];
        let event = event(r#"{"a": {"b": [{"c": 1}, 2]}, "null": null, "empty": ""}"#);
        for (path, expected) in cases {
            let error = from_paths(&event, &[path.to_owned()]).expect_err(path).to_string();
            assert!(error.contains(path) && error.ends_with(expected), "{path}: {error}");
        }
    }

    #[test]
    fn a_broken_document_is_undecodable_wherever_the_path_leads() {
        for broken in ["{\"id\": 1,}", "{\"id\": 1} x", "", "{\"id\": 1, \"b\": tru}"] {
            let error = from_paths(&event(broken), &["data.id".to_owned()]).expect_err(broken);
            assert!(matches!(error, KeyError::Undecodable(_)), "{broken}: {error:?}");
        }
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused_at_load() {
        for path in ["data", "data.a.b[1].c", "subject", "ext.tenant", "data.l[1][2]"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for path in ["", "dat.a", "data..a", "data.a[0]", "data.a[x]", "data.a[1", "id.x", "data.a[1]b", "event.data"] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }
}
