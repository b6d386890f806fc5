//! JSON text into Luau values, in one pass over the text.
//!
//! Owns what is accepted: one document of RFC 8259 in UTF-8, within bounds, without duplicate keys. Runs inside a protected
//! call: nothing here owns memory, and a fault is `Copy` (see `raw`).

use std::ffi::c_int;
use std::ptr;

use super::number::{self, Number};
use super::raw::Stack;
use super::{DEPTH_MAX, INTERRUPT_NODES, KEY_BYTES_MAX, KEYS_MAX, text};

/// So many elements or fields wait on the stack for their table to be made in the right size.
const WAITING: usize = 16;

/// Stack slots one level can use: the table, what waits, and what is under way.
const LEVEL_SLOTS: c_int = 2 * WAITING as c_int + 8;

/// Room in a table that turns out to have more than [`WAITING`] entries.
const LARGE: c_int = 64;

/// Why a text is no JSON document for us.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON. Line and column count from 1, columns in characters.
    #[error("line {line}, column {column}: {message}")]
    Syntax { line: usize, column: usize, message: &'static str },
    /// JSON, but larger than a script is given.
    #[error("line {line}, column {column}: {message}")]
    Bounds { line: usize, column: usize, message: &'static str },
    /// The VM: its memory limit (`mlua::Error::MemoryError`), or what its interrupt raised.
    #[error(transparent)]
    Vm(#[from] mlua::Error),
}

/// What went wrong, small enough to be carried through a protected call.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    Syntax(usize, &'static str),
    Bounds(usize, &'static str),
    /// No memory for the stack.
    Stack,
}

impl From<(usize, &'static str)> for Fault {
    fn from((at, message): (usize, &'static str)) -> Self {
        Self::Syntax(at, message)
    }
}

impl Fault {
    /// Names the place in `text`.
    pub fn explain(self, text: &[u8]) -> DecodeError {
        match self {
            Self::Syntax(at, message) => {
                let (line, column) = place(text, at);
                DecodeError::Syntax { line, column, message }
            }
            Self::Bounds(at, message) => {
                let (line, column) = place(text, at);
                DecodeError::Bounds { line, column, message }
            }
            Self::Stack => DecodeError::Vm(super::out_of_memory()),
        }
    }
}

fn place(text: &[u8], at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

/// Checks that `text` is UTF-8 without a byte order mark.
pub(super) fn check_encoding(text: &[u8]) -> Result<(), Fault> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(Fault::Syntax(error.valid_up_to(), "the text is not UTF-8"));
    }
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(Fault::Syntax(0, "a byte order mark cannot stand before JSON"));
    }
    Ok(())
}

/// Reads one document, which is UTF-8. Slot 1 of the stack holds the metatable of arrays.
pub(super) struct Reader<'a> {
    pub stack: Stack,
    pub text: &'a [u8],
    pub at: usize,
    /// For strings with escapes.
    pub scratch: &'a mut Vec<u8>,
    pub freeze: bool,
    pub nodes: usize,
}

