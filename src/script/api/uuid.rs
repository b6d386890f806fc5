//! `uuid.*`.

use std::rc::Rc;

use mlua::{Lua, Table};
use uuid::Uuid;

use super::{Home, function};

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let uuid = lua.create_table()?;
    uuid.raw_set("v4", function(lua, home, |_, _, ()| Ok(Uuid::new_v4().to_string()))?)?;
    uuid.raw_set("v7", function(lua, home, |_, _, ()| Ok(Uuid::now_v7().to_string()))?)?;
    Ok(uuid)
}
