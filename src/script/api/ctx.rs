//! `ctx`: emit and cancel, sleep, and the three calls that end a run.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, Table, Value};
use serde_json::value::RawValue;

use super::args::{cut, duration, method, optional_text, options, text, wrong};
use super::{Home, Problem, action, function, http, later, over_limit, waiting};
use crate::clock::rfc3339;
use crate::event::{ATTRIBUTE_BYTES_MAX, Event, Json, TRAIL, Trail, check_type};
use crate::failpoint;
use crate::outcome::{Emit, MESSAGE_BYTES_MAX, Outcome};
use crate::script::convert::{Bounds, EncodeError};
use crate::script::run::{Run, Task};
use crate::streams::check_stream;

const EMIT: &str = "ctx:emit";
const EMIT_OPTIONS: [&str; 6] = ["id", "subject", "stream", "delay", "partition_key", "ext"];
/// Where `partition_key` travels: the CloudEvents extension of the partitioning specification.
const PARTITION_KEY: &str = "partitionkey";

/// The extension attributes that say which handler, and which version of it, made an event, and what chain of emits led there.
/// They are the host's: nothing that a script gives has their names.
pub(in crate::script) struct Signature(String);

impl Signature {
    /// Written once, and not for each event.
    pub fn of(handler: &str, version: &str) -> Self {
        Self(serde_json::json!({ "handler": handler, "handlerversion": version }).to_string())
    }

    /// Of what is emitted at the end of `trail`. Written once per run, and not for each event.
    fn after(&self, trail: &Trail) -> Json {
        let mut text = self.0.clone();
        text.pop();
        Json::trusted(format!("{text},{}:{}}}", serde_json::json!(TRAIL), serde_json::json!(trail.text())))
    }
}

/// `signature` besides what a script gives.
fn signed(signature: &Json, partition_key: Option<&str>, given: Option<&Json>) -> Result<Json, serde_json::Error> {
    let mut members: BTreeMap<String, Box<RawValue>> = match given {
        Some(given) => serde_json::from_slice(given.bytes())?,
        None => BTreeMap::new(),
    };
    members.extend(serde_json::from_slice::<BTreeMap<_, _>>(signature.bytes())?);
    if let Some(key) = partition_key {
        members.insert(PARTITION_KEY.to_owned(), serde_json::value::to_raw_value(key)?);
    }
    serde_json::to_vec(&members).map(Json::trusted)
}

