//! The functions of Luau's libraries that loop in C, bounded.
//!
//! Luau asks its interrupt where scripts loop and call and in its pattern matcher, but not in any other C code. Each function
//! here stands in for one of Luau's own, refuses what is out of all proportion, and hands the call on: arguments, results
//! and complaints stay Luau's. Where C code is the caller (a comparator, a metamethod), the interrupt is asked first, so
//! that C code that calls C code ends too. Decides nothing about runs.

#![expect(unsafe_code, reason = "a function that Luau's own C code calls back, at the price of C, has to be one of C")]

mod tables;
#[cfg(test)]
mod tests;
mod texts;

use std::ffi::{CStr, c_int};
use std::fmt::Arguments;
use std::io::Write;
use std::slice;

use mlua::ffi::{self, lua_State};
use mlua::{Function, IntoLuaMulti, Lua, Table, Value};

use tables::{concat, less, move_elements, sort};
use texts::{find, format, pattern, split};

/// By library ("": the globals), the functions whose cost only grows with what they are given.
const PLAIN: [(&str, &[&CStr]); 5] = [
    ("string", &[c"byte", c"char", c"lower", c"pack", c"packsize", c"rep", c"reverse", c"sub", c"unpack", c"upper"]),
    ("table", &[c"clear", c"clone", c"create", c"find", c"insert", c"maxn", c"pack", c"remove", c"unpack"]),
    ("buffer", &[c"copy", c"create", c"fill", c"fromstring", c"readstring", c"tostring", c"writestring"]),
    ("utf8", &[c"char", c"codepoint", c"len", c"offset"]),
    ("", &[c"next", c"tonumber"]),
];

/// Those whose cost can be out of all proportion, and what stands in for them.
const BOUNDED: [(&str, &CStr, ffi::lua_CFunction); 9] = [
    ("string", c"find", find),
    ("string", c"match", pattern),
    ("string", c"gmatch", pattern),
    ("string", c"gsub", pattern),
    ("string", c"split", split),
    ("string", c"format", format),
    ("table", c"concat", concat),
    ("table", c"move", move_elements),
    ("table", c"sort", sort),
];

/// Functions that call back from C for every element, and that Luau itself calls deprecated.
const DROPPED: [&str; 2] = ["foreach", "foreachi"];

/// Puts the functions here in place of Luau's. Only before anything is frozen.
pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let less = closure(lua, c"less", less, ())?;
    for (library, names) in PLAIN {
        names.iter().try_for_each(|name| replace(lua, (library, name, plain), &less))?;
    }
    BOUNDED.iter().try_for_each(|bounded| replace(lua, *bounded, &less))?;
    let table: Table = lua.globals().raw_get("table")?;
    for name in DROPPED {
        table.raw_set(name, Value::Nil)?;
    }
    lua.globals().raw_set("unpack", table.raw_get::<Function>("unpack")?)
}

fn replace(
    lua: &Lua,
    (library, name, function): (&str, &'static CStr, ffi::lua_CFunction),
    less: &Function,
) -> mlua::Result<()> {
    let globals = lua.globals();
    let table = if library.is_empty() { globals } else { globals.raw_get::<Table>(library)? };
    let key = name.to_string_lossy();
    let full = if library.is_empty() { key.to_string() } else { format!("{library}.{key}") };
    let own: Function = table.raw_get(&*key)?;
    table.raw_set(&*key, closure(lua, name, function, (own, full, less))?)
}

/// A C function with upvalues.
fn closure(
    lua: &Lua,
    name: &'static CStr,
    function: ffi::lua_CFunction,
    upvalues: impl IntoLuaMulti,
) -> mlua::Result<Function> {
    // SAFETY: the call is protected; what is on the stack, at most three values, becomes the closure's.
    unsafe {
        lua.exec_raw(upvalues, |state| {
            ffi::lua_pushcclosurek(state, function, name.as_ptr(), ffi::lua_gettop(state), None);
        })
    }
}

// Below, upvalues are: 1 Luau's own function, 2 its full name, 3 the comparator that asks the interrupt. Errors leave by
// unwinding, so no frame below owns memory.

/// Hands the call on to Luau's own function: on the same stack, so that it sees what the caller gave.
///
/// # Safety
/// Only in a function made by [`closure`], with its arguments on the stack.
unsafe fn native(state: *mut lua_State) -> c_int {
    // SAFETY: upvalue 1 is a C function without upvalues or continuation of its own.
    unsafe { ffi::lua_tocfunction(state, ffi::lua_upvalueindex(1)).map_or(0, |native| native(state)) }
}

/// Asks the interrupt, unless a script's own code is the caller: that has asked it just now. So it is never asked where it
/// could yield.
///
/// # Safety
/// As for [`native`].
unsafe fn ask(state: *mut lua_State) {
    // SAFETY: the callbacks live as long as the VM; -1 is what Luau passes outside of its collector.
    unsafe {
        if ffi::lua_isyieldable(state) == 0
            && let Some(interrupt) = (*ffi::lua_callbacks(state)).interrupt
        {
            interrupt(state, -1);
        }
    }
}

/// The text at `index`, if there is one.
///
/// # Safety
/// The text must stay on the stack as long as it is used.
unsafe fn text<'a>(state: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    // SAFETY: it is a text, so nothing is converted, and Luau never moves one.
    unsafe {
        let mut len = 0;
        let is_text = ffi::lua_type(state, index) == ffi::LUA_TSTRING;
        is_text.then(|| slice::from_raw_parts(ffi::lua_tolstring(state, index, &raw mut len).cast(), len))
    }
}

/// The integer at `index` as Luau's functions read it; `None`: there is none.
///
/// # Safety
/// As for [`native`].
unsafe fn integer(state: *mut lua_State, index: c_int) -> Option<i64> {
    let mut is_number = 0;
    // SAFETY: reads only; a text that is a number is read without being changed.
    let value = unsafe { ffi::lua_tointegerx_(state, index, &raw mut is_number) };
    (is_number != 0).then_some(i64::from(value))
}

/// Refuses an argument, in the form that all refusals have.
///
/// # Safety
/// As for [`native`].
unsafe fn refuse(state: *mut lua_State, reason: Arguments<'_>) -> ! {
    let mut message = [0; 256];
    let mut rest = &mut message[..];
    // A message that is too long is cut; there is none.
    let _ = rest.write_fmt(reason);
    let len = 256 - rest.len();
    // SAFETY: Luau copies what it is given; the slots are among the 20 that a call has.
    unsafe {
        ffi::luaL_where(state, 1);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
        ffi::lua_pushlstring_(state, message.as_ptr().cast(), len);
        ffi::lua_concat(state, 3);
        ffi::lua_error(state)
    }
}

/// Nothing to bound: linear in what lies in the VM's memory.
// SAFETY: Luau calls it, with its arguments on the stack.
unsafe extern "C-unwind" fn plain(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function.
    unsafe {
        ask(state);
        native(state)
    }
}
