//! `json.*`: text to values and back.

use std::rc::Rc;

use mlua::{Lua, LuaString, Table, Value};

use super::args::wrong;
use super::{Home, Problem, function};
use crate::script::convert::{Bounds, DecodeError, EncodeError, Exact};

const ENCODE: &str = "json.encode";
const DECODE: &str = "json.decode";
const ARRAY: &str = "json.array";
const NUMBER: &str = "json.number";

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let json = lua.create_table()?;
    json.raw_set("is_null", function(lua, home, |_, home, value: Value| Ok(home.codec.is_null(&value)))?)?;
    json.raw_set("encode", function(lua, home, |lua, home, value| encode(lua, home, &value))?)?;
    json.raw_set("decode", function(lua, home, |lua, home, text| decode(lua, home, &text))?)?;
    json.raw_set("array", function(lua, home, |lua, home, table| array(lua, home, table))?)?;
    json.raw_set("number", function(lua, home, |lua, home, value| number(lua, home, &value))?)?;
    Ok(json)
}

fn encode(lua: &Lua, home: &Home, value: &Value) -> Result<LuaString, Problem> {
    Ok(lua.create_string(text_of(lua, home, ENCODE, value)?)?)
}

/// `value` as JSON text.
fn text_of(lua: &Lua, home: &Home, function: &str, value: &Value) -> Result<Vec<u8>, Problem> {
    home.codec.encode(lua, value, None, &Bounds::default()).map_err(|error| match error {
        EncodeError::Vm(error) => Problem::Vm(error),
        error => Problem::Wrong(format!("{function}: value: expected what JSON can keep, but {error}")),
    })
}

fn decode(lua: &Lua, home: &Home, text: &Value) -> Result<Exact, Problem> {
    let Value::String(given) = text else { return Err(wrong(DECODE, "text", "text", text)) };
    home.codec.decode_exact(lua, &given.as_bytes(), false).map_err(|error| match error {
        DecodeError::Vm(error) => Problem::Vm(error),
        error => Problem::Wrong(format!("{DECODE}: text: expected JSON, but {error}")),
    })
}

/// Marks a table, or a new one, as an array.
fn array(lua: &Lua, home: &Home, table: Value) -> Result<Table, Problem> {
    let given = match &table {
        Value::Nil => lua.create_table()?,
        Value::Table(table) => table.clone(),
        other => return Err(wrong(ARRAY, "table", "a table or nothing", other)),
    };
    let readonly = given.is_readonly();
    home.codec.array(given)?.ok_or_else(|| {
        let got = if readonly { "a frozen one; give it a table.clone" } else { "one with a metatable" };
        Problem::Wrong(format!("{ARRAY}: table: expected a table that can become an array, got {got}"))
    })
}

fn number(lua: &Lua, home: &Home, value: &Value) -> Result<Value, Problem> {
    let text = match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Integer(_) | Value::Number(_) => text_of(lua, home, NUMBER, value)?,
        other => return Err(wrong(NUMBER, "value", "the text of a JSON number, or a number", other)),
    };
    let number = home.codec.number(lua, &text)?;
    number.ok_or_else(|| wrong(NUMBER, "value", "the text of one JSON number", value))
}
