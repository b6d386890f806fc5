//! The Lua stack as seen by the codec: the one file that calls mlua's FFI.
//!
//! Owns the reasons why these calls are sound. Decides nothing about JSON.
//!
//! Luau is built with C++ exceptions: what allocates inside it (each such method says "may unwind") can leave by unwinding
//! through our frames to the protected call in [`protected`]. So nothing in those frames owns memory: buffers live outside the
//! closure, faults are `Copy`, and nothing catches an unwind.

#![expect(
    unsafe_code,
    reason = "mlua's safe API has no way to build tables or push 64-bit integers without a round trip per value"
)]

use std::ffi::{c_int, c_void};
use std::{mem, ptr, slice};

use mlua::state::RawLua;
use mlua::{FromLuaMulti, IntoLua, IntoLuaMulti, Lua, Value, ffi};

use super::number;

/// Userdata tag of a `json.number`; mlua itself uses 0 and 1.
const NUMBER_TAG: c_int = 77;

/// Runs `run` on a stack that holds `args`; whatever is on it at the end is the result. Errors are those that Luau raised.
pub(super) fn protected<R: FromLuaMulti, F: FnOnce(Stack)>(
    lua: &Lua,
    args: impl IntoLuaMulti,
    run: F,
) -> mlua::Result<R> {
    const { assert!(!mem::needs_drop::<F>(), "what the closure owned would leak when Luau unwinds through it") };
    // SAFETY: the stack is valid for the call, which is protected, and the closure owns nothing.
    unsafe { lua.exec_raw(args, |state| run(Stack(state))) }
}

/// A stack on loan for the time of one [`protected`] call. Indices come from [`Stack::top`] or name arguments of that call, and every push
/// is covered by [`Stack::reserve`] or the 20 slots a call has anyway; under that rule, kept by this module's users in this
/// folder, its methods are safe to call.
#[derive(Clone, Copy)]
pub(super) struct Stack(*mut ffi::lua_State);

/// A value on its way to a script: integers beyond ±2^53 arrive as Luau integers, where mlua alone would round them.
#[derive(Clone, Debug, PartialEq)]
pub struct Exact(pub Value);

impl IntoLua for Exact {
    fn into_lua(self, _: &Lua) -> mlua::Result<Value> {
        Ok(self.0)
    }

    // SAFETY: the trait demands it; as its caller must, ours has reserved the slots.
    unsafe fn push_into_stack(self, lua: &RawLua) -> mlua::Result<()> {
        match self.0 {
            Value::Integer(integer) if number::is_beyond_doubles(integer) => {
                Stack(lua.state()).push_integer(integer);
                Ok(())
            }
            // SAFETY: whoever calls this method has reserved the slots.
            value => unsafe { lua.push_value(&value) },
        }
    }
}

/// The type of a value on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nil,
    Boolean,
    Null,
    Number,
    Integer,
    Text,
    Table,
    /// A `json.number`.
    Opaque,
    /// What JSON has no form for, by its Luau name.
    Other(&'static str),
}

impl Stack {
    /// Makes room for `slots` more values; false: the VM has no memory for them.
    pub fn reserve(self, slots: c_int) -> bool {
        // SAFETY: protects itself; allowed at any time.
        unsafe { ffi::lua_checkstack(self.0, slots) != 0 }
    }

    pub fn top(self) -> c_int {
        // SAFETY: only reads.
        unsafe { ffi::lua_gettop(self.0) }
    }

    pub fn set_top(self, top: c_int) {
        // SAFETY: only ever shrinks the stack to a height it had.
        unsafe { ffi::lua_settop(self.0, top) }
    }

    pub fn remove(self, index: c_int) {
        // SAFETY: the index is valid (see the type).
        unsafe { ffi::lua_remove(self.0, index) }
    }

    /// Moves the topmost value to `index`.
    pub fn replace(self, index: c_int) {
        // SAFETY: the index is valid (see the type).
        unsafe { ffi::lua_replace(self.0, index) }
    }

    pub fn push_nil(self) {
        // SAFETY: the slot is reserved (see the type).
        unsafe { ffi::lua_pushnil(self.0) }
    }

    /// `json.null`: the light userdata NULL, which is mlua's `Value::NULL` too.
    pub fn push_null(self) {
        // SAFETY: the slot is reserved (see the type).
        unsafe { ffi::lua_pushlightuserdata(self.0, ptr::null_mut()) }
    }

