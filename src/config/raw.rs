//! Reading raw values key by key, collecting everything that is wrong on the way.
//!
//! A [`Table`] remembers which keys were asked for; what is left over when it is closed is unknown. A wrong value is noted
//! and answered with a stand-in, so that checking goes on; whoever reads must throw the result away if there are problems.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use figment::value::{Dict, Num, Tag, Value};

use super::layers::Layers;
use super::problem::{Origin, Problem};
use crate::nearest::nearest;
use crate::units;

/// What is being checked, and what was found so far.
pub struct Checker {
    pub layers: Layers,
    pub problems: RefCell<Vec<Problem>>,
}

impl Checker {
    /// Notes that the value of `key` is wrong.
    pub fn problem(&self, origin: Origin, key: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { origin, key: key.into(), message: message.into() });
    }
}

/// One table of the configuration.
pub struct Table<'a> {
    pub checker: &'a Checker,
    /// Dotted key of the table itself; empty for the root.
    path: String,
    values: Option<&'a Dict>,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The whole document.
    pub fn root(checker: &'a Checker) -> Self {
        Self { checker, path: String::new(), values: Some(&checker.layers.root), asked: Vec::new() }
    }

    /// A table that is an element of a list or has a name of the user's own.
    pub fn of(checker: &'a Checker, path: String, value: &'a Value) -> Self {
        let table = Self { checker, path, values: value.as_dict(), asked: Vec::new() };
        if table.values.is_none() {
            table.wrong("", value, format!("must be a table, not {}", show(value)));
        }
        table
    }

    /// The table `key`; without it, an empty one.
    pub fn table(&mut self, key: &'static str) -> Table<'a> {
        let path = self.path(key);
        match self.get(key) {
            Some(value) => Table::of(self.checker, path, value),
            None => Table { checker: self.checker, path, values: None, asked: Vec::new() },
        }
    }

    /// The value of `key`, whatever it is.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.push(key);
        self.values?.get(key)
    }

    /// All values of a table whose keys are the user's own, each with its dotted key.
    pub fn entries(&self) -> Vec<(&'a str, String, &'a Value)> {
        let values = self.values.into_iter().flatten();
        values.map(|(name, value)| (name.as_str(), self.path(&quoted(name)), value)).collect()
    }

    /// The elements of the list of tables `key`.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        let path = self.path(key);
        match self.get(key) {
            None => Vec::new(),
            Some(Value::Array(_, list)) => {
                let element = |(at, value)| Table::of(self.checker, format!("{path} #{}", at + 1), value);
                list.iter().enumerate().map(element).collect()
            }
            Some(other) => {
                self.wrong(key, other, format!("must be a list of tables: write [[{path}]]"));
                Vec::new()
            }
        }
    }

    /// A text; empty if it is wrong.
    pub fn text(&mut self, key: &'static str) -> String {
        self.need(key, |table| table.optional(key, "a text", |value| Ok(value.as_str().map(str::to_owned))))
    }

    /// One of a few texts.
    pub fn choice<T: Copy + Default>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let what = one_of(&names);
        let pick = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            Ok(choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice))
        };
        self.need(key, |table| table.optional(key, &what, pick))
    }

    /// True or false.
    pub fn truth(&mut self, key: &'static str) -> bool {
        self.need(key, |table| {
            table.optional(key, "true or false", |value| Ok(value.to_bool().or_else(|| value.as_str()?.parse().ok())))
        })
    }

    /// True or false, if the key is there.
    pub fn optional_truth(&mut self, key: &'static str) -> Option<bool> {
        self.optional(key, "true or false", |value| Ok(value.to_bool()))
    }

    /// A duration of at least `least`.
    pub fn duration(&mut self, key: &'static str, least: Duration) -> Duration {
        self.need(key, |table| table.optional_duration(key, least))
    }

    /// A duration, or `"off"`: `Some(None)`.
    pub fn optional_duration_or_off(&mut self, key: &'static str) -> Option<Option<Duration>> {
        self.optional(key, "a duration like \"7d\", or \"off\"", |value| match value.as_str() {
            Some("off") => Ok(Some(None)),
            _ => Ok(read_duration(value, Duration::from_millis(1))?.map(Some)),
        })
    }

    /// A duration of at least `least`, if the key is there.
    pub fn optional_duration(&mut self, key: &'static str, least: Duration) -> Option<Duration> {
        self.optional(key, "a duration like \"30s\"", |value| read_duration(value, least))
    }

    /// A size in bytes of at least `least`, if the key is there.
    pub fn optional_bytes(&mut self, key: &'static str, least: usize) -> Option<usize> {
        self.optional(key, "a size like \"64 MiB\"", |value| {
            let Some(text) = with_unit(value) else { return Ok(None) };
            let bytes = units::bytes(&text).map_err(|error| error.to_string())?;
            match usize::try_from(bytes) {
                Ok(bytes) if bytes >= least => Ok(Some(bytes)),
                _ => Err(format!("{} is too little; at least \"{}\"", show(value), units::show_bytes(least as u64))),
            }
        })
    }

    /// A whole number within `range`, if the key is there.
    pub fn optional_count(&mut self, key: &'static str, range: RangeInclusive<usize>) -> Option<usize> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let text = self.is_variable(key);
        self.optional(key, &what, |value| Ok(whole(value, text).filter(|number| range.contains(number))))
    }

    /// A number within `range`, if the key is there.
    pub fn optional_number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        let text = self.is_variable(key);
        self.optional(key, &what, |value| Ok(number(value, text).filter(|number| range.contains(number))))
    }

    /// A whole number, or `"off"`: `Some(None)`.
    pub fn optional_count_or_off(&mut self, key: &'static str) -> Option<Option<u64>> {
        let text = self.is_variable(key);
        self.optional(key, "a whole number above 0, or \"off\"", |value| match value.as_str() {
            Some("off") => Ok(Some(None)),
            _ => Ok(whole(value, text).filter(|number| *number > 0).map(|number| Some(number as u64))),
        })
    }

    /// A list of texts, if the key is there.
    pub fn optional_texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.optional(key, "a list of texts: [\"a\", \"b\"]", |value| {
            let element = |value: &Value| value.as_str().map(str::to_owned);
            Ok(value.as_array().and_then(|list| list.iter().map(element).collect()))
        })
    }

    /// What `read` makes of the value of `key`: `None` when it is not `what`, an error with a message of its own.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&Value) -> Result<Option<T>, String>,
    ) -> Option<T> {
        let value = self.get(key)?;
        match read(value) {
            Ok(Some(read)) => return Some(read),
            Ok(None) => self.wrong(key, value, format!("must be {what}, not {}", show(value))),
            Err(message) => self.wrong(key, value, message),
        }
        None
    }

    /// What `read` finds, or a stand-in; that the key is missing is a problem.
    pub fn need<T: Default>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> Option<T>) -> T {
        let found = read(self);
        if self.values.is_some_and(|values| !values.contains_key(key)) {
            self.note(key, "is missing");
        }
        found.unwrap_or_default()
    }

    /// Notes a problem with the value of `key` (or, where it is not there, with the table).
    pub fn note(&self, key: &str, message: impl Into<String>) {
        let path = self.path(key);
        let tag = self.values.and_then(|values| values.get(key).or_else(|| values.values().next())).map(Value::tag);
        self.checker.problem(self.origin(tag, &path), &path, message);
    }

    /// Notes a problem between several keys, at the first one that the user set.
    pub fn note_among(&self, keys: &[&str], message: impl Into<String>) {
        let is_set = |key: &&&str| {
            let value = self.values.and_then(|values| values.get(**key));
            value.is_some_and(|value| self.origin(Some(value.tag()), key) != Origin::Default)
        };
        let blamed = keys.iter().find(is_set).or(keys.first());
        self.note(blamed.copied().unwrap_or_default(), message);
    }

    /// Says which keys nobody asked for.
    pub fn close(self) {
        for (key, value) in self.values.into_iter().flatten() {
            if self.asked.contains(&key.as_str()) {
                continue;
            }
            let message = match nearest(key, self.asked.iter().copied()) {
                Some(near) => format!("is no key; did you mean {near}?"),
                None => format!("is no key; there are {}", self.asked.join(", ")),
            };
            self.wrong(&quoted(key), value, message);
        }
    }

    /// Where the value of `key` was set.
    pub fn origin_of(&self, key: &str) -> Origin {
        let tag = self.values.and_then(|values| values.get(key)).map(Value::tag);
        self.origin(tag, &self.path(key))
    }

    /// Whether `key` has a value that is not the default.
    pub fn is_set(&self, key: &str) -> bool {
        self.values.is_some_and(|values| values.contains_key(key)) && self.origin_of(key) != Origin::Default
    }

    /// Whether `key` was set by a variable, which knows nothing but text.
    pub fn is_variable(&self, key: &str) -> bool {
        let tag = self.values.and_then(|values| values.get(key)).map(Value::tag);
        matches!(self.origin(tag, key), Origin::Variable(_))
    }

    fn wrong(&self, key: &str, value: &Value, message: String) {
        let path = self.path(key);
        self.checker.problem(self.origin(Some(value.tag()), &path), &path, message);
    }

    fn origin(&self, tag: Option<Tag>, path: &str) -> Origin {
        tag.map_or_else(|| self.checker.layers.file(), |tag| self.checker.layers.origin(tag, path))
    }

    /// The dotted key of `key`.
    pub fn path(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

/// A value as the user wrote it, or nearly so.
pub fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(_, number) => show_number(*number),
        Value::Dict(..) => "a table".into(),
        Value::Array(..) => "a list".into(),
        Value::Char(..) | Value::Empty(..) => "nothing".into(),
    }
}