impl Reader<'_> {
    /// Pushes the document. May unwind, like everything below.
    pub fn document(&mut self) -> Result<(), Fault> {
        self.value(0)?;
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Fault::Syntax(self.at, "nothing can follow the document")),
        }
    }

    /// The next byte that is no white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes.is_multiple_of(INTERRUPT_NODES) {
            self.stack.interrupt();
        }
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", |stack| stack.push_boolean(true)),
            Some(b'f') => self.word(b"false", |stack| stack.push_boolean(false)),
            Some(b'n') => self.word(b"null", Stack::push_null),
            Some(_) => Err(Fault::Syntax(self.at, "a value is expected here")),
            None => Err(Fault::Syntax(self.at, "the text ends where a value is expected")),
        }
    }

    fn word(&mut self, word: &'static [u8], push: fn(Stack)) -> Result<(), Fault> {
        if !self.text.get(self.at..).unwrap_or_default().starts_with(word) {
            return Err(Fault::Syntax(self.at, "a value is expected here"));
        }
        self.at += word.len();
        push(self.stack);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let (number, end) = number::scan(self.text, start)?;
        self.at = end;
        match number {
            Number::Double(value) => self.stack.push_number(value),
            Number::Integer(value) => self.stack.push_integer(value),
            Number::Opaque => self.stack.push_opaque(self.text.get(start..end).unwrap_or_default()),
        }
        Ok(())
    }

    /// Pushes the string that begins here; returns its length in bytes.
    #[inline]
    fn string(&mut self) -> Result<usize, Fault> {
        let start = self.at + 1;
        let end = text::find_special(self.text, start);
        if self.text.get(end) == Some(&b'"') {
            self.at = end + 1;
            self.stack.push_text(self.text.get(start..end).unwrap_or_default());
            return Ok(end - start);
        }
        self.scratch.clear();
        self.at = text::unescape(self.text, start, self.scratch)?;
        self.stack.push_text(self.scratch);
        Ok(self.scratch.len())
    }

    /// Enters a container: takes the bracket and pushes a slot for the table.
    fn open(&mut self, depth: usize) -> Result<c_int, Fault> {
        if depth >= DEPTH_MAX {
            return Err(Fault::Bounds(self.at, "more than 128 levels of nesting"));
        }
        if !self.stack.reserve(LEVEL_SLOTS) {
            return Err(Fault::Stack);
        }
        self.at += 1;
        self.stack.push_nil();
        Ok(self.stack.top())
    }

    /// After an entry: whether another one follows.
    fn more(&mut self, close: u8, message: &'static str) -> Result<bool, Fault> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(Fault::Syntax(self.at, message)),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        let table = self.open(depth)?;
        let mut count = 0;
        let mut more = self.peek() != Some(b']');
        self.at += usize::from(!more);
        while more {
            if count == WAITING {
                self.fill_array(table, WAITING, LARGE);
            }
            self.value(depth + 1)?;
            count += 1;
            if count > WAITING {
                // A text of 2^31 elements is longer than any payload.
                self.stack.set_element(table, count as c_int);
            }
            more = self.more(b']', "`,` or `]` is expected here")?;
        }
        if count <= WAITING {
            self.fill_array(table, count, count as c_int);
        }
        self.stack.set_metatable(table, 1);
        self.close(table);
        Ok(())
    }

    /// Makes the table in its slot, and moves into it the `count` elements that wait above.
    fn fill_array(&self, table: c_int, count: usize, room: c_int) {
        self.stack.push_table(room, 0);
        self.stack.replace(table);
        for at in (1..=count as c_int).rev() {
            self.stack.set_element(table, at);
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        let table = self.open(depth)?;
        let mut keys = [ptr::null(); WAITING];
        let mut count = 0;
        let mut more = self.peek() != Some(b'}');
        self.at += usize::from(!more);
        while more {
            if count == WAITING {
                self.fill_object(table, WAITING, LARGE);
            }
            let start = self.key()?;
            if self.is_known(table, &mut keys, count) {
                return Err(Fault::Syntax(start, "this key was there already"));
            }
            self.value(depth + 1)?;
            count += 1;
            if count > WAITING {
                self.stack.set_field(table);
            }
            if count > KEYS_MAX {
                return Err(Fault::Bounds(start, "an object with more than 10,000 keys"));
            }
            more = self.more(b'}', "`,` or `}` is expected here")?;
        }
        if count <= WAITING {
            self.fill_object(table, count, count as c_int);
        }
        self.close(table);
        Ok(())
    }

    /// As [`Reader::fill_array`], for keys and values.
    fn fill_object(&self, table: c_int, count: usize, room: c_int) {
        self.stack.push_table(0, room);
        self.stack.replace(table);
        for _ in 0..count {
            self.stack.set_field(table);
        }
    }

    /// Pushes a key and takes the colon; returns where the key began.
    fn key(&mut self) -> Result<usize, Fault> {
        if self.peek() != Some(b'"') {
            return Err(Fault::Syntax(self.at, "a key in quotes is expected here"));
        }
        let start = self.at;
        if self.string()? > KEY_BYTES_MAX {
            return Err(Fault::Bounds(start, "a key of more than 256 bytes"));
        }
        if self.peek() != Some(b':') {
            return Err(Fault::Syntax(self.at, "`:` is expected here"));
        }
        self.at += 1;
        Ok(start)
    }

    /// Whether the topmost value, a key, was among the `count` keys before it: those that wait are known by where Luau keeps
    /// them, the others are in the table.
    #[inline]
    fn is_known(&self, table: c_int, keys: &mut [*const u8; WAITING], count: usize) -> bool {
        if count >= WAITING {
            return self.stack.has_topmost(table);
        }
        let key = self.stack.topmost_text();
        let known = keys[..count].contains(&key);
        keys[count] = key;
        known
    }

    fn close(&self, table: c_int) {
        if self.freeze {
            self.stack.freeze(table);
        }
    }
}
