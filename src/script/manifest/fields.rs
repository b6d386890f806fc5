//! Reading one field of a header, and gathering what is wrong with all of them.
//!
//! Each reader says what it expected and what it got; [`Problems`] puts the key in front.

use std::time::Duration;

use mlua::{Table, Value};

use crate::nearest::nearest;
use crate::script::api::describe;
use crate::units;

/// What is wrong with a header.
#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    /// `key` is wrong: `text` says how. An empty key is the header as a whole.
    pub fn add(&mut self, key: &str, text: String) {
        self.0.push(if key.is_empty() { text } else { format!("{key}: {text}") });
    }

    pub fn into_list(self) -> Vec<String> {
        self.0
    }

    /// `manifest`, if nothing is wrong with it.
    pub fn check<T>(self, manifest: T) -> Result<T, Vec<String>> {
        if self.0.is_empty() { Ok(manifest) } else { Err(self.0) }
    }

    /// Refuses every key of `table` that is neither known nor a word of a later version.
    pub fn keys(&mut self, table: &Table, section: &str, known: &[&'static str], later: &[&'static str]) {
        let place = |key: &str| if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        let mut wrong = Vec::new();
        for key in table.pairs::<Value, Value>().flatten().map(|pair| pair.0) {
            let Some(key) = key.as_string().map(|key| key.to_string_lossy()) else {
                wrong.push((section.to_owned(), format!("expected only named keys, got {}", describe(&key))));
                continue;
            };
            if later.contains(&key.as_str()) {
                wrong.push((place(&key), "not available in this version".to_owned()));
            } else if !known.contains(&key.as_str()) {
                wrong.push((place(&key), unknown(&key, known, later)));
            }
        }
        wrong.sort_unstable();
        wrong.into_iter().for_each(|(key, text)| self.add(&key, text));
    }

    /// The raw field behind the last segment of `key`.
    pub fn raw(&self, table: &Table, key: &str) -> Value {
        table.raw_get(key.rsplit('.').next().unwrap_or(key)).unwrap_or(Value::Nil)
    }

    /// The field, or `default` where it is absent or wrong.
    pub fn field<T>(
        &mut self,
        table: &Table,
        key: &str,
        default: T,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> T {
        let value = self.raw(table, key);
        if value.is_nil() {
            return default;
        }
        read(&value).unwrap_or_else(|text| {
            self.add(key, text);
            default
        })
    }

    /// A table within the table.
    pub fn section<T>(&mut self, table: &Table, key: &str, default: T, read: impl FnOnce(&Table, &mut Self) -> T) -> T {
        match self.raw(table, key) {
            Value::Nil => default,
            Value::Table(section) => read(&section, self),
            other => {
                self.add(key, format!("expected a table, got {}", describe(&other)));
                default
            }
        }
    }
}

fn unknown(key: &str, known: &[&'static str], later: &[&'static str]) -> String {
    match nearest(key, known.iter().chain(later).copied()) {
        Some(near) => format!("no such key; {near} is near"),
        None => format!("no such key; there are {}", known.join(", ")),
    }
}

pub(super) fn text(value: &Value) -> Result<String, String> {
    let text = value.as_string().and_then(|text| text.to_str().ok().map(|text| text.to_owned()));
    text.ok_or_else(|| format!("expected text, got {}", describe(value)))
}

/// One text or a list of texts.
pub(super) fn list(value: &Value) -> Result<Vec<String>, String> {
    let Some(table) = value.as_table() else { return text(value).map(|text| vec![text]) };
    let items = table.sequence_values::<Value>().map(|item| match item {
        Ok(item) => text(&item),
        Err(error) => Err(error.to_string()),
    });
    let items: Vec<String> = items.collect::<Result<_, _>>()?;
    if items.len() != table.pairs::<Value, Value>().count() {
        return Err("expected a list of texts, got a table with other keys".to_owned());
    }
    Ok(items)
}

pub(super) fn quantity_of_time(value: &Value) -> Result<Duration, String> {
    let read = match value {
        Value::String(text) => units::duration(&text.to_string_lossy()).map_err(|error| error.to_string()),
        Value::Integer(n) => Err(format!("{n} has no unit; write \"{n}s\"")),
        Value::Number(n) => Err(format!("{n} has no unit; write \"{n}s\"")),
        other => Err(format!("expected a duration such as \"30s\", got {}", describe(other))),
    }?;
    if read.is_zero() { Err("expected more than nothing, such as \"30s\"".to_owned()) } else { Ok(read) }
}

/// A size of at most `most` bytes.
pub(super) fn size(value: &Value, most: usize) -> Result<usize, String> {
    let read = match value {
        Value::String(text) => units::bytes(&text.to_string_lossy()).map_err(|error| error.to_string()),
        Value::Integer(n) => Err(format!("{n} has no unit; write \"{n} MiB\"")),
        Value::Number(n) => Err(format!("{n} has no unit; write \"{n} MiB\"")),
        other => Err(format!("expected a size such as \"64 MiB\", got {}", describe(other))),
    }?;
    match usize::try_from(read) {
        Ok(0) => Err("expected more than nothing, such as \"64 MiB\"".to_owned()),
        Ok(read) if read <= most => Ok(read),
        _ => Err(format!("expected at most \"{}\", the operator's limit", units::show_bytes(most as u64))),
    }
}

pub(super) fn whole(value: &Value, least: usize, most: usize) -> Result<usize, String> {
    let n = match value {
        Value::Integer(n) => usize::try_from(*n).ok(),
        _ => None,
    };
    let n = n.filter(|n| (least..=most).contains(n));
    n.ok_or_else(|| format!("expected a whole number from {least} to {most}, got {}", describe(value)))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Number(n) => Some(*n),
        _ => None,
    }
}

/// A number from 0 to 1.
pub(super) fn share(value: &Value) -> Result<f64, String> {
    let n = number(value).filter(|n| (0.0..=1.0).contains(n));
    n.ok_or_else(|| format!("expected a number from 0 to 1, got {}", describe(value)))
}

/// A finite number of at least `least`.
pub(super) fn positive(value: &Value, least: f64) -> Result<f64, String> {
    let n = number(value).filter(|n| n.is_finite() && *n >= least);
    n.ok_or_else(|| format!("expected a number of at least {least}, got {}", describe(value)))
}
