//! The codec against real VMs.

mod decoding;
mod encoding;
mod properties;

use mlua::{FromLuaMulti, Lua, Value};

use super::{Bounds, Codec, DecodeError, EncodeError};

/// A VM with a codec and the global `json`.
fn vm() -> (Lua, Codec) {
    let lua = Lua::new();
    let codec = Codec::install(&lua).expect("the VM is new");
    let library = codec.library(&lua).expect("there is memory");
    lua.globals().set("json", library).expect("globals are writable");
    (lua, codec)
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