/// A number as text.
pub fn show_number(number: Num) -> String {
    match (number.to_i128(), number.to_u128(), number.to_f64()) {
        (Some(whole), ..) => whole.to_string(),
        (_, Some(whole), _) => whole.to_string(),
        (.., decimal) => decimal.unwrap_or_default().to_string(),
    }
}

fn read_duration(value: &Value, least: Duration) -> Result<Option<Duration>, String> {
    let Some(text) = with_unit(value) else { return Ok(None) };
    let read = units::duration(&text).map_err(|error| error.to_string())?;
    if read < least {
        return Err(format!("{} is too short; at least \"{}\"", show(value), units::show_duration(least)));
    }
    Ok(Some(read))
}

/// The text that should carry a unit; a bare number is one that lacks it.
fn with_unit(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Num(_, number) => Some(show_number(*number)),
        _ => None,
    }
}

/// A whole number; a text is read as one where `text` says so.
fn whole(value: &Value, text: bool) -> Option<usize> {
    match value {
        Value::Num(_, number) => number.to_u128().or_else(|| u128::try_from(number.to_i128()?).ok())?.try_into().ok(),
        Value::String(_, digits) if text => digits.parse().ok(),
        _ => None,
    }
}

/// A number; a text is read as one where `text` says so.
fn number(value: &Value, text: bool) -> Option<f64> {
    match value {
        Value::Num(_, number) => number.to_f64().or_else(|| Some(number.to_i128()? as f64)),
        Value::String(_, digits) if text => digits.parse().ok(),
        _ => None,
    }
}

fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("one of {}", quoted.join(", "))
}
