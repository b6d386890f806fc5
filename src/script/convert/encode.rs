//! Luau values into JSON text.
//!
//! Owns what can be kept: whatever JSON has no form for is refused with the path to it, never dropped or rounded. Runs inside a
//! protected call: nothing here owns memory but through the caller, and a problem is `Copy` (see `raw`).

use std::ffi::{c_int, c_void};
use std::fmt;

use super::raw::{Kind, Stack};
use super::{Bounds, INTERRUPT_NODES, number, text};

/// Stack slots one level can use.
const LEVEL_SLOTS: c_int = 8;

/// Longest part of a path that is shown, in bytes.
const SEGMENT_BYTES_MAX: usize = 64;

/// Why a value has no JSON text.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Something in the value; `path` leads to it from the root (`.lines[3].price`, empty for the root itself).
    #[error("{root}{path} {problem}")]
    Value { root: String, path: String, problem: Problem },
    /// The VM: its memory limit (`mlua::Error::MemoryError`), or what its interrupt raised.
    #[error(transparent)]
    Vm(#[from] mlua::Error),
}

impl EncodeError {
    /// Names the root of the path: `data` makes `value.lines[3].price` read `data.lines[3].price`.
    #[must_use]
    pub fn rooted(self, name: &str) -> Self {
        match self {
            Self::Value { path, problem, .. } => Self::Value { root: name.to_owned(), path, problem },
            vm @ Self::Vm(_) => vm,
        }
    }
}

/// What JSON cannot keep, or a bound that was reached. Fits after the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("is nil; a null is json.null")]
    Nil,
    #[error("is NaN, which JSON cannot keep")]
    Nan,
    #[error("is infinite, which JSON cannot keep")]
    Infinite,
    #[error("is text that is not UTF-8")]
    Encoding,
    #[error("is a buffer; make it text with buffer.tostring")]
    Buffer,
    #[error("is a vector; make it a table of its components")]
    Vector,
    #[error("is a {0}, which JSON cannot keep")]
    Kind(&'static str),
    #[error("has a metatable; copy its fields into a plain table")]
    Metatable,
    #[error("is a table with holes; an array has all elements from 1 on")]
    Sparse,
    #[error("is a table with both elements and named fields; JSON has only one or the other")]
    Mixed,
    #[error("has a key that is a {0}; keys are text")]
    Key(&'static str),
    #[error("has a key that is not UTF-8")]
    KeyEncoding,
    #[error("contains itself")]
    Cycle,
    #[error("is nested deeper than {0} levels")]
    Depth(usize),
    #[error("is where the value exceeds {0} elements and fields")]
    Nodes(usize),
    #[error("is where the value exceeds {0} bytes of JSON")]
    Bytes(usize),
    #[error("has more than {0} keys")]
    Keys(usize),
    #[error("has a key of more than {0} bytes")]
    KeyBytes(usize),
    #[error("does not fit the memory limit")]
    Stack,
}

/// One step of a path, noted while a problem travels to the root.
pub(super) enum Segment {
    Element(c_int),
    Field(String),
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element(at) => write!(f, "[{at}]"),
            Self::Field(name) if is_name(name) => write!(f, ".{name}"),
            Self::Field(name) => write!(f, "[{name:?}]"),
        }
    }
}

fn is_name(text: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && !text.as_bytes()[0].is_ascii_digit() && text.bytes().all(ordinary)
}

/// Writes one value.
pub(super) struct Writer<'a> {
    pub stack: Stack,
    pub out: &'a mut Vec<u8>,
    pub bounds: &'a Bounds,
    /// A table and its JSON text.
    pub known: Option<(*const c_void, &'a [u8])>,
    /// The metatable of arrays.
    pub array: *const c_void,
    pub nodes: usize,
    /// The tables we are in.
    pub within: &'a mut Vec<*const c_void>,
    /// Innermost first.
    pub path: &'a mut Vec<Segment>,
}

