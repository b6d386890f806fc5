//! `require`: modules of the snapshot, each run once per VM, while the handler's file is loaded.
//!
//! The prelude says which file asks. A module's table is frozen, because all runs of the VM share it.

use std::collections::BTreeMap;
use std::rc::Rc;

use mlua::{Function, Lua, Value};

use super::args::text;
use super::{Home, Problem, function};
use crate::script::compile;
use crate::script::fault;
use crate::script::run::Phase;

const REQUIRE: &str = "require";

/// The modules of one VM.
#[derive(Default)]
pub(in crate::script) struct Modules {
    /// What each returned, by path; `None` while its top level runs.
    loaded: BTreeMap<String, Option<Value>>,
    /// Those whose top level runs, outermost first.
    stack: Vec<String>,
}

impl Modules {
    /// Paths of all modules, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.loaded.keys().cloned().collect()
    }
}

pub(super) fn function_of(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Function> {
    function(lua, home, |lua, home, (name, from): (Value, Value)| {
        let name = text(REQUIRE, "name", &name)?;
        require(lua, home, &name, &text(REQUIRE, "file", &from)?)
    })
}

fn require(lua: &Lua, home: &Home, name: &str, from: &str) -> Result<Value, Problem> {
    let path = home.sources.resolve(from, name).map_err(|error| Problem::Wrong(format!("{REQUIRE}: name: {error}")))?;
    match home.modules.borrow().loaded.get(path) {
        Some(Some(value)) => return Ok(value.clone()),
        Some(None) => return Err(cycle(home, path)),
        None => {}
    }
    if home.meter.current().is_some_and(|run| run.phase.get() != Phase::Loading) {
        return Err(Problem::Wrong(format!(
            "{REQUIRE}: name: expected a module that is loaded, got {name:?}; require it at the top of the file"
        )));
    }
    run_module(lua, home, path)
}

fn run_module(lua: &Lua, home: &Home, path: &str) -> Result<Value, Problem> {
    enter(home, path);
    let value = returned_by(lua, home, path);
    let mut modules = home.modules.borrow_mut();
    modules.stack.pop();
    match &value {
        Ok(value) => modules.loaded.insert(path.to_owned(), Some(value.clone())),
        Err(_) => modules.loaded.remove(path),
    };
    value
}

fn returned_by(lua: &Lua, home: &Home, path: &str) -> Result<Value, Problem> {
    let chunk = compile::chunk(lua, &home.sources, path)?;
    let mut returned = match home.meter.current() {
        Some(run) => fault::unguarded(&run, fault::guard(home)?.call(chunk)?)?,
        None => chunk.call(())?,
    };
    let value = match (returned.len(), returned.pop_front()) {
        (1, Some(value)) if !value.is_nil() => value,
        (count, _) => {
            let got = format!("{REQUIRE}: {path}: expected a module that returns one value, got {count}");
            return Err(Problem::Wrong(got));
        }
    };
    if let Value::Table(table) = &value {
        table.set_readonly(true);
    }
    Ok(value)
}

fn enter(home: &Home, path: &str) {
    let mut modules = home.modules.borrow_mut();
    modules.loaded.insert(path.to_owned(), None);
    modules.stack.push(path.to_owned());
}

fn cycle(home: &Home, path: &str) -> Problem {
    let modules = home.modules.borrow();
    let round = modules.stack.iter().skip_while(|other| *other != path);
    let mut names: Vec<&str> = round.map(String::as_str).collect();
    names.push(path);
    Problem::Wrong(format!("{REQUIRE}: modules require each other in a circle: {}", names.join(" -> ")))
}