pub(super) fn functions(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Table> {
    let ctx = lua.create_table()?;
    ctx.raw_set("emit", action(lua, home, |lua, home, args| emit(lua, home, args))?)?;
    ctx.raw_set("cancel", action(lua, home, |_, home, args| cancel(home, args))?)?;
    ctx.raw_set("sleep", waiting(lua, home, |_, home, args| sleep(home, args))?)?;
    ctx.raw_set("retry", action(lua, home, |_, home, args| retry(home, args))?)?;
    ctx.raw_set("snooze", action(lua, home, |_, home, args| snooze(home, args))?)?;
    ctx.raw_set("reject", action(lua, home, |_, home, args| reject(home, args))?)?;
    ctx.raw_set("snooze_if_busy", function(lua, home, |_, home, args| http::snooze_if_busy(home, args))?)?;
    for (key, name) in [("wait_for", "ctx:wait_for"), ("wait_for_all", "ctx:wait_for_all")] {
        ctx.raw_set(key, later(lua, home, name)?)?;
    }
    Ok(ctx)
}

fn emit(lua: &Lua, home: &Home, args: (Value, Value, Value, Value)) -> Result<(), Problem> {
    let (own, kind, data, opts) = args;
    method(EMIT, &own)?;
    let run = deciding(home, EMIT)?;
    let kind = text(EMIT, "type", &kind)?;
    check_type(&kind)
        .map_err(|error| Problem::Wrong(format!("{EMIT}: type: expected an event type, got {kind:?}: {error}")))?;
    let data = encode(lua, home, &run, (EMIT, "data"), &data)?;
    let emit = with_options(lua, home, &run, envelope(home, &run, kind, data)?, &opts)?;
    fits_layout(&run, &emit)?;
    let added = run.buffer.borrow_mut().emit(emit, &run.limits);
    failpoint::reached("run.mid");
    added.map_err(|over| over_limit(&run, &over))
}

fn cancel(home: &Home, (own, id): (Value, Value)) -> Result<(), Problem> {
    const CANCEL: &str = "ctx:cancel";
    method(CANCEL, &own)?;
    let run = running(home, CANCEL)?;
    let text = text(CANCEL, "id", &id)?;
    if text.is_empty() || text.len() > ATTRIBUTE_BYTES_MAX {
        return Err(wrong(CANCEL, "id", &format!("1 to {ATTRIBUTE_BYTES_MAX} bytes"), &id));
    }
    let cancelled = run.buffer.borrow_mut().cancel(&text, &run.limits);
    cancelled.map_err(|over| over_limit(&run, &over))
}

/// The event as far as the script has no say in it.
fn envelope(home: &Home, run: &Run, kind: String, data: Json) -> Result<Emit, Problem> {
    let (Some(task), Some(cause)) = (run.task.as_ref(), run.task.as_ref().and_then(Task::event)) else {
        return Err(Problem::Wrong(format!("{EMIT}: can be called only while `handle` runs")));
    };
    let chain = || task.delivery.trail().next(&task.program.name, &cause.kind);
    let signature = run.signature.get_or_init(|| home.signature.after(&chain()));
    let event = Event {
        id: uuid::Uuid::now_v7().to_string(),
        source: format!("{}/{}", task.services.source, task.program.name),
        subject: None,
        time: Some(rfc3339(home.clock.now())),
        dataschema: None,
        correlation_id: Some(cause.correlation_id.as_ref().unwrap_or(&cause.id).clone()),
        causation_id: Some(cause.id.clone()),
        traceparent: cause.traceparent.clone(),
        ext: Some(signature.clone()),
        data: Some(data),
        kind,
    };
    Ok(Emit { stream: task.services.streams.of(&event.kind), event, delay: None })
}

/// Refused here, where the script can be told: when it is settled, nobody can.
fn fits_layout(run: &Run, emit: &Emit) -> Result<(), Problem> {
    let Some(task) = &run.task else { return Ok(()) };
    let fits = task.services.streams.check(&emit.stream, &emit.event);
    fits.map_err(|why| Problem::Wrong(format!("{EMIT}: data: {why}")))
}

fn with_options(lua: &Lua, home: &Home, run: &Run, mut emit: Emit, opts: &Value) -> Result<Emit, Problem> {
    let Some(opts) = options(EMIT, opts, &EMIT_OPTIONS)? else { return Ok(emit) };
    if let Some(id) = attribute(&opts, "id")? {
        emit.event.id = id;
    }
    emit.event.subject = attribute(&opts, "subject")?;
    if let Some(stream) = attribute(&opts, "stream")? {
        check_stream(&stream).map_err(|reason| {
            Problem::Wrong(format!("{EMIT}: opts.stream: expected a stream of events, got {stream:?}: {reason}"))
        })?;
        emit.stream = stream;
    }
    let (key, given) = (attribute(&opts, "partition_key")?, extensions(lua, home, run, &opts)?);
    if let Some(signature) = emit.event.ext.as_ref().filter(|_| key.is_some() || given.is_some()) {
        let ext = signed(signature, key.as_deref(), given.as_ref());
        emit.event.ext = Some(ext.map_err(|error| Problem::Wrong(format!("{EMIT}: opts.ext: {error}")))?);
    }
    let delay: Value = opts.raw_get("delay")?;
    emit.delay = if delay.is_nil() { None } else { Some(duration(EMIT, "opts.delay", &delay)?) };
    Ok(emit)
}

/// What a script gives besides the attributes that have names of their own.
fn extensions(lua: &Lua, home: &Home, run: &Run, opts: &Table) -> Result<Option<Json>, Problem> {
    const EXT: &str = "opts.ext";
    let given: Value = opts.raw_get("ext")?;
    if given.is_nil() {
        return Ok(None);
    }
    let ext = encode(lua, home, run, (EMIT, EXT), &given)?;
    match ext.bytes().first() {
        Some(b'{') => Ok(Some(ext)),
        _ => Err(wrong(EMIT, EXT, "a table with names", &given)),
    }
}

fn attribute(opts: &Table, key: &str) -> Result<Option<String>, Problem> {
    let (argument, value) = (format!("opts.{key}"), opts.raw_get(key)?);
    let text = optional_text(EMIT, &argument, &value)?;
    match text {
        Some(text) if text.is_empty() || text.len() > ATTRIBUTE_BYTES_MAX => {
            Err(wrong(EMIT, &argument, &format!("1 to {ATTRIBUTE_BYTES_MAX} bytes"), &value))
        }
        text => Ok(text),
    }
}

/// `value` as the JSON of an effect; `place` is the function and its argument.
pub(super) fn encode(lua: &Lua, home: &Home, run: &Run, place: (&str, &str), value: &Value) -> Result<Json, Problem> {
    let (function, argument) = place;
    if value.is_nil() {
        return Err(wrong(function, argument, "what JSON can keep (json.null, or {})", value));
    }
    encode_within(lua, home, run, place, value, run.limits.payload_bytes_max)
}

/// `value` as JSON of at most `bytes_max` bytes.
pub(super) fn encode_within(
    lua: &Lua,
    home: &Home,
    run: &Run,
    (function, argument): (&str, &str),
    value: &Value,
    bytes_max: usize,
) -> Result<Json, Problem> {
    let data = run.data.borrow();
    let text = run.task.as_ref().and_then(Task::event).and_then(|event| event.data.as_ref());
    let known = data.as_ref().zip(text).map(|(table, text)| (table, &text.bytes()[..]));
    let bounds = Bounds { bytes_max, ..Bounds::default() };
    home.codec.encode(lua, value, known, &bounds).map(Json::trusted).map_err(|error| match error {
        EncodeError::Vm(error) => Problem::Vm(error),
        error => {
            let message =
                format!("{function}: {argument}: expected what JSON can keep, but {}", error.rooted(argument));
            *run.unfit.borrow_mut() = Some(message.clone());
            Problem::Wrong(message)
        }
    })
}

/// The run that calls, as long as it has not ended.
pub(super) fn running(home: &Home, function: &str) -> Result<Rc<Run>, Problem> {
    let run = home.handling(function)?;
    if run.ended() { Err(Problem::Ended) } else { Ok(run) }
}

/// The run that calls, where no step of it is under way: what a step does is not repeated with the run, so nothing in it may
/// depend on the run's state, or say how the run ends.
pub(super) fn deciding(home: &Home, function: &str) -> Result<Rc<Run>, Problem> {
    let run = running(home, function)?;
    match run.calls.borrow().step() {
        None => {}
        Some(step) => {
            return Err(Problem::Wrong(format!(
                "{function}: cannot be called inside step {step:?}, which is not run again when the run is repeated: call it \
                 before or after the step"
            )));
        }
    }
    Ok(run)
}

async fn sleep(home: Rc<Home>, (own, time): (Value, Value)) -> Result<Value, Problem> {
    method("ctx:sleep", &own)?;
    running(&home, "ctx:sleep")?;
    tokio::time::sleep(duration("ctx:sleep", "duration", &time)?).await;
    Ok(Value::Nil)
}

/// As much of a reason as is kept: it outlives the VM's memory limit.
fn reason_text(function: &str, reason: &Value) -> Result<Option<String>, Problem> {
    let text = optional_text(function, "reason", reason)?;
    Ok(text.map(|text| cut(&text, MESSAGE_BYTES_MAX)))
}

fn retry(home: &Home, (own, after, reason): (Value, Value, Value)) -> Result<(), Problem> {
    const RETRY: &str = "ctx:retry";
    method(RETRY, &own)?;
    let run = deciding(home, RETRY)?;
    let after = if after.is_nil() { Duration::ZERO } else { duration(RETRY, "after", &after)? };
    let reason = reason_text(RETRY, &reason)?.unwrap_or_else(|| "the script asked for a retry".into());
    run.end(Outcome::Retry { after, reason });
    Err(Problem::Ended)
}

fn snooze(home: &Home, (own, after, reason): (Value, Value, Value)) -> Result<(), Problem> {
    const SNOOZE: &str = "ctx:snooze";
    method(SNOOZE, &own)?;
    let run = deciding(home, SNOOZE)?;
    let after = duration(SNOOZE, "after", &after)?;
    let reason = reason_text(SNOOZE, &reason)?.unwrap_or_else(|| "the script asked for a snooze".into());
    run.end(Outcome::Snooze { after, reason });
    Err(Problem::Ended)
}

fn reject(home: &Home, (own, reason): (Value, Value)) -> Result<(), Problem> {
    const REJECT: &str = "ctx:reject";
    method(REJECT, &own)?;
    let run = deciding(home, REJECT)?;
    let reason = reason_text(REJECT, &reason)?.ok_or_else(|| wrong(REJECT, "reason", "text", &reason))?;
    run.end(Outcome::Reject { reason });
    Err(Problem::Ended)
}
