//! One Luau VM: the sandbox, the libraries, and one handler's file in it.
//!
//! Owns which globals scripts have. A VM belongs to one thread and one version of one
//! handler; nothing of a run stays in it but what the script keeps in its own top-level locals.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, StdLib, Table, Value};

use super::api::{self, Bucket, Home, Signature};
use super::compile;
use super::convert::Codec;
use super::fault;
use super::meter::Meter;
use super::metered::{Memory, metered};
use super::natives;
use super::run::Run;
use super::{Granted, Limits, Program, Sources};
use crate::clock::Clock;
use crate::outcome::{Failure, FailureKind, Outcome};
use crate::units;

/// What host calls may use above the limit, so that they fail as errors and not half-way.
const MEMORY_SLACK: usize = 128 << 10;
/// Coroutines kept for further runs.
const COROUTINES_KEPT: usize = 64;

/// The globals of Luau that scripts get; the prelude adds the host's.
const ALLOWED: [&str; 26] = [
    "_VERSION",
    "assert",
    "bit32",
    "buffer",
    "error",
    "getmetatable",
    "integer",
    "ipairs",
    "math",
    "next",
    "pairs",
    "rawequal",
    "rawget",
    "rawlen",
    "rawset",
    "select",
    "setmetatable",
    "string",
    "table",
    "tonumber",
    "tostring",
    "type",
    "typeof",
    "unpack",
    "utf8",
    "vector",
];

/// What a VM is opened with.
pub(super) struct Opening<'a> {
    pub name: Arc<str>,
    pub version: Arc<str>,
    pub instance: Arc<str>,
    pub file: &'a str,
    pub sources: &'a Arc<Sources>,
    pub granted: &'a Granted,
    pub limits: &'a Limits,
    pub clock: Arc<dyn Clock>,
    pub meter: Rc<Meter>,
    /// What may be logged; it outlives VMs, so that a script that loses its own gets no fresh one.
    pub bucket: Rc<RefCell<Bucket>>,
}

/// A VM whose file was run: what it returned, and what it takes to run it.
pub(super) struct Vm {
    pub lua: Lua,
    pub home: Rc<Home>,
    /// What the file returned.
    pub returned: Value,
    pub entries: Entries,
    pub memory: Memory,
    /// Memory in use at which garbage is collected before a run.
    collect_at: Cell<usize>,
}

/// The prelude's ways into a script.
pub(super) struct Entries {
    run: Function,
    key: Function,
    seal: Function,
}

impl Vm {
    /// Makes a VM and runs the file's top level once, under the limits; the top level yields to others as a run does.
    pub async fn open(opening: Opening<'_>) -> Result<Self, Failure> {
        let unusable = |error: mlua::Error| Failure::new(FailureKind::Host, format!("no VM: {error}"));
        let lua = new_lua().map_err(unusable)?;
        let home = home(&lua, &opening).map_err(unusable)?;
        let entries = install(&lua, &home).map_err(unusable)?;
        let memory_max = lua.used_memory() + opening.limits.memory_bytes + MEMORY_SLACK;
        let memory = Memory::limit(&lua, memory_max).map_err(unusable)?;
        let meter = opening.meter.clone();
        lua.set_interrupt(move |_| meter.check());
        let returned = top_level(&lua, &home, &opening, &memory).await?;
        seal(&lua, &entries).map_err(unusable)?;
        Ok(Self { lua, home, returned, entries, memory, collect_at: Cell::new(memory_max / 2) })
    }

    /// What it holds now.
    pub fn memory_bytes(&self) -> usize {
        self.lua.used_memory()
    }

    /// `handle` of a loaded program, and the function that makes its idempotency key.
    pub fn handle(&self) -> Result<(Function, Option<Function>), Failure> {
        let table = match &self.returned {
            Value::Function(handle) => return Ok((handle.clone(), None)),
            Value::Table(table) => table,
            _ => return Err(changed()),
        };
        let key = table.raw_get::<Option<Table>>("idempotency").ok().flatten();
        let key = key.and_then(|table| table.raw_get::<Value>("key").ok());
        let handle = table.raw_get("handle").map_err(|_| changed())?;
        Ok((handle, key.and_then(|key| key.as_function().cloned())))
    }

    /// The prelude's call of `handle`.
    pub fn run_entry(&self) -> &Function {
        &self.entries.run
    }

    /// The prelude's call of the key function.
    pub fn key_entry(&self) -> &Function {
        &self.entries.key
    }

    /// Collects garbage if much of the limit is in use: Luau itself does not when an allocation fails. What is alive
    /// raises the mark, so that a full VM does not collect before every run.
    pub fn tidy(&self) {
        if self.lua.used_memory() > self.collect_at.get() {
            self.collect();
            let midway = self.lua.used_memory().midpoint(self.memory.max);
            self.collect_at.set(midway.max(self.memory.max / 2));
        }
    }

    /// Collects all garbage. A failure shows itself as a memory error of the run that follows.
    pub fn collect(&self) {
        drop(self.lua.gc_collect());
    }
}

