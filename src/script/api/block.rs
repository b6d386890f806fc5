//! `debug.block(duration)`: holds the script thread, uninterruptible. A hook for tests of the watchdog.
//!
//! Only in builds with debug assertions, and there only for a process whose environment asks for it.

use std::rc::Rc;

use mlua::{Lua, Value};

use super::args::duration;
use super::{Home, action};

/// Set to anything: scripts of this process have the function.
const ASKED: &str = "LET_SCRIPTS_BLOCK";

pub(super) fn function_of(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Value> {
    if !cfg!(test) && std::env::var_os(ASKED).is_none() {
        return Ok(Value::Nil);
    }
    let block = action(lua, home, |_, _, time| {
        std::thread::sleep(duration("debug.block", "duration", &time)?);
        Ok(())
    })?;
    Ok(Value::Function(block))
}
