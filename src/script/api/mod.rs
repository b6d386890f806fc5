//! What scripts can call, one file per library.
//!
//! Owns how host functions are called: they answer with a value or a [`Problem`], the prelude throws the problem at the
//! caller's line, and a panic ends the run and its VM even where the script catches errors. Knows what a run may do, never
//! what becomes of it.

mod args;
#[cfg(debug_assertions)]
mod block;
mod call_parts;
mod config;
mod ctx;
mod http;
mod json;
mod kv;
mod log;
mod metrics;
mod require;
mod step;
mod time;
mod uuid;

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use mlua::{FromLuaMulti, Function, IntoLua, Lua, Table, Value};

pub(super) use self::args::describe;
pub(super) use self::ctx::Signature;
pub(super) use self::log::Bucket;
use super::buffer::OverLimit;
use super::convert::Codec;
use super::meter::Meter;
use super::run::{Phase, Run};
use super::{Granted, Sources};
use crate::clock::Clock;
use crate::outcome::FailureKind;

/// What the functions of one VM share.
pub(super) struct Home {
    pub name: Arc<str>,
    pub version: Arc<str>,
    /// `ctx.instance`.
    pub instance: Arc<str>,
    /// What every emitted event says of its maker.
    pub signature: Signature,
    pub clock: Arc<dyn Clock>,
    pub granted: Granted,
    pub sources: Arc<Sources>,
    pub codec: Codec,
    pub meter: Rc<Meter>,
    pub bucket: Rc<RefCell<Bucket>>,
    pub modules: RefCell<require::Modules>,
    /// The prelude's call of a file's top level.
    pub load: OnceCell<Function>,
}

impl Home {
    /// The run that calls; `function` is named where there is none, or where it may not call it.
    fn handling(&self, function: &str) -> Result<Rc<Run>, Problem> {
        match self.meter.current() {
            Some(run) if run.phase.get() == Phase::Handling => Ok(run),
            _ => Err(Problem::Wrong(format!("{function}: can be called only while `handle` runs"))),
        }
    }
}

/// Why a host function gives no value.
pub(super) enum Problem {
    /// A wrong argument, or a wrong time to call: thrown at the caller's line.
    Wrong(String),
    /// The run has ended: nothing it does counts any more.
    Ended,
    /// The VM itself: at its memory limit, or the like.
    Vm(mlua::Error),
}

impl From<mlua::Error> for Problem {
    fn from(error: mlua::Error) -> Self {
        Self::Vm(error)
    }
}

impl Problem {
    /// The text to throw; an end is made final on the way.
    fn text(self, home: &Home) -> String {
        match self {
            Self::Wrong(text) => text,
            Self::Ended => {
                home.meter.end_current();
                "this run has ended".to_owned()
            }
            Self::Vm(error) => {
                if super::fault::is_memory(&error)
                    && let Some(run) = home.meter.current()
                {
                    run.fail_memory();
                    home.meter.end_current();
                }
                super::fault::innermost(&error)
            }
        }
    }
}

/// Ends `run` because it asked for more than a limit allows.
fn over_limit(run: &Run, over: &OverLimit) -> Problem {
    run.fail(FailureKind::Effects, over.to_string());
    Problem::Ended
}

/// What a host function hands to the prelude: a problem, or nil and a value.
type Reply<R> = (Option<String>, Option<R>);

fn reply<R>(home: &Home, answer: Result<Result<R, Problem>, Box<dyn Any + Send>>) -> Reply<R> {
    let problem = match answer {
        Ok(Ok(value)) => return (None, Some(value)),
        Ok(Err(problem)) => problem,
        Err(panic) => {
            if let Some(run) = home.meter.current() {
                run.fail_host(super::fault::panic_text(&*panic));
            }
            Problem::Ended
        }
    };
    (Some(problem.text(home)), None)
}

/// A host function that answers at once.
fn function<A, R>(
    lua: &Lua,
    home: &Rc<Home>,
    f: impl Fn(&Lua, &Rc<Home>, A) -> Result<R, Problem> + 'static,
) -> mlua::Result<Function>
where
    A: FromLuaMulti,
    R: IntoLua,
{
    let home = home.clone();
    lua.create_function(move |lua, args: A| Ok(reply(&home, catch_unwind(AssertUnwindSafe(|| f(lua, &home, args))))))
}