/// A program's file returned something else than when it was loaded.
fn changed() -> Failure {
    Failure::new(FailureKind::Error, "the file returned something else than when it was loaded")
}

impl<'a> Opening<'a> {
    /// How `program` is opened on a script thread.
    pub fn of(
        program: &'a Program,
        instance: Arc<str>,
        clock: Arc<dyn Clock>,
        meter: Rc<Meter>,
        bucket: Rc<RefCell<Bucket>>,
    ) -> Self {
        Self {
            name: program.name.clone(),
            version: program.version.clone(),
            instance,
            file: &program.file,
            sources: &program.sources,
            granted: &program.granted,
            limits: &program.manifest.limits,
            clock,
            meter,
            bucket,
        }
    }
}

fn new_lua() -> mlua::Result<Lua> {
    let libraries = StdLib::COROUTINE
        | StdLib::TABLE
        | StdLib::OS
        | StdLib::STRING
        | StdLib::UTF8
        | StdLib::BIT
        | StdLib::MATH
        | StdLib::BUFFER
        | StdLib::VECTOR
        | StdLib::INTEGER
        | StdLib::DEBUG;
    Lua::new_with(libraries, LuaOptions::new().thread_pool_size(COROUTINES_KEPT))
}

fn home(lua: &Lua, opening: &Opening<'_>) -> mlua::Result<Rc<Home>> {
    Ok(Rc::new(Home {
        name: opening.name.clone(),
        version: opening.version.clone(),
        instance: opening.instance.clone(),
        signature: Signature::of(&opening.name, &opening.version),
        clock: opening.clock.clone(),
        granted: opening.granted.clone(),
        sources: opening.sources.clone(),
        codec: Codec::install(lua)?,
        meter: opening.meter.clone(),
        bucket: opening.bucket.clone(),
        modules: RefCell::default(),
        load: OnceCell::new(),
    }))
}

/// Makes the globals: what Luau has and scripts may have, and what the prelude makes of the host's functions.
fn install(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Entries> {
    natives::install(lua)?;
    let globals = lua.globals();
    let host = api::functions(lua, home)?;
    let made = lua.create_table()?;
    let prelude = lua.load(include_str!("prelude.luau")).set_name("=moontide").set_mode(ChunkMode::Text);
    let entries: Table = prelude.call((host, made.clone()))?;
    let names: Vec<Value> =
        globals.pairs::<Value, Value>().map(|pair| pair.map(|pair| pair.0)).collect::<Result<_, _>>()?;
    for name in names {
        let allowed =
            name.as_string().is_some_and(|name| ALLOWED.iter().any(|known| name.as_bytes() == known.as_bytes()));
        if !allowed {
            globals.raw_set(name, Value::Nil)?;
        }
    }
    for pair in made.pairs::<Value, Value>() {
        let (name, value) = pair?;
        globals.raw_set(name, value)?;
    }
    lua.sandbox(true)?;
    home.load.set(entries.raw_get("load")?).map_err(|_| mlua::Error::runtime("the prelude ran twice"))?;
    Ok(Entries { run: entries.raw_get("run")?, key: entries.raw_get("key")?, seal: entries.raw_get("seal")? })
}

/// Freezes what the top level left in its globals.
fn seal(lua: &Lua, entries: &Entries) -> mlua::Result<()> {
    let globals = lua.globals();
    let base = globals.metatable().map(|meta| meta.raw_get::<Value>("__index")).transpose()?;
    entries.seal.call((globals, base))
}

/// Runs the file; its budget is the processor limit of a run. What it requires runs within calls of the host, where nothing can
/// yield: there only the budget bounds it.
async fn top_level(lua: &Lua, home: &Home, opening: &Opening<'_>, memory: &Memory) -> Result<Value, Failure> {
    let run = Rc::new(Run::loading(opening.limits.clone()));
    // Compiling has a budget of its own.
    let calls = compile::chunk(lua, opening.sources, opening.file).and_then(|chunk| Ok((fault::guard(home)?, chunk)));
    let returned = match calls {
        Ok((guard, chunk)) => metered(&opening.meter, &run, memory, guard.call_async(chunk)).await,
        Err(error) => Err(error),
    };
    let returned = returned.and_then(|called| fault::unguarded(&run, called));
    if run.is_out_of_memory() || returned.as_ref().is_err_and(fault::is_memory) {
        return Err(out_of_memory(opening.limits));
    }
    match (run.take_end(), returned) {
        (Some(Outcome::Failed(failure)), _) => Err(failure),
        (_, Ok(mut values)) => Ok(values.pop_front().unwrap_or(Value::Nil)),
        (_, Err(error)) => Err(fault::from_text(&home.sources, FailureKind::Error, &fault::innermost(&error))),
    }
}

/// What a run that hit the VM's memory limit failed of.
pub(super) fn out_of_memory(limits: &Limits) -> Failure {
    let limit = units::show_bytes(limits.memory_bytes as u64);
    Failure::new(FailureKind::Memory, format!("needed more than limits.memory = \"{limit}\"; keep less, or raise it"))
}
