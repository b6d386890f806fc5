//! The codec against real VMs.

mod decoding;
mod encoding;
mod properties;

use mlua::{Error, FromLuaMulti, Lua, LuaString, Table, Value};

use super::{Bounds, Codec, DecodeError, EncodeError};

/// A VM with a codec and the global `json`.
fn vm() -> (Lua, Codec) {
    let lua = Lua::new();
    let codec = Codec::install(&lua).expect("the VM is new");
    let library = library(&lua, &codec).expect("there is memory");
    lua.globals().set("json", library).expect("globals are writable");
    (lua, codec)
}

/// What scripts have, without its complaints.
fn library(lua: &Lua, codec: &Codec) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.set("null", codec.null())?;
    library.set("is_null", lua.create_function(|_, value: Value| Ok(value.is_null()))?)?;
    let own = codec.clone();
    let encode = move |lua: &Lua, value: Value| {
        lua.create_string(own.encode(lua, &value, None, &Bounds::default()).map_err(Error::external)?)
    };
    library.set("encode", lua.create_function(encode)?)?;
    let own = codec.clone();
    let decode = move |lua: &Lua, text: LuaString| match own.decode_exact(lua, &text.as_bytes(), false) {
        Err(DecodeError::Vm(error)) => Err(error),
        other => other.map_err(Error::external),
    };
    library.set("decode", lua.create_function(decode)?)?;
    let own = codec.clone();
    let array = move |lua: &Lua, table: Option<Table>| own.array(table.map_or_else(|| lua.create_table(), Ok)?);
    library.set("array", lua.create_function(array)?)?;
    let own = codec.clone();
    let number = move |lua: &Lua, text: LuaString| own.number(lua, &text.as_bytes());
    library.set("number", lua.create_function(number)?)?;
    Ok(library)
}

/// Runs `script` with `d` = the decoded document.
fn with_document<R: FromLuaMulti>(document: &str, freeze: bool, script: &str) -> mlua::Result<R> {
    let (lua, codec) = vm();
    let value = codec.decode(&lua, document.as_bytes(), freeze).expect(document);
    lua.globals().set("d", value)?;
    lua.load(script).eval()
}

fn decode(text: &[u8]) -> Result<(), DecodeError> {
    let (lua, codec) = vm();
    codec.decode(&lua, text, true).map(|_| ())
}

/// Encodes what a Luau expression gives.
fn encode(expression: &str, bounds: &Bounds) -> Result<String, EncodeError> {
    let (lua, codec) = vm();
    let value: Value = lua.load(expression).eval().expect(expression);
    codec.encode(&lua, &value, None, bounds).map(|json| String::from_utf8(json).expect("JSON is UTF-8"))
}
