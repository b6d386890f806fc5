//! `time.*`, and what `os.clock` and `os.time` answer: one clock, handed in.

use std::rc::Rc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mlua::{Lua, Table, Value};

use super::args::{duration, number, text, wrong};
use super::{Home, Problem, function};
use crate::clock::rfc3339;

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let time = lua.create_table()?;
    time.raw_set("now", function(lua, home, |_, home, ()| Ok(home.clock.now() as f64 / 1000.0))?)?;
    time.raw_set("parse", function(lua, home, |_, _, value| parse(&value))?)?;
    time.raw_set("format", function(lua, home, |_, _, value| format(&value))?)?;
    time.raw_set(
        "duration",
        function(lua, home, |_, _, value: Value| Ok(duration("time.duration", "text", &value)?.as_secs_f64()))?,
    )?;
    Ok(time)
}

/// Seconds since 1970; a time without a zone is UTC, as services write it.
fn parse(value: &Value) -> Result<f64, Problem> {
    let given = text("time.parse", "text", value)?;
    let zoned = given.parse::<Timestamp>();
    let parsed = zoned.or_else(|_| given.parse::<DateTime>()?.to_zoned(TimeZone::UTC).map(|at| at.timestamp()));
    let at = parsed.map_err(|_| wrong("time.parse", "text", "a time such as \"2026-11-21T00:24:00Z\"", value))?;
    Ok(at.as_millisecond() as f64 / 1000.0)
}

fn format(value: &Value) -> Result<String, Problem> {
    let millis = number("time.format", "seconds", value)? * 1000.0;
    if Timestamp::from_millisecond(millis as i64).is_err() {
        return Err(wrong("time.format", "seconds", "seconds since 1970, within the years -9999 to 9999", value));
    }
    Ok(rfc3339(millis.round() as i64))
}
