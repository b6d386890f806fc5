//! `metrics.*`: part of the effects, so counted once, when the run is committed.

use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::args::{number, text, wrong};
use super::ctx::running;
use super::{Home, Problem, action, over_limit};
use crate::outcome::{Measure, MeasureKind};

const LABELS_MAX: usize = 10;
const LABEL_BYTES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 128;

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let metrics = lua.create_table()?;
    for (key, name, kind) in [
        ("count", "metrics.count", MeasureKind::Count),
        ("gauge", "metrics.gauge", MeasureKind::Gauge),
        ("observe", "metrics.observe", MeasureKind::Observe),
    ] {
        metrics.raw_set(key, action(lua, home, move |_, home, args| measure(home, (name, kind), args))?)?;
    }
    Ok(metrics)
}

fn measure(home: &Home, (function, kind): (&str, MeasureKind), args: (Value, Value, Value)) -> Result<(), Problem> {
    let (name, value, labels) = args;
    let run = running(home, function)?;
    let metric = text(function, "name", &name)?;
    if !is_name(&metric, ":") {
        return Err(wrong(function, "name", "letters, digits, _ and :, not beginning with a digit", &name));
    }
    let n = match (kind, &value) {
        (MeasureKind::Count, Value::Nil) => 1.0,
        _ => number(function, if kind == MeasureKind::Count { "n" } else { "value" }, &value)?,
    };
    if kind == MeasureKind::Count && n < 0.0 {
        return Err(wrong(function, "n", "0 or more: a count never falls", &value));
    }
    let measure = Measure { kind, name: metric, value: n, labels: read_labels(function, &labels)? };
    let taken = run.buffer.borrow_mut().measure(measure);
    taken.map_err(|over| over_limit(&run, &over))
}

fn read_labels(function: &str, labels: &Value) -> Result<Vec<(String, String)>, Problem> {
    let table = match labels {
        Value::Nil => return Ok(Vec::new()),
        Value::Table(table) => table,
        other => return Err(wrong(function, "labels", "a table or nothing", other)),
    };
    let mut read = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (label, value) = pair?;
        let name = text(function, "labels", &label)?;
        if !is_name(&name, "") || name.starts_with("__") {
            return Err(wrong(function, "labels", "names of letters, digits and _", &label));
        }
        if !matches!(value, Value::String(_) | Value::Integer(_) | Value::Number(_) | Value::Boolean(_)) {
            return Err(wrong(function, &format!("labels.{name}"), "text, a number or a boolean", &value));
        }
        read.push((name, cut_exactly(value.to_string()?)));
    }
    if read.len() > LABELS_MAX {
        return Err(Problem::Wrong(format!("{function}: labels: expected at most {LABELS_MAX}, got {}", read.len())));
    }
    read.sort_unstable();
    Ok(read)
}

fn cut_exactly(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LABEL_BYTES_MAX));
    text
}

fn is_name(name: &str, also: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || also.contains(c);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(allowed)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
