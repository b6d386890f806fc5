//! JSON text to Luau values and back, in one pass, without a tree in between.
//!
//! Owns the promise of `handlers.md`, "Data": nothing is rounded, dropped or reordered into something else silently; what cannot be
//! kept is refused with its place. Knows nothing of events, stores or handlers.

mod decode;
mod encode;
mod number;
mod raw;
#[cfg(test)]
mod tests;
mod text;
mod types;

use std::cell::Cell;
use std::ffi::c_void;
use std::rc::Rc;

use mlua::{Lua, Table, Value};

pub use decode::DecodeError;
pub use encode::{EncodeError, Problem};
pub use raw::Exact;

use decode::Reader;
use encode::Writer;
use raw::Kind;

/// Deepest nesting of what is decoded.
pub const DEPTH_MAX: usize = 128;
/// Most keys of one decoded object: Luau's string hash has no seed, so an object's cost is quadratic in chosen keys.
pub const KEYS_MAX: usize = 10_000;
/// Longest decoded key in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// The VM's interrupt is asked once per so many values: conversions end with the run's deadline like everything else.
const INTERRUPT_NODES: usize = 256;

/// A larger scratch buffer is not kept.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// What an encoded value may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Levels of nesting.
    pub depth_max: usize,
    /// Values in all, containers included.
    pub nodes_max: usize,
    /// Bytes of JSON text.
    pub bytes_max: usize,
    /// Keys of one object.
    pub keys_max: usize,
    /// Bytes of one key.
    pub key_bytes_max: usize,
}

impl Default for Bounds {
    /// What decoding takes as well, in 1 MiB of text.
    fn default() -> Self {
        Self {
            depth_max: DEPTH_MAX,
            nodes_max: 1 << 20,
            bytes_max: 1 << 20,
            keys_max: KEYS_MAX,
            key_bytes_max: KEY_BYTES_MAX,
        }
    }
}

/// Converts for one VM. Clones share their buffers.
#[derive(Clone)]
pub struct Codec {
    array: Table,
    scratch: Rc<Cell<Scratch>>,
}

/// Buffers from one conversion to the next.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    /// The tables that the encoder is in.
    within: Vec<*const c_void>,
}

impl Codec {
    /// Makes what scripts meet: the metatable of arrays, the types `json.null` and `json.number`. Once per VM; a second time is an
    /// error.
    pub fn install(lua: &Lua) -> mlua::Result<Self> {
        let array = lua.create_table()?;
        array.set_readonly(true);
        types::install(lua)?;
        Ok(Self { array, scratch: Rc::default() })
    }

    /// Reads one document; `freeze` makes every table read-only, all the way down.
    ///
    /// Only for a document that is nothing but an integer beyond ±2^53: it comes as a `json.number`, because mlua would round a
    /// [`Value::Integer`] on its way to Lua. [`Codec::decode_exact`] avoids that.
    pub fn decode(&self, lua: &Lua, text: &[u8], freeze: bool) -> Result<Value, DecodeError> {
        match self.decode_exact(lua, text, freeze)?.0 {
            Value::Integer(integer) if number::is_beyond_doubles(integer) => {
                Ok(types::opaque(lua, itoa::Buffer::new().format(integer).as_bytes())?)
            }
            value => Ok(value),
        }
    }

    /// As [`Codec::decode`], for a value that goes straight to a script.
    pub fn decode_exact(&self, lua: &Lua, text: &[u8], freeze: bool) -> Result<Exact, DecodeError> {
        decode::check_encoding(text).map_err(|fault| fault.explain(text))?;
        let mut scratch = self.scratch.take();
        let mut read = Ok(());
        let mut double = None;
        let value = raw::protected(lua, &self.array, |stack| {
            read = Reader { stack, text, at: 0, scratch: &mut scratch.bytes, freeze, nodes: 0 }.document();
            match read {
                Ok(()) => stack.remove(1),
                Err(_) => stack.set_top(0),
            }
            if read.is_ok() && stack.kind(1) == Kind::Number {
                double = Some(stack.number(1));
            }
        });
        self.keep(scratch);
        let value = value?;
        read.map_err(|fault| fault.explain(text))?;
        // mlua calls both Luau's integers and large numbers without a fraction integers.
        Ok(Exact(match (value, double) {
            (Value::Integer(integer), Some(double)) if number::is_beyond_doubles(integer) => Value::Number(double),
            (value, _) => value,
        }))
    }

