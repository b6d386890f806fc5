//! Extension attributes as fields: texts are fields of their own, as other services write them; the rest lies together.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::layout::EXT;
use crate::event::Json;

/// Extension attributes that become fields of their own; where there are more, they lie together.
const FIELDS_MAX: usize = 256;

/// Members of `ext` by their names, each JSON.
pub(super) type Members = BTreeMap<String, Box<RawValue>>;

/// The members of `ext`; `None`: it is no object.
pub(super) fn members(ext: &Json) -> Option<Members> {
    serde_json::from_slice(ext.bytes()).ok()
}

/// Fields that begin so are the host's own notes.
pub(super) const HOST: &str = "moontide-";

/// Fields for `members`: those that are texts, and one for all others. No field is called like one of `taken`, or like one of
/// the host's.
pub(super) fn fields(
    members: Vec<(String, &RawValue)>,
    taken: &[String],
    add: &mut impl FnMut(Bytes, Bytes),
) -> Option<Json> {
    if members.len() > FIELDS_MAX {
        return Some(object(&members.into_iter().collect()));
    }
    let mut rest = BTreeMap::new();
    let free = |name: &String| !name.is_empty() && !name.starts_with(HOST) && !taken.contains(name);
    for (name, value) in members {
        match serde_json::from_str::<String>(value.get()) {
            Ok(text) if free(&name) => add(name.into(), text.into()),
            _ => drop(rest.insert(name, value)),
        }
    }
    (!rest.is_empty()).then(|| object(&rest))
}

/// The JSON object of all that has no place of its own: `rest`, and what lies together in the field [`EXT`].
///
/// # Errors
/// When that is no object.
pub(super) fn joined(together: Option<&Bytes>, rest: Members) -> Result<Option<Json>, String> {
    let Some(text) = together else {
        return Ok((!rest.is_empty()).then(|| object(&rest)));
    };
    let whole = Json::parse(text.clone()).map_err(|error| format!("field {EXT:?} is not JSON: {error}"))?;
    if rest.is_empty() && text.trim_ascii_start().starts_with(b"{") {
        return Ok(Some(whole));
    }
    let mut members = members(&whole).ok_or_else(|| format!("field {EXT:?} is no JSON object"))?;
    members.extend(rest);
    Ok(Some(object(&members)))
}

fn object<V: Serialize>(members: &BTreeMap<String, V>) -> Json {
    Json::trusted(serde_json::to_vec(members).expect("texts and JSON are always JSON"))
}

/// A text as a member.
pub(super) fn text(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).expect("a text is always JSON")
}
