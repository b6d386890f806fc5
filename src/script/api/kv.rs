//! `ctx.kv`: state, read from the ledger and written by the settle.
//!
//! A read sees the run's own writes, then what it read before, then the store; what the store said is remembered for the
//! settle's check. Keys on which runs collided are entered one run at a time.

use std::rc::Rc;

use bytes::Bytes;
use mlua::{Lua, Table, Value};

use super::args::{duration, method, number, options, text, wrong};
use super::ctx::{deciding, encode};
use super::{Home, Problem, action, over_limit, waiting};
use crate::bus::BusError;
use crate::failpoint;
use crate::outcome::{Outcome, Release, STATE_KEY_BYTES_MAX};
use crate::script::buffer::{self, Known};
use crate::script::convert::{DecodeError, Exact};
use crate::script::run::Run;

const KEYS_MAX: usize = 1000;

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let kv = lua.create_table()?;
    kv.raw_set("get", waiting(lua, home, get)?)?;
    kv.raw_set("get_many", waiting(lua, home, get_many)?)?;
    kv.raw_set("set", action(lua, home, |lua, home, args| set(lua, home, args))?)?;
    kv.raw_set("delete", action(lua, home, |_, home, args| delete(home, args))?)?;
    kv.raw_set("add", action(lua, home, |_, home, args| add(home, args))?)?;
    Ok(kv)
}

async fn get(lua: Lua, home: Rc<Home>, (own, key): (Value, Value)) -> Result<Exact, Problem> {
    const GET: &str = "ctx.kv:get";
    method(GET, &own)?;
    let run = deciding(&home, GET)?;
    let key = checked_key(&home, GET, &key)?;
    read(&run, GET, std::slice::from_ref(&key)).await?;
    see(&lua, &home, &run, GET, &key)
}

async fn get_many(lua: Lua, home: Rc<Home>, (own, keys): (Value, Value)) -> Result<Table, Problem> {
    const GET_MANY: &str = "ctx.kv:get_many";
    method(GET_MANY, &own)?;
    let run = deciding(&home, GET_MANY)?;
    let Value::Table(list) = &keys else { return Err(wrong(GET_MANY, "keys", "a list of keys", &keys)) };
    if list.raw_len() > KEYS_MAX {
        return Err(Problem::Wrong(format!("{GET_MANY}: keys: expected at most {KEYS_MAX}, got {}", list.raw_len())));
    }
    let mut keys = Vec::with_capacity(list.raw_len());
    for key in list.sequence_values::<Value>() {
        keys.push(checked_key(&home, GET_MANY, &key?)?);
    }
    read(&run, GET_MANY, &keys).await?;
    let found = lua.create_table()?;
    for key in &keys {
        found.raw_set(key.as_str(), see(&lua, &home, &run, GET_MANY, key)?)?;
    }
    Ok(found)
}

/// Sees to it that the run knows all `keys`, with one question to the ledger at most.
async fn read(run: &Rc<Run>, function: &str, keys: &[String]) -> Result<(), Problem> {
    let mut unknown: Vec<String> = keys.to_vec();
    unknown.retain(|key| matches!(run.buffer.borrow().known(key), Known::Unknown));
    unknown.sort_unstable();
    unknown.dedup();
    let Some(task) = run.task.as_ref().filter(|_| !unknown.is_empty()) else { return Ok(()) };
    let mut held = run.held.take();
    for key in &unknown {
        held.extend(task.hot.enter(key, &held).await);
    }
    run.held.replace(held);
    let values = task.lookups.read(unknown.clone()).await.map_err(|error| away(run, function, error))?;
    failpoint::reached("run.read");
    let mut buffer = run.buffer.borrow_mut();
    for (key, value) in unknown.into_iter().zip(values) {
        buffer.saw(key, value, &run.limits).map_err(|over| over_limit(run, &over))?;
    }
    Ok(())
}

/// What was asked is wrong, or the store is: only the first is the script's concern.
pub(super) fn away(run: &Run, function: &str, error: BusError) -> Problem {
    if let BusError::Refused(reason) = error {
        return Problem::Wrong(format!("{function}: {reason}"));
    }
    run.end(Outcome::Released(Release::StoreAway));
    Problem::Ended
}