    /// Writes `value` as JSON text.
    ///
    /// A [`Value::Integer`] is written in digits, whether mlua made it of a Luau integer or of a number without a fraction.
    ///
    /// `known`: a table that is exactly this JSON text (`event.data`); wherever the encoder meets it, at any depth, it copies the
    /// bytes.
    pub fn encode(
        &self,
        lua: &Lua,
        value: &Value,
        known: Option<(&Table, &[u8])>,
        bounds: &Bounds,
    ) -> Result<Vec<u8>, EncodeError> {
        if let Value::Integer(integer) = value {
            // mlua would round it on its way to the stack.
            return Ok(itoa::Buffer::new().format(*integer).as_bytes().to_vec());
        }
        let mut scratch = self.scratch.take();
        scratch.bytes.clear();
        scratch.within.clear();
        let written = self.write(lua, value, known, bounds, &mut scratch);
        let json = written.map(|()| scratch.bytes.as_slice().to_vec());
        self.keep(scratch);
        json
    }

    fn write(
        &self,
        lua: &Lua,
        value: &Value,
        known: Option<(&Table, &[u8])>,
        bounds: &Bounds,
        scratch: &mut Scratch,
    ) -> Result<(), EncodeError> {
        let known: Option<(*const c_void, &[u8])> = known.map(|(table, json)| (table.to_pointer(), json));
        let array = self.array.to_pointer();
        let Scratch { bytes: out, within } = scratch;
        let mut path = Vec::new();
        let mut written = Ok(());
        raw::protected::<(), _>(lua, value, |stack| {
            let path = &mut path;
            written = Writer { stack, out, bounds, known, array, nodes: 0, within, path }.value(1);
            stack.set_top(0);
        })?;
        written.map_err(|problem| match problem {
            Problem::Stack => EncodeError::Vm(out_of_memory()),
            problem => {
                let path = path.iter().rev().map(ToString::to_string).collect();
                EncodeError::Value { root: "value".to_owned(), path, problem }
            }
        })
    }

    fn keep(&self, scratch: Scratch) {
        if scratch.bytes.capacity() <= SCRATCH_BYTES_MAX {
            self.scratch.set(scratch);
        }
    }

    /// `json.null`.
    pub fn null(&self) -> Value {
        Value::NULL
    }

    /// Whether `value` is `json.null`.
    pub fn is_null(&self, value: &Value) -> bool {
        value.is_null()
    }

    /// A `json.number`; `None`: the text is no JSON number.
    pub fn number(&self, lua: &Lua, text: &[u8]) -> mlua::Result<Option<Value>> {
        match number::scan(text, 0) {
            Ok((_, end)) if end == text.len() => types::opaque(lua, text).map(Some),
            _ => Ok(None),
        }
    }

    /// Marks a table as an array: it is encoded as one even when it is empty. `None`: it has another metatable, or is frozen.
    pub fn array(&self, table: Table) -> mlua::Result<Option<Table>> {
        match table.metatable() {
            Some(metatable) if metatable == self.array => return Ok(Some(table)),
            Some(_) => return Ok(None),
            None if table.is_readonly() => return Ok(None),
            None => {}
        }
        table.set_metatable(Some(self.array.clone()))?;
        Ok(Some(table))
    }
}

fn out_of_memory() -> mlua::Error {
    mlua::Error::MemoryError("not enough memory".to_owned())
}