    pub fn push_boolean(self, value: bool) {
        // SAFETY: the slot is reserved (see the type).
        unsafe { ffi::lua_pushboolean(self.0, c_int::from(value)) }
    }

    pub fn push_number(self, value: f64) {
        // SAFETY: the slot is reserved (see the type).
        unsafe { ffi::lua_pushnumber(self.0, value) }
    }

    /// Pushes a Luau `integer`, not a number.
    pub fn push_integer(self, value: i64) {
        // SAFETY: the slot is reserved (see the type).
        unsafe { ffi::lua_pushinteger64(self.0, value) }
    }

    /// May unwind.
    pub fn push_text(self, text: &[u8]) {
        // SAFETY: Luau copies the bytes; the slot is reserved (see the type).
        unsafe { ffi::lua_pushlstring_(self.0, text.as_ptr().cast(), text.len()) }
    }

    /// Where Luau keeps the topmost value, a string. Equal strings have one place.
    pub fn topmost_text(self) -> *const u8 {
        // SAFETY: the value is a string, so nothing is converted.
        unsafe { ffi::lua_tolstring(self.0, -1, ptr::null_mut()).cast() }
    }

    /// Pushes a `json.number` with this text. May unwind.
    pub fn push_opaque(self, text: &[u8]) {
        // SAFETY: the tag's metatable was set by `register_opaque`; the block is at least as long as the text, and new.
        unsafe {
            let block = ffi::lua_newuserdatataggedwithmetatable(self.0, text.len(), NUMBER_TAG);
            ptr::copy_nonoverlapping(text.as_ptr(), block.cast(), text.len());
        }
    }

    /// Takes the topmost table as the metatable of every `json.number`; false: the VM has one already.
    pub fn register_opaque(self) -> bool {
        // SAFETY: the topmost value is a table, and the tag is assigned once only.
        unsafe {
            ffi::lua_getuserdatametatable(self.0, NUMBER_TAG);
            let free = ffi::lua_type(self.0, -1) == ffi::LUA_TNIL;
            ffi::lua_settop(self.0, -2);
            if free {
                ffi::lua_setuserdatametatable(self.0, NUMBER_TAG);
            }
            free
        }
    }

    /// Pushes an empty table with room for that many elements and fields. May unwind.
    pub fn push_table(self, elements: c_int, fields: c_int) {
        // SAFETY: the slot is reserved (see the type).
        unsafe { ffi::lua_createtable(self.0, elements, fields) }
    }

    /// `table[key] = value`, both popped (the value is topmost). May unwind.
    pub fn set_field(self, table: c_int) {
        // SAFETY: `table` is a table that is not read-only yet; the key is a string.
        unsafe { ffi::lua_rawset(self.0, table) }
    }

    /// `table[index] = value`, which is popped. May unwind.
    pub fn set_element(self, table: c_int, index: c_int) {
        // SAFETY: as in `set_field`.
        unsafe { ffi::lua_rawseti_(self.0, table, index) }
    }

    /// Whether `table` has the topmost value as a key.
    pub fn has_topmost(self, table: c_int) -> bool {
        // SAFETY: `table` is a table, one slot is reserved; a raw read calls no script.
        unsafe {
            ffi::lua_pushvalue(self.0, -1);
            let found = ffi::lua_rawget(self.0, table) != ffi::LUA_TNIL;
            ffi::lua_settop(self.0, -2);
            found
        }
    }

    /// Gives `table` the metatable at `metatable`.
    pub fn set_metatable(self, table: c_int, metatable: c_int) {
        // SAFETY: both are tables, the first not read-only yet.
        unsafe {
            ffi::lua_pushvalue(self.0, metatable);
            ffi::lua_setmetatable(self.0, table);
        }
    }

    pub fn freeze(self, table: c_int) {
        // SAFETY: `table` is a table of ours.
        unsafe { ffi::lua_setreadonly(self.0, table, 1) }
    }

