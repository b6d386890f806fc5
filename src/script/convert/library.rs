//! The script library `json`, and how `json.null` and `json.number` behave in scripts.
//!
//! Decides what functions scripts see and how they complain; converting is the codec's.

use std::cmp::Ordering;

use mlua::{Error, LightUserData, Lua, LuaString, Table, Value};

use super::raw::{self, Kind};
use super::{Bounds, Codec, DecodeError, EncodeError, number};

/// Sets up the types that Luau does not have.
pub(super) fn install_types(lua: &Lua) -> mlua::Result<()> {
    let null = named_type(lua, "json.null")?;
    null.set("__tostring", lua.create_function(|_, _: Value| Ok("null"))?)?;
    null.set_readonly(true);
    lua.set_type_metatable::<LightUserData>(Some(null));

    let number = named_type(lua, "json.number")?;
    number.set("__tostring", lua.create_function(|lua, value: Value| lua.create_string(text_of(lua, &value)?))?)?;
    set_comparison(lua, &number, "__eq", Ordering::is_eq)?;
    set_comparison(lua, &number, "__lt", Ordering::is_lt)?;
    set_comparison(lua, &number, "__le", Ordering::is_le)?;
    number.set_readonly(true);
    let mut free = true;
    raw::protected::<(), _>(lua, number, |stack| {
        free = stack.register_opaque();
        stack.set_top(0);
    })?;
    if free { Ok(()) } else { Err(Error::runtime("the VM has a codec already")) }
}

fn named_type(lua: &Lua, name: &str) -> mlua::Result<Table> {
    let metatable = lua.create_table()?;
    metatable.set("__type", name)?;
    metatable.set("__metatable", name)?;
    Ok(metatable)
}

fn set_comparison(lua: &Lua, metatable: &Table, name: &str, holds: fn(Ordering) -> bool) -> mlua::Result<()> {
    let compare = lua.create_function(move |lua, (left, right): (Value, Value)| {
        Ok(holds(number::compare(&text_of(lua, &left)?, &text_of(lua, &right)?)))
    })?;
    metatable.set(name, compare)
}

/// The text of a `json.number`.
fn text_of(lua: &Lua, value: &Value) -> mlua::Result<Vec<u8>> {
    let mut text = Vec::new();
    raw::protected::<(), _>(lua, value, |stack| {
        if stack.kind(1) == Kind::Opaque {
            text.extend_from_slice(stack.opaque(1));
        }
        stack.set_top(0);
    })?;
    if text.is_empty() {
        Err(Error::runtime("json.number expected; make one with json.number(text)"))
    } else {
        Ok(text)
    }
}

/// A `json.number` with this text, which is a JSON number.
pub(super) fn opaque(lua: &Lua, text: &[u8]) -> mlua::Result<Value> {
    raw::protected(lua, (), |stack| stack.push_opaque(text))
}

/// Builds the library.
pub(super) fn build(lua: &Lua, codec: &Codec) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.set("null", codec.null())?;
    library.set("is_null", lua.create_function(|_, value: Value| Ok(value.is_null()))?)?;
    let own = codec.clone();
    library.set("encode", lua.create_function(move |lua, value: Value| encode(lua, &own, &value))?)?;
    let own = codec.clone();
    library.set("decode", lua.create_function(move |lua, text: Value| decode(lua, &own, &text))?)?;
    let own = codec.clone();
    library.set("array", lua.create_function(move |lua, table: Value| array(lua, &own, table))?)?;
    let own = codec.clone();
    library.set("number", lua.create_function(move |lua, value: Value| make_number(lua, &own, &value))?)?;
    Ok(library)
}

fn wrong_argument(function: &str, expected: &str, got: &Value) -> Error {
    Error::runtime(format!("json.{function}: argument 1: {expected} expected, got {}", got.type_name()))
}

fn encode(lua: &Lua, codec: &Codec, value: &Value) -> mlua::Result<LuaString> {
    match codec.encode(lua, value, None, &Bounds::default()) {
        Ok(json) => lua.create_string(json),
        Err(EncodeError::Vm(error)) => Err(error),
        Err(error) => Err(Error::runtime(format!("json.encode: {error}"))),
    }
}

fn decode(lua: &Lua, codec: &Codec, text: &Value) -> mlua::Result<super::Exact> {
    let Value::String(text) = text else { return Err(wrong_argument("decode", "string", text)) };
    match codec.decode_exact(lua, &text.as_bytes(), false) {
        Ok(value) => Ok(value),
        Err(DecodeError::Vm(error)) => Err(error),
        Err(error) => Err(Error::runtime(format!("json.decode: {error}"))),
    }
}

/// Marks a table, or a new one, as an array: it encodes as one even when it is empty.
fn array(lua: &Lua, codec: &Codec, table: Value) -> mlua::Result<Table> {
    let table = match table {
        Value::Nil => lua.create_table()?,
        Value::Table(table) => table,
        other => return Err(wrong_argument("array", "table or nothing", &other)),
    };
    match table.metatable() {
        Some(metatable) if metatable == codec.array => return Ok(table),
        Some(_) => return Err(Error::runtime("json.array: argument 1: table without a metatable expected")),
        None if table.is_readonly() => {
            return Err(Error::runtime("json.array: argument 1 is frozen; give it a table.clone"));
        }
        None => {}
    }
    table.set_metatable(Some(codec.array.clone()))?;
    Ok(table)
}

fn make_number(lua: &Lua, codec: &Codec, value: &Value) -> mlua::Result<Value> {
    let text = match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Integer(_) | Value::Number(_) => codec
            .encode(lua, value, None, &Bounds::default())
            .map_err(|error| Error::runtime(format!("json.number: {error}")))?,
        other => return Err(wrong_argument("number", "text or number", other)),
    };
    match number::scan(&text, 0) {
        Ok((_, end)) if end == text.len() => opaque(lua, &text),
        _ => Err(Error::runtime("json.number: argument 1: the text of one JSON number expected")),
    }
}
