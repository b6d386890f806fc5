//! Reading arguments, and the one form in which a wrong one is refused: function, argument, expected, got.
//!
//! The line is put in front by whoever throws. Numbers where a unit is needed are refused, as everywhere.

use std::time::Duration;

use mlua::{Table, Value};

use super::Problem;
use crate::units;

/// Longest part of a value that a message quotes, in bytes.
const QUOTED_BYTES_MAX: usize = 40;

/// The refusal of an argument.
pub(super) fn wrong(function: &str, argument: &str, expected: &str, got: &Value) -> Problem {
    Problem::Wrong(format!("{function}: {argument}: expected {expected}, got {}", describe(got)))
}

/// A value as messages name it: `number 30`, `text "abc"`, `a table`.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Boolean(truth) => format!("boolean {truth}"),
        Value::Integer(n) => format!("number {n}"),
        Value::Number(n) => format!("number {n}"),
        Value::String(text) => format!("text {:?}", cut(&text.to_string_lossy(), QUOTED_BYTES_MAX)),
        value if value.is_null() => "json.null".to_owned(),
        other => format!("a {}", other.type_name()),
    }
}

/// `text`, or its beginning of at most `bytes_max` bytes and an ellipsis.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    match text.len() <= bytes_max {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(bytes_max)]),
    }
}

/// Checks that a method was called with a colon.
pub(super) fn method(function: &str, own: &Value) -> Result<(), Problem> {
    if own.is_table() {
        return Ok(());
    }
    let dotted = function.replace(':', ".");
    Err(Problem::Wrong(format!("{dotted}: self: expected a call with a colon, {function}(…), got {}", describe(own))))
}

/// Text that must be there.
pub(super) fn text(function: &str, argument: &str, value: &Value) -> Result<String, Problem> {
    let utf8 = value.as_string().and_then(|text| text.to_str().ok());
    utf8.map(|text| text.to_owned()).ok_or_else(|| wrong(function, argument, "text", value))
}

/// Text that may be absent.
pub(super) fn optional_text(function: &str, argument: &str, value: &Value) -> Result<Option<String>, Problem> {
    if value.is_nil() { Ok(None) } else { text(function, argument, value).map(Some) }
}

/// A finite number.
pub(super) fn number(function: &str, argument: &str, value: &Value) -> Result<f64, Problem> {
    let number = match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Number(n) if n.is_finite() => Some(*n),
        _ => None,
    };
    number.ok_or_else(|| wrong(function, argument, "a finite number", value))
}

/// A duration as text with its unit.
pub(super) fn duration(function: &str, argument: &str, value: &Value) -> Result<Duration, Problem> {
    let expected = "a duration such as \"30s\"";
    let Some(given) = value.as_string() else { return Err(wrong(function, argument, expected, value)) };
    let read = units::duration(&given.to_string_lossy());
    read.map_err(|error| Problem::Wrong(format!("{function}: {argument}: expected {expected}, got {error}")))
}

/// The options in the last argument; every key must be one of `keys`.
pub(super) fn options(function: &str, value: &Value, keys: &[&str]) -> Result<Option<Table>, Problem> {
    let table = match value {
        Value::Nil => return Ok(None),
        Value::Table(table) => table,
        other => return Err(wrong(function, "opts", "a table or nothing", other)),
    };
    for pair in table.pairs::<Value, Value>() {
        let key = pair?.0;
        if !key.as_string().is_some_and(|key| keys.iter().any(|known| key.as_bytes() == known.as_bytes())) {
            return Err(wrong(function, "opts", &format!("only the keys {}", keys.join(", ")), &key));
        }
    }
    Ok(Some(table.clone()))
}
