//! `ctx:step`: work that is done once, and remembered from attempt to attempt.
//!
//! The prelude calls `begin`, the step's function where that says so, `finish` with what it returned, and `result`. Owns the order of
//! these: nothing runs on state that moved, and the run goes on only when what a step came to is recorded.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mlua::{Lua, MultiValue, Table, Value};

use super::args::{method, text, wrong};
use super::ctx::{deciding, encode_within, running};
use super::kv::away;
use super::{Home, Problem, action, function, over_limit, waiting};
use crate::bus::{BusError, Step, StepAnswer, backoff};
use crate::failpoint;
use crate::outcome::{Outcome, RecordKey, Release};
use crate::script::convert::{DecodeError, Exact};
use crate::script::run::{Run, Task};
use crate::script::steps::Asked;

const STEP: &str = "ctx:step";
/// Longest name of a step in bytes.
const NAME_BYTES_MAX: usize = 128;

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let step = lua.create_table()?;
    step.raw_set("begin", waiting(lua, home, |_, home, args| begin(home, args))?)?;
    step.raw_set("finish", waiting(lua, home, finish)?)?;
    step.raw_set("drop", action(lua, home, |_, home, ()| abandon(home))?)?;
    step.raw_set("result", function(lua, home, |lua, home, (name,): (Value,)| result(lua, home, &name))?)?;
    Ok(step)
}

/// Whether the step is to be run.
async fn begin(home: Rc<Home>, (own, name, work, undo): (Value, Value, Value, Value)) -> Result<bool, Problem> {
    method(STEP, &own)?;
    let run = deciding(&home, STEP)?;
    let name = checked_name(&name)?;
    if !work.is_function() {
        return Err(wrong(STEP, "fn", "a function", &work));
    }
    if !undo.is_nil() {
        return Err(Problem::Wrong(format!("{STEP}: undo: not available in this version")));
    }
    recall(&run).await?;
    let asked = run.steps.borrow_mut().ask(&name, &run.limits).map_err(|over| over_limit(&run, &over))?;
    match asked {
        Asked::Known => return Ok(false),
        Asked::Twice => {
            return Err(Problem::Wrong(format!(
                "{STEP}: name: this run has a step {name:?} already; give each step a name of its own"
            )));
        }
        Asked::New => {}
    }
    check_reads(&run).await?;
    run.calls.borrow_mut().begin_step(name);
    Ok(true)
}

fn checked_name(name: &Value) -> Result<Arc<str>, Problem> {
    let text = text(STEP, "name", name)?;
    match text.len() {
        1..=NAME_BYTES_MAX => Ok(text.into()),
        _ => Err(wrong(STEP, "name", &format!("1 to {NAME_BYTES_MAX} bytes"), name)),
    }
}

/// Asks once what is recorded of the event's steps.
async fn recall(run: &Run) -> Result<(), Problem> {
    let unknown = run.steps.borrow().unknown();
    let (Some(task), Some(event)) = (run.task.as_ref(), unknown) else { return Ok(()) };
    let recorded = task.steps.recall(event).await.map_err(|error| away(run, STEP, error))?;
    run.steps.borrow_mut().remember(recorded);
    Ok(())
}

/// A step is not run on state that moved since it was read: the run is repeated before it does anything.
async fn check_reads(run: &Run) -> Result<(), Problem> {
    let keys = run.buffer.borrow().keys_seen();
    let Some(task) = run.task.as_ref().filter(|_| !keys.is_empty()) else { return Ok(()) };
    let values = task.lookups.read(keys.clone()).await.map_err(|error| away(run, STEP, error))?;
    let buffer = run.buffer.borrow();
    match keys.iter().zip(&values).find(|(key, value)| !buffer.is_still(key, value.as_ref())) {
        None => Ok(()),
        Some((key, _)) => {
            task.hot.mark(key);
            run.end(Outcome::Released(Release::Stale));
            Err(Problem::Ended)
        }
    }
}

/// Records what the step returned; the run goes on with it when it is recorded.
async fn finish(lua: Lua, home: Rc<Home>, returned: MultiValue) -> Result<Value, Problem> {
    let run = running(&home, STEP)?;
    let (name, event) = (run.calls.borrow_mut().end_step(), run.steps.borrow().event());
    let (Some(name), Some(task), Some(event)) = (name, run.task.as_ref(), event) else {
        return Err(Problem::Wrong(format!("{STEP}: no step is under way")));
    };
    let result = returned_text(&lua, &home, &run, &name, &returned)?;
    run.steps.borrow().check_room(&name, &result, &run.limits).map_err(|over| over_limit(&run, &over))?;
    failpoint::reached("step.before");
    let result = record(&run, task, event, &name, result).await?;
    failpoint::reached("step.after");
    run.steps.borrow_mut().keep(name, result);
    Ok(Value::Nil)
}

/// JSON; nothing where the step returned nothing.
fn returned_text(lua: &Lua, home: &Home, run: &Run, name: &str, returned: &MultiValue) -> Result<Bytes, Problem> {
    let argument = format!("what {name:?} returned");
    if returned.len() > 1 {
        let count = returned.len();
        return Err(Problem::Wrong(format!("{STEP}: {argument}: expected one value or none, got {count}")));
    }
    match returned.front() {
        None | Some(Value::Nil) => Ok(Bytes::new()),
        Some(value) => {
            let json = encode_within(lua, home, run, (STEP, &argument), value, run.limits.step_bytes_max)?;
            Ok(json.bytes().clone())
        }
    }
}

/// Records a step, as often as it takes within the run's deadline; answers what is recorded.
async fn record(run: &Run, task: &Task, event: RecordKey, name: &Arc<str>, result: Bytes) -> Result<Bytes, Problem> {
    let step = Step { event, name: name.clone(), result, kept: task.kept };
    let mut failures = 0;
    loop {
        match task.steps.record(&task.delivery, &step).await {
            Ok(StepAnswer::Recorded) => return Ok(step.result),
            Ok(StepAnswer::Known(result)) => return Ok(result),
            Ok(StepAnswer::Fenced | StepAnswer::StoreReset) => {
                run.end(Outcome::Released(Release::Lost));
                return Err(Problem::Ended);
            }
            Err(BusError::Refused(reason)) => return Err(Problem::Wrong(format!("{STEP}: {reason}"))),
            Err(BusError::Closed) => return Err(away(run, STEP, BusError::Closed)),
            Err(error) => tracing::debug!(handler = &*task.program.name, step = &**name, "not recorded yet: {error}"),
        }
        failures += 1;
        tokio::time::sleep(backoff(failures)).await;
    }
}

/// The step threw: nothing of it is recorded.
fn abandon(home: &Home) -> Result<(), Problem> {
    home.handling(STEP)?.calls.borrow_mut().end_step();
    Ok(())
}

/// What the step came to, as later attempts will see it.
fn result(lua: &Lua, home: &Home, name: &Value) -> Result<Exact, Problem> {
    let run = running(home, STEP)?;
    let recorded = run.steps.borrow().result(&text(STEP, "name", name)?);
    let Some(json) = recorded.filter(|json| !json.is_empty()) else { return Ok(Exact(Value::Nil)) };
    home.codec.decode_exact(lua, &json, false).map_err(|error| match error {
        DecodeError::Vm(error) => Problem::Vm(error),
        error => Problem::Wrong(format!("{STEP}: what is recorded of step {name:?} is not readable: {error}")),
    })
}