    pub fn kind(self, index: c_int) -> Kind {
        // SAFETY: the index is valid; only reads.
        unsafe {
            match ffi::lua_type(self.0, index) {
                ffi::LUA_TNIL => Kind::Nil,
                ffi::LUA_TBOOLEAN => Kind::Boolean,
                ffi::LUA_TNUMBER => Kind::Number,
                ffi::LUA_TINTEGER => Kind::Integer,
                ffi::LUA_TSTRING => Kind::Text,
                ffi::LUA_TTABLE => Kind::Table,
                ffi::LUA_TLIGHTUSERDATA if ffi::lua_touserdata(self.0, index).is_null() => Kind::Null,
                ffi::LUA_TUSERDATA if !ffi::lua_touserdatatagged(self.0, index, NUMBER_TAG).is_null() => Kind::Opaque,
                ffi::LUA_TFUNCTION => Kind::Other("function"),
                ffi::LUA_TTHREAD => Kind::Other("thread"),
                ffi::LUA_TBUFFER => Kind::Other("buffer"),
                ffi::LUA_TVECTOR => Kind::Other("vector"),
                _ => Kind::Other("userdata"),
            }
        }
    }

    pub fn boolean(self, index: c_int) -> bool {
        // SAFETY: the index is valid; only reads.
        unsafe { ffi::lua_toboolean(self.0, index) != 0 }
    }

    pub fn number(self, index: c_int) -> f64 {
        // SAFETY: the value is a number; only reads.
        unsafe { ffi::lua_tonumberx(self.0, index, ptr::null_mut()) }
    }

    pub fn integer(self, index: c_int) -> i64 {
        // SAFETY: the value is an integer; only reads.
        unsafe { ffi::lua_tointeger64(self.0, index, ptr::null_mut()) }
    }

    /// The bytes of the string at `index`; not to be used after the string has left the stack.
    pub fn text(&self, index: c_int) -> &[u8] {
        let mut len = 0;
        // SAFETY: the value is a string, so this converts and allocates nothing, and Luau never moves a string.
        unsafe {
            let bytes = ffi::lua_tolstring(self.0, index, &raw mut len);
            slice::from_raw_parts(bytes.cast(), len)
        }
    }

    /// The text of the `json.number` at `index`; not to be used after it has left the stack.
    pub fn opaque(&self, index: c_int) -> &[u8] {
        // SAFETY: the value is a userdata of our tag, whose block is its text; Luau never moves a userdata.
        unsafe {
            let block = ffi::lua_touserdata(self.0, index);
            slice::from_raw_parts(block.cast(), ffi::lua_objlen(self.0, index))
        }
    }

    /// The identity of a table.
    pub fn pointer(self, index: c_int) -> *const c_void {
        // SAFETY: the index is valid; only reads.
        unsafe { ffi::lua_topointer(self.0, index) }
    }

    /// The identity of a table's metatable; null: it has none.
    pub fn metatable(self, index: c_int) -> *const c_void {
        // SAFETY: the index is valid; only reads.
        unsafe { ffi::lua_getmetatablepointer(self.0, index) }
    }

    /// The raw length of a table. Luau keeps the elements up to it in the table's array part.
    pub fn len(self, index: c_int) -> c_int {
        // SAFETY: the index is valid; only reads. A table has at most 2^26 elements.
        unsafe { ffi::lua_objlen_(self.0, index) }
    }

    /// Pushes an element, nil where there is none.
    pub fn push_element(self, table: c_int, at: c_int) {
        // SAFETY: `table` is a table and the slot reserved; a raw read calls no script.
        unsafe {
            ffi::lua_rawgeti_(self.0, table, at);
        }
    }

    /// Pushes the next key and its value, and returns the position to go on from (first: 0); `None`, nothing pushed: the end.
    pub fn next(self, table: c_int, position: c_int) -> Option<c_int> {
        // SAFETY: `table` is a table and two slots are reserved; nobody writes to it meanwhile.
        let next = unsafe { ffi::lua_rawiter(self.0, table, position) };
        (next >= 0).then_some(next)
    }

    /// Lets the VM's interrupt have its say, as the VM itself does in loops: past a deadline it raises, that is, unwinds.
    pub fn interrupt(self) {
        // SAFETY: the callbacks live as long as the VM; -1 is what the VM passes outside of its collector, and inside a
        // protected call the callback cannot yield.
        unsafe {
            if let Some(interrupt) = (*ffi::lua_callbacks(self.0)).interrupt {
                interrupt(self.0, -1);
            }
        }
    }
}