/// A host function that answers nothing.
fn action<A: FromLuaMulti>(
    lua: &Lua,
    home: &Rc<Home>,
    f: impl Fn(&Lua, &Rc<Home>, A) -> Result<(), Problem> + 'static,
) -> mlua::Result<Function> {
    function(lua, home, move |lua, home, args| f(lua, home, args).map(|()| Value::Nil))
}

/// A host function that waits without holding the thread.
fn waiting<A, R, F>(
    lua: &Lua,
    home: &Rc<Home>,
    f: impl Fn(Lua, Rc<Home>, A) -> F + Clone + 'static,
) -> mlua::Result<Function>
where
    A: FromLuaMulti + 'static,
    R: IntoLua + 'static,
    F: Future<Output = Result<R, Problem>> + 'static,
{
    let home = home.clone();
    lua.create_async_function(move |lua, args: A| {
        let (f, home) = (f.clone(), home.clone());
        async move {
            let answer = AssertUnwindSafe(async { f(lua.clone(), home.clone(), args).await }).catch_unwind().await;
            Ok(reply(&home, answer))
        }
    })
}

/// A host function that a later version has.
fn later(lua: &Lua, home: &Rc<Home>, name: &'static str) -> mlua::Result<Function> {
    action(lua, home, move |_, _, ()| Err(Problem::Wrong(format!("{name}: not available in this version"))))
}

/// Every host function as the prelude takes them, by library.
pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let all = lua.create_table()?;
    all.raw_set("ctx", ctx::functions(lua, home)?)?;
    all.raw_set("kv", kv::functions(lua, home)?)?;
    all.raw_set("step", step::functions(lua, home)?)?;
    all.raw_set("log", log::functions(lua, home)?)?;
    all.raw_set("metrics", metrics::functions(lua, home)?)?;
    all.raw_set("time", time::functions(lua, home)?)?;
    all.raw_set("uuid", uuid::functions(lua, home)?)?;
    all.raw_set("config", config::functions(lua, home)?)?;
    all.raw_set("json", json::functions(lua, home)?)?;
    all.raw_set("http", http::functions(lua, home)?)?;
    all.raw_set("answer", http::methods(lua, home)?)?;
    all.raw_set("null", home.codec.null())?;
    all.raw_set("require", require::function_of(lua, home)?)?;
    #[cfg(debug_assertions)]
    all.raw_set("block", block::function_of(lua, home)?)?;
    all.raw_set("fault", super::fault::handler(lua, home)?)?;
    all.raw_set("caught", super::fault::caught(lua, home)?)?;
    all.raw_set("handler", &*home.name)?;
    all.raw_set("version", &*home.version)?;
    all.raw_set("instance", &*home.instance)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::outcome::Outcome;
    use crate::script::Limits;
    use crate::script::run::Ruin;
    use crate::script::vm::{Opening, Vm};

    #[test]
    fn a_panic_of_the_host_ends_run_and_vm_although_the_script_catches_it() {
        let text = "return function(boom) return pcall(boom) end";
        let sources = Arc::new(Sources::new([("work.luau".to_owned(), Arc::from(text))]));
        let meter = Meter::unwatched();
        let opening = Opening {
            name: "work".into(),
            version: "".into(),
            instance: "".into(),
            file: "work.luau",
            sources: &sources,
            granted: &Granted::default(),
            limits: &Limits::default(),
            clock: Arc::new(SystemClock),
            meter: meter.clone(),
            bucket: Rc::new(RefCell::new(Bucket::full())),
        };
        let vm = Vm::open(opening).now_or_never().expect("nothing yields").expect("the file loads");
        let boom = action(&vm.lua, &vm.home, |_, _, ()| panic!("on purpose")).expect("a function can be made");
        let run = Rc::new(Run::loading(Limits::default()));
        let called = {
            let _slice = meter.enter(&run);
            vm.handle().expect("the file returned a function").0.call::<Value>(boom)
        };
        assert!(called.is_err(), "nothing goes on after it: {called:?}");
        assert_eq!(run.ruins(), Ruin::Dead);
        let Some(Outcome::Failed(failure)) = run.take_end() else { panic!("the run has failed") };
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Host, "a defect of the host: on purpose"));
    }
}
