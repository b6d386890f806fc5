//! Throwaway stand-in for the JSON codec.

use std::fmt;

use mlua::{Lua, Table, Value};
use serde_json::Value as Json;

pub struct Bounds {
    pub depth_max: usize,
    pub nodes_max: usize,
    pub bytes_max: usize,
    pub keys_max: usize,
    pub key_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { depth_max: 128, nodes_max: 1_000_000, bytes_max: 1 << 20, keys_max: 10_000, key_bytes_max: 256 }
    }
}

#[derive(Debug)]
pub struct DecodeError(String, bool);
#[derive(Debug)]
pub struct EncodeError(String, bool);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl DecodeError {
    pub fn memory(&self) -> bool {
        self.1
    }
}
impl EncodeError {
    pub fn memory(&self) -> bool {
        self.1
    }
}

pub struct Codec;

impl Codec {
    pub fn install(_lua: &Lua) -> mlua::Result<Codec> {
        Ok(Codec)
    }
    pub fn decode(&self, lua: &Lua, text: &[u8], freeze: bool) -> Result<Value, DecodeError> {
        let json: Json = serde_json::from_slice(text).map_err(|e| DecodeError(e.to_string(), false))?;
        self.value(lua, json, freeze).map_err(|e| DecodeError(e.to_string(), matches!(e, mlua::Error::MemoryError(_))))
    }
    fn value(&self, lua: &Lua, json: Json, freeze: bool) -> mlua::Result<Value> {
        Ok(match json {
            Json::Null => self.null(),
            Json::Bool(b) => Value::Boolean(b),
            Json::Number(n) => Value::Number(n.as_f64().unwrap_or(0.0)),
            Json::String(s) => Value::String(lua.create_string(s)?),
            Json::Array(items) => {
                let table = lua.create_table()?;
                for item in items {
                    table.raw_push(self.value(lua, item, freeze)?)?;
                }
                table.set_readonly(freeze);
                Value::Table(table)
            }
            Json::Object(fields) => {
                let table = lua.create_table()?;
                for (key, item) in fields {
                    table.raw_set(key, self.value(lua, item, freeze)?)?;
                }
                table.set_readonly(freeze);
                Value::Table(table)
            }
        })
    }
    pub fn encode(
        &self,
        _lua: &Lua,
        value: &Value,
        known: Option<(&Table, &[u8])>,
        bounds: &Bounds,
    ) -> Result<Vec<u8>, EncodeError> {
        if let (Value::Table(table), Some((same, text))) = (value, known)
            && table.to_pointer() == same.to_pointer()
        {
            return Ok(text.to_vec());
        }
        let json = json(value, 0)?;
        let text = serde_json::to_vec(&json).map_err(|e| EncodeError(e.to_string(), false))?;
        if text.len() > bounds.bytes_max {
            return Err(EncodeError(format!("more than {} bytes of JSON", bounds.bytes_max), false));
        }
        Ok(text)
    }
    pub fn null(&self) -> Value {
        Value::NULL
    }
    pub fn is_null(&self, value: &Value) -> bool {
        value.is_null()
    }
    pub fn library(&self, lua: &Lua) -> mlua::Result<Table> {
        let table = lua.create_table()?;
        table.raw_set("null", Value::NULL)?;
        table.raw_set(
            "encode",
            lua.create_function(|lua, v: Value| {
                Codec
                    .encode(lua, &v, None, &Bounds::default())
                    .map_err(|e| mlua::Error::runtime(e.to_string()))
                    .and_then(|t| lua.create_string(t))
            })?,
        )?;
        table.raw_set(
            "decode",
            lua.create_function(|lua, t: mlua::LuaString| {
                Codec.decode(lua, &t.as_bytes(), false).map_err(|e| mlua::Error::runtime(e.to_string()))
            })?,
        )?;
        Ok(table)
    }
}

fn json(value: &Value, depth: usize) -> Result<Json, EncodeError> {
    if depth > 100 {
        return Err(EncodeError("nested deeper than 100 levels".into(), false));
    }
    Ok(match value {
        Value::Nil => Json::Null,
        v if v.is_null() => Json::Null,
        Value::Boolean(b) => Json::Bool(*b),
        Value::Integer(i) => Json::from(*i),
        Value::Number(n) if n.is_finite() => Json::from(*n),
        Value::String(s) => {
            Json::from(s.to_str().map_err(|_| EncodeError("$: text that is not UTF-8".into(), false))?.to_owned())
        }
        Value::Table(t) if t.raw_len() > 0 => {
            let mut items = Vec::new();
            for item in t.sequence_values::<Value>() {
                items.push(json(&item.map_err(|e| EncodeError(e.to_string(), true))?, depth + 1)?);
            }
            Json::Array(items)
        }
        Value::Table(t) => {
            let mut map = serde_json::Map::new();
            for pair in t.pairs::<String, Value>() {
                let (key, item) = pair.map_err(|e| EncodeError(e.to_string(), true))?;
                map.insert(key, json(&item, depth + 1)?);
            }
            Json::Object(map)
        }
        other => return Err(EncodeError(format!("$: a {} cannot be JSON", other.type_name()), false)),
    })
}