impl Writer<'_> {
    /// Writes the value at `index`. May unwind, by the interrupt only.
    pub fn value(&mut self, index: c_int) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > self.bounds.nodes_max {
            return Err(Problem::Nodes(self.bounds.nodes_max));
        }
        if self.nodes.is_multiple_of(INTERRUPT_NODES) {
            self.stack.interrupt();
        }
        let stack = self.stack;
        match stack.kind(index) {
            Kind::Text => self.text(stack.text(index), Problem::Encoding),
            Kind::Number => self.number(stack.number(index)),
            Kind::Table => self.table(index),
            Kind::Boolean => self.raw(if stack.boolean(index) { b"true" } else { b"false" }),
            Kind::Null => self.raw(b"null"),
            Kind::Opaque => self.raw(stack.opaque(index)),
            Kind::Integer => {
                number::write_integer(self.out, stack.integer(index));
                self.room(0)
            }
            Kind::Nil => Err(Problem::Nil),
            Kind::Other("buffer") => Err(Problem::Buffer),
            Kind::Other("vector") => Err(Problem::Vector),
            Kind::Other(name) => Err(Problem::Kind(name)),
        }
    }

    fn room(&self, more: usize) -> Result<(), Problem> {
        let bytes_max = self.bounds.bytes_max;
        if self.out.len() + more > bytes_max { Err(Problem::Bytes(bytes_max)) } else { Ok(()) }
    }

    fn raw(&mut self, json: &[u8]) -> Result<(), Problem> {
        self.room(json.len())?;
        self.out.extend_from_slice(json);
        Ok(())
    }

    fn text(&mut self, text: &[u8], otherwise: Problem) -> Result<(), Problem> {
        self.room(text.len() + 2)?;
        if std::str::from_utf8(text).is_err() {
            return Err(otherwise);
        }
        text::write(self.out, text);
        self.room(0)
    }

    fn number(&mut self, value: f64) -> Result<(), Problem> {
        if value.is_nan() {
            return Err(Problem::Nan);
        }
        if value.is_infinite() {
            return Err(Problem::Infinite);
        }
        number::write(self.out, value);
        self.room(0)
    }

    fn table(&mut self, table: c_int) -> Result<(), Problem> {
        let identity = self.stack.pointer(table);
        if let Some((_, json)) = self.known.filter(|(known, _)| *known == identity) {
            return self.splice(json);
        }
        let metatable = self.stack.metatable(table);
        let array = metatable == self.array;
        if !array && !metatable.is_null() {
            return Err(Problem::Metatable);
        }
        if self.within.contains(&identity) {
            return Err(Problem::Cycle);
        }
        if self.within.len() >= self.bounds.depth_max {
            return Err(Problem::Depth(self.bounds.depth_max));
        }
        if !self.stack.reserve(LEVEL_SLOTS) {
            return Err(Problem::Stack);
        }
        self.within.push(identity);
        let len = self.stack.len(table);
        if array || len > 0 {
            self.array(table, len)?
        } else {
            self.object(table)?
        }
        self.within.pop();
        Ok(())
    }

    /// Copies JSON text that is known to be the table's, unless it is nested too deeply for this place.
    fn splice(&mut self, json: &[u8]) -> Result<(), Problem> {
        let depth_left = self.bounds.depth_max - self.within.len();
        if exceeds_depth(json, depth_left) {
            return Err(Problem::Depth(self.bounds.depth_max));
        }
        self.raw(json)
    }

    fn array(&mut self, table: c_int, len: c_int) -> Result<(), Problem> {
        let top = self.stack.top();
        self.out.push(b'[');
        for at in 1..=len {
            if at > 1 {
                self.out.push(b',');
            }
            self.stack.push_element(table, at);
            if self.stack.kind(top + 1) == Kind::Nil {
                return Err(Problem::Sparse);
            }
            self.value(top + 1).inspect_err(|_| self.path.push(Segment::Element(at)))?;
            self.stack.set_top(top);
        }
        // All elements up to `len` lie in the array part, whose positions are their indices: whatever comes after them is too much.
        if self.stack.next(table, len).is_some() {
            let only_elements = self.stack.kind(top + 1) == Kind::Number;
            return Err(if only_elements { Problem::Sparse } else { Problem::Mixed });
        }
        self.out.push(b']');
        self.room(0)
    }

    fn object(&mut self, table: c_int) -> Result<(), Problem> {
        let top = self.stack.top();
        let (mut position, mut count) = (0, 0);
        self.out.push(b'{');
        while let Some(next) = self.stack.next(table, position) {
            position = next;
            count += 1;
            if count > 1 {
                self.out.push(b',');
            }
            self.key(top + 1, count)?;
            self.out.push(b':');
            self.value(top + 2).inspect_err(|_| self.path.push(field(self.stack, top + 1)))?;
            self.stack.set_top(top);
        }
        self.out.push(b'}');
        self.room(0)
    }

    fn key(&mut self, key: c_int, count: usize) -> Result<(), Problem> {
        if count > self.bounds.keys_max {
            return Err(Problem::Keys(self.bounds.keys_max));
        }
        let stack = self.stack;
        match stack.kind(key) {
            Kind::Text if stack.text(key).len() > self.bounds.key_bytes_max => {
                Err(Problem::KeyBytes(self.bounds.key_bytes_max))
            }
            Kind::Text => self.text(stack.text(key), Problem::KeyEncoding),
            Kind::Number if is_index(stack.number(key)) => Err(Problem::Sparse),
            Kind::Number => Err(Problem::Key("number")),
            Kind::Integer => Err(Problem::Key("integer")),
            Kind::Boolean => Err(Problem::Key("boolean")),
            Kind::Table => Err(Problem::Key("table")),
            Kind::Null => Err(Problem::Key("json.null")),
            Kind::Opaque => Err(Problem::Key("json.number")),
            Kind::Other(name) => Err(Problem::Key(name)),
            Kind::Nil => Err(Problem::Key("nil")),
        }
    }
}

fn is_index(key: f64) -> bool {
    key >= 1.0 && key.fract() == 0.0
}

fn field(stack: Stack, key: c_int) -> Segment {
    let name = stack.text(key);
    let shown = name.get(..SEGMENT_BYTES_MAX).unwrap_or(name);
    Segment::Field(String::from_utf8_lossy(shown).into_owned())
}

/// Whether JSON text has more than `depth` levels. Counting all brackets answers nearly always.
fn exceeds_depth(json: &[u8], depth: usize) -> bool {
    let brackets = json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    brackets > depth && deepest(json) > depth
}

fn deepest(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
