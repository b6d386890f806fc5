//! What of `string` is bounded: searching, patterns, splitting, formatting.
//!
//! Owns how much one call may cost before it is refused; searching is done in linear time instead.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::{ask, integer, native, refuse, text};

/// What a search of one text for another may cost, as the product of their lengths, before it is done in linear time.
const SEARCH_LIGHT: usize = 1 << 16;
/// The most that splitting may cost, as the product of the lengths (about 0.1 s).
const SPLIT_MAX: usize = 1 << 31;
/// The most that a set in a pattern may cost, as the product of its length and the text's: the matcher does not ask the
/// interrupt while it repeats a set (about 0.2 s).
const SET_MAX: usize = 1 << 27;
/// Most values that one call formats (about 20 ms).
const VALUES_MAX: c_int = 10_000;

/// `string.find`: a plain search is quadratic in Luau.
// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn find(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function, and the texts are its arguments.
    unsafe {
        ask(state);
        if let (Some(within), Some(what)) = (text(state, 1), text(state, 2))
            && within.len().saturating_mul(what.len()) > SEARCH_LIGHT
        {
            if ffi::lua_toboolean(state, 4) == 0 && what.iter().any(|byte| b"^$*+?.([%-".contains(byte)) {
                bound_sets(state, within, what);
            } else if search(state, within, what) == Found::Nowhere {
                ffi::lua_pushnil(state);
                return 1;
            }
        }
        native(state)
    }
}

#[derive(PartialEq)]
enum Found {
    /// The start argument is now where it is.
    Here,
    Nowhere,
    /// Luau has something to say about the start argument.
    Unknown,
}

/// Finds `what` in linear time, and makes it the place where Luau's own search begins.
///
/// # Safety
/// As for [`native`].
unsafe fn search(state: *mut lua_State, within: &[u8], what: &[u8]) -> Found {
    // SAFETY: as the caller's; slot 3 is the start argument.
    unsafe {
        let start = if ffi::lua_type(state, 3) <= ffi::LUA_TNIL { Some(1) } else { integer(state, 3) };
        let len = within.len() as i64;
        let start = start.map(|start| if start < 0 { start + len + 1 } else { start }.max(1));
        let Some(start) = start.filter(|start| *start <= len + 1) else { return Found::Unknown };
        let Some(at) = memchr::memmem::find(&within[start as usize - 1..], what) else { return Found::Nowhere };
        if ffi::lua_gettop(state) < 3 {
            ffi::lua_settop(state, 3);
        }
        ffi::lua_pushnumber(state, (start + at as i64) as f64);
        ffi::lua_replace(state, 3);
        Found::Here
    }
}

/// `string.match`, `gmatch` and `gsub`.
// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn pattern(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function, and the texts are its arguments.
    unsafe {
        ask(state);
        if let (Some(within), Some(what)) = (text(state, 1), text(state, 2)) {
            bound_sets(state, within, what);
        }
        native(state)
    }
}

/// Refuses a pattern with a set that is too long for the text.
///
/// # Safety
/// As for [`native`].
unsafe fn bound_sets(state: *mut lua_State, within: &[u8], pattern: &[u8]) {
    if within.len().saturating_mul(pattern.len()) <= SET_MAX {
        return;
    }
    let (longest, len) = (longest_set(pattern), within.len());
    if len.saturating_mul(longest) > SET_MAX {
        let most = SET_MAX / len;
        // SAFETY: as the caller's.
        unsafe {
            refuse(
                state,
                format_args!(
                    ": pattern: expected a set of at most {most} bytes for a text of {len} bytes, got {longest}"
                ),
            );
        }
    }
}

/// Bytes of the longest `[set]` of a pattern, brackets included.
pub(super) fn longest_set(pattern: &[u8]) -> usize {
    let (mut at, mut longest) = (0, 0);
    while at < pattern.len() {
        let begin = at;
        match pattern[at] {
            b'%' => at += 1,
            b'[' => {
                // A bracket right at the beginning is part of the set.
                at += if pattern.get(at + 1) == Some(&b'^') { 3 } else { 2 };
                while at < pattern.len() && pattern[at] != b']' {
                    at += if pattern[at] == b'%' { 2 } else { 1 };
                }
                longest = longest.max(at + 1 - begin);
            }
            _ => {}
        }
        at += 1;
    }
    longest
}

/// `string.split` compares the separator at every byte.
// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn split(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function, and the texts are its arguments.
    unsafe {
        ask(state);
        if let (Some(within), Some(separator)) = (text(state, 1), text(state, 2)) {
            let (len, got) = (within.len(), separator.len());
            if len.saturating_mul(got) > SPLIT_MAX && got <= len {
                let most = SPLIT_MAX / len;
                refuse(
                    state,
                    format_args!(": separator: expected at most {most} bytes for a text of {len} bytes, got {got}"),
                );
            }
        }
        native(state)
    }
}

// SAFETY: Luau calls it, with its arguments on the stack.
pub(super) unsafe extern "C-unwind" fn format(state: *mut lua_State) -> c_int {
    // SAFETY: this is such a function.
    unsafe {
        ask(state);
        let values = ffi::lua_gettop(state) - 1;
        if values > VALUES_MAX {
            refuse(state, format_args!(": values: expected at most {VALUES_MAX}, got {values}"));
        }
        native(state)
    }
}