/// The value of a key that the run knows.
fn see(lua: &Lua, home: &Home, run: &Run, function: &str, key: &str) -> Result<Exact, Problem> {
    let known = run.buffer.borrow().known(key);
    let (text, plus) = match known {
        Known::Value(text, plus) => (text, plus),
        // A key named twice in one call is known by now; anything else was read just before.
        Known::Unknown => (None, 0.0),
    };
    if plus != 0.0 {
        return added(function, key, text.as_ref(), plus).map(Exact);
    }
    let Some(text) = text else { return Ok(Exact(Value::Nil)) };
    home.codec.decode_exact(lua, &text, false).map_err(|error| match error {
        DecodeError::Vm(error) => Problem::Vm(error),
        error => Problem::Wrong(format!("{function}: key: expected JSON under {key:?}, got {error}")),
    })
}

fn added(function: &str, key: &str, text: Option<&Bytes>, plus: f64) -> Result<Value, Problem> {
    let before = text.map_or(Some(0.0), |text| buffer::parse_number(text));
    let sum = before.map(|before| Value::Number(before + plus));
    sum.ok_or_else(|| Problem::Wrong(format!("{function}: key: expected a number under {key:?}, which was added to")))
}

fn set(lua: &Lua, home: &Home, (own, key, value, opts): (Value, Value, Value, Value)) -> Result<(), Problem> {
    const SET: &str = "ctx.kv:set";
    method(SET, &own)?;
    let run = deciding(home, SET)?;
    let key = checked_key(home, SET, &key)?;
    if value.is_nil() {
        return Err(wrong(SET, "value", "a value; ctx.kv:delete(key) deletes", &value));
    }
    let value = encode(lua, home, &run, (SET, "value"), &value)?;
    let ttl = match options(SET, &opts, &["ttl"])? {
        Some(opts) => opts.raw_get("ttl")?,
        None => Value::Nil,
    };
    let ttl = if ttl.is_nil() { None } else { Some(duration(SET, "opts.ttl", &ttl)?) };
    if ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(Problem::Wrong(format!("{SET}: opts.ttl: expected more than nothing; ctx.kv:delete(key) deletes")));
    }
    let set = run.buffer.borrow_mut().set(&key, value, ttl, &run.limits);
    set.map_err(|over| over_limit(&run, &over))
}

fn delete(home: &Home, (own, key): (Value, Value)) -> Result<(), Problem> {
    const DELETE: &str = "ctx.kv:delete";
    method(DELETE, &own)?;
    let run = deciding(home, DELETE)?;
    let key = checked_key(home, DELETE, &key)?;
    let deleted = run.buffer.borrow_mut().delete(&key, &run.limits);
    deleted.map_err(|over| over_limit(&run, &over))
}

fn add(home: &Home, (own, key, n): (Value, Value, Value)) -> Result<(), Problem> {
    const ADD: &str = "ctx.kv:add";
    method(ADD, &own)?;
    let run = deciding(home, ADD)?;
    let key = checked_key(home, ADD, &key)?;
    let n = number(ADD, "n", &n)?;
    let added = run.buffer.borrow_mut().add(&key, n, &run.limits).map_err(|over| over_limit(&run, &over))?;
    added.map_err(|_| Problem::Wrong(format!("{ADD}: key: expected a number under {key:?}, got what this run has set")))
}

/// A key that this handler may touch.
fn checked_key(home: &Home, function: &str, key: &Value) -> Result<String, Problem> {
    let text = text(function, "key", key)?;
    if text.is_empty() || text.len() > STATE_KEY_BYTES_MAX {
        return Err(wrong(function, "key", &format!("1 to {STATE_KEY_BYTES_MAX} bytes"), key));
    }
    if let Some(reserved) = home.granted.reserved.as_ref().filter(|reserved| text.starts_with(reserved.as_str())) {
        let expected = format!("a key of your own (what begins with {reserved:?} belongs to the host)");
        return Err(wrong(function, "key", &expected, key));
    }
    match &home.granted.state {
        Some(prefixes) if !prefixes.iter().any(|prefix| text.starts_with(prefix.as_str())) => {
            let expected = format!("a key that begins with one of {prefixes:?} (grants.state in the configuration)");
            Err(wrong(function, "key", &expected, key))
        }
        _ => Ok(text),
    }
}
