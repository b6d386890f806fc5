//! `config.get(name)`: the values and secrets that the operator granted to this handler, and no others.

use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::args::{text, wrong};
use super::{Home, Problem, function};

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let config = lua.create_table()?;
    config.raw_set("get", function(lua, home, |_, home, name| get(home, &name))?)?;
    Ok(config)
}

fn get(home: &Home, name: &Value) -> Result<String, Problem> {
    const GET: &str = "config.get";
    let key = text(GET, "name", name)?;
    let value = home.granted.values.get(&key).map(String::as_str).or_else(|| home.granted.secrets.get(&key));
    value.map(str::to_owned).ok_or_else(|| {
        let expected = format!("a name that the configuration grants to {}", home.name);
        wrong(GET, "name", &expected, name)
    })
}
