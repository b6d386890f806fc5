//! Takes answers of the server apart.
//!
//! Nothing is trusted to have the form that we expect: what has another one is a fault that says so.

use bytes::Bytes;
use redis::Value;

use super::entry::Fields;
use super::fault::Fault;
use crate::clock::Millis;
use crate::event::EntryId;

fn unexpected(what: &str, value: &Value) -> Fault {
    Fault::Away(format!("its answer is not {what}: {value:.80?}"))
}

/// A list.
pub(super) fn list(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(values) | Value::Set(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected("a list", &other)),
    }
}

/// Bytes; `None` where there is nothing.
pub(super) fn bytes(value: Value) -> Result<Option<Bytes>, Fault> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) => Ok(Some(text.into())),
        Value::Okay => Ok(Some(Bytes::from_static(b"OK"))),
        Value::Int(number) => Ok(Some(number.to_string().into())),
        Value::Nil => Ok(None),
        other => Err(unexpected("a text", &other)),
    }
}

/// A text.
pub(super) fn text(value: Value) -> Result<String, Fault> {
    let bytes = bytes(value)?.unwrap_or_default();
    String::from_utf8(bytes.into()).map_err(|error| Fault::Away(format!("its answer is no text: {error}")))
}

/// A whole number.
pub(super) fn int(value: &Value) -> Result<i64, Fault> {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| unexpected("a number", value))
}

/// An entry's id.
pub(super) fn entry_id(value: Value) -> Result<EntryId, Fault> {
    let text = text(value)?;
    parse_id(&text).ok_or_else(|| Fault::Away(format!("its answer is no entry id: {text:.80}")))
}

/// The answer of TIME in milliseconds.
pub(super) fn time(answer: Value) -> Result<Millis, Fault> {
    let parts = list(answer)?.iter().map(int).collect::<Result<Vec<_>, _>>()?;
    match parts[..] {
        [seconds, micros] => Ok(seconds * 1000 + micros / 1000),
        _ => Err(Fault::Away("it does not tell the time".into())),
    }
}

/// Reads `ms-seq`.
pub(super) fn parse_id(text: &str) -> Option<EntryId> {
    let (ms, seq) = text.split_once('-')?;
    Some(EntryId(ms.parse().ok()?, seq.parse().ok()?))
}

/// Names and values that alternate.
pub(super) fn pairs(value: Value) -> Result<Vec<(Bytes, Bytes)>, Fault> {
    let mut pairs = Vec::new();
    let mut values = match value {
        Value::Map(entries) => entries.into_iter().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>(),
        other => list(other)?,
    }
    .into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        pairs.push((bytes(name)?.unwrap_or_default(), bytes(value)?.unwrap_or_default()));
    }
    Ok(pairs)
}

/// One entry of a stream; the fields are missing where the entry was deleted while it was pending.
pub(super) fn entry(value: Value) -> Result<(EntryId, Option<Fields>), Fault> {
    let mut parts = list(value)?.into_iter();
    let id = entry_id(parts.next().unwrap_or_default())?;
    let fields = match parts.next() {
        None | Some(Value::Nil) => None,
        Some(fields) => Some(pairs(fields)?),
    };
    Ok((id, fields))
}
