//! What of `table` is bounded: moving, joining, sorting.
//!
//! Owns how many elements one call may go through, and when sorting has to ask the interrupt.

use std::ffi::c_int;
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::{ask, integer, native, refuse, text};

/// Most elements that one call moves or joins (about 0.1 s).
const ELEMENTS_MAX: i64 = 1 << 20;
/// So few elements are sorted whatever they are.
const SORT_FEW: c_int = 16;
/// Most elements that are sorted without asking the interrupt, and the longest texts among them.
const SORT_LIGHT: c_int = 1 << 16;
const SORT_TEXT_LIGHT: usize = 1 << 10;

/// `table.move` goes through its range whether there is anything in it or not.
// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn move_elements(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function.
    unsafe {
        ask(state);
        if let (Some(from), Some(to)) = (integer(state, 2), integer(state, 3)) {
            bound_elements(state, to - from + 1);
        }
        native(state)
    }
}

// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn concat(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function; only a table is asked for its length.
    unsafe {
        ask(state);
        if ffi::lua_type(state, 1) == ffi::LUA_TTABLE {
            let from = integer(state, 3).unwrap_or(1);
            let to = integer(state, 4).unwrap_or_else(|| i64::from(ffi::lua_objlen_(state, 1)));
            bound_elements(state, to - from + 1);
        }
        native(state)
    }
}

/// # Safety
/// As for [`native`].
unsafe fn bound_elements(state: *mut lua_State, count: i64) {
    if count > ELEMENTS_MAX {
        // SAFETY: as the caller's.
        unsafe { refuse(state, format_args!(": range: expected at most {ELEMENTS_MAX} elements, got {count}")) }
    }
}

/// `table.sort` asks nobody while it compares by itself, or by a C function.
// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn sort(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function; only a table is looked into, and the slots are among the 20 that a call has.
    unsafe {
        ask(state);
        if ffi::lua_type(state, 1) == ffi::LUA_TTABLE {
            if ffi::lua_type(state, 2) <= ffi::LUA_TNIL && is_heavy(state) {
                ffi::lua_settop(state, 1);
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(3));
            } else if ffi::lua_iscfunction(state, 2) != 0 {
                ffi::lua_pushvalue(state, 2);
                ffi::lua_pushcclosurek(state, through, ptr::null(), 1, None);
                ffi::lua_replace(state, 2);
            }
        }
        native(state)
    }
}

/// Whether sorting the table at 1 may take long without a comparator.
///
/// # Safety
/// As for [`native`]; there is a table.
unsafe fn is_heavy(state: *mut lua_State) -> bool {
    // SAFETY: raw reads; each element leaves the stack at once.
    unsafe {
        let count = ffi::lua_objlen_(state, 1);
        count > SORT_LIGHT
            || count > SORT_FEW
                && (1..=count).any(|at| {
                    ffi::lua_rawgeti_(state, 1, at);
                    let long = text(state, -1).is_some_and(|text| text.len() > SORT_TEXT_LIGHT);
                    ffi::lua_settop(state, -2);
                    long
                })
    }
}

/// What `table.sort` does by itself, as a comparator that asks the interrupt.
// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn less(state: *mut lua_State) -> c_int {
    // SAFETY: a sort gives two arguments.
    unsafe {
        ask(state);
        let less = ffi::lua_lessthan(state, 1, 2);
        ffi::lua_pushboolean(state, less);
        1
    }
}

/// A comparator that asks the interrupt and calls its only upvalue.
// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn through(state: *mut lua_State) -> c_int {
    // SAFETY: a sort gives two arguments; the slots are among the 20 that a call has.
    unsafe {
        ask(state);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, 2, 1);
        1
    }
}
