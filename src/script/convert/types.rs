//! How `json.null` and `json.number` behave in scripts.
//!
//! Owns their metatables; what functions scripts have is the business of `api`.

use std::cmp::Ordering;

use mlua::{Error, LightUserData, Lua, Table, Value};

use super::number;
use super::raw::{self, Kind};

/// Sets up the types that Luau does not have.
pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
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
