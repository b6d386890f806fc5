//! Script errors, taken apart into message, file, line and a short trace before anyone prints them.
//!
//! Owns what is kept of an error, whatever was thrown. Nothing of the script is called to find out: an error's own
//! `__tostring` could loop.

use std::any::Any;
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Value};

use super::Sources;
use super::api::{Home, describe};
use super::convert::Bounds;
use super::hints::hint;
use super::run::Run;
use crate::outcome::{Failure, FailureKind, MESSAGE_BYTES_MAX};

/// Longest kept trace in bytes, and its frames.
const TRACE_BYTES_MAX: usize = 2048;
const FRAMES_MAX: usize = 20;
/// How Luau says that an allocation failed.
const NO_MEMORY: &[u8] = b"not enough memory";

/// Whether the VM's memory limit was hit.
pub(super) fn is_memory(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::MemoryError(_) => true,
        mlua::Error::CallbackError { cause, .. } | mlua::Error::BadArgument { cause, .. } => is_memory(cause),
        _ => false,
    }
}

/// Whether a thrown value says so.
fn is_memory_value(value: &Value) -> bool {
    match value {
        Value::String(text) => *text.as_bytes() == *NO_MEMORY,
        Value::Error(error) => is_memory(error),
        _ => false,
    }
}

/// The message of the innermost cause, without the traces that were added on its way.
pub(super) fn innermost(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => innermost(cause),
        mlua::Error::RuntimeError(text) | mlua::Error::MemoryError(text) => without_trace(text),
        mlua::Error::SyntaxError { message, .. } => without_trace(message),
        other => other.to_string(),
    }
}

fn without_trace(text: &str) -> String {
    text.split("\nstack traceback:").next().unwrap_or(text).to_owned()
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a defect of the host: {}", text.unwrap_or("panic"))
}

/// The handler of the run's own `xpcall`: a function of the host, so that it works where the run has ended already. It
/// takes the error apart while the stack still stands.
pub(super) fn handler(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Function> {
    let home = home.clone();
    lua.create_function(move |lua, error: Value| {
        let Some(run) = home.meter.current() else { return Ok(()) };
        if is_memory_value(&error) {
            run.fail_memory();
            return Ok(());
        }
        *run.fault.borrow_mut() = Some(thrown(lua, &home, &error));
        Ok(())
    })
}

/// The prelude's call of a file's top level; [`unguarded`] says what it came to.
pub(super) fn guard(home: &Home) -> mlua::Result<&Function> {
    home.load.get().ok_or_else(|| mlua::Error::runtime("the prelude did not run"))
}

/// What a guarded top level returned. What it threw is text in the end, a table too.
pub(super) fn unguarded(run: &Run, (ok, mut values): (bool, MultiValue)) -> mlua::Result<MultiValue> {
    if ok {
        return Ok(values);
    }
    Err(match (values.pop_front(), run.fault.take()) {
        (_, Some(fault)) => mlua::Error::RuntimeError(line_text(&fault)),
        (Some(value), None) if is_memory_value(&value) => mlua::Error::MemoryError("not enough memory".to_owned()),
        (value, None) => mlua::Error::RuntimeError(format!("{} was thrown", describe(&value.unwrap_or(Value::Nil)))),
    })
}

/// What `pcall` hands to the script for an error that is no text of its own: memory errors end the run, errors of the host
/// become text.
pub(super) fn caught(lua: &Lua, home: &Rc<Home>) -> mlua::Result<Function> {
    let home = home.clone();
    lua.create_function(move |lua, error: Value| {
        if is_memory_value(&error)
            && let Some(run) = home.meter.current()
        {
            run.fail_memory();
            home.meter.end_current();
        }
        match &error {
            Value::Error(inner) => lua.create_string(innermost(inner)).map(Value::String),
            _ => Ok(error),
        }
    })
}

fn thrown(lua: &Lua, home: &Home, error: &Value) -> Failure {
    let trace = trace(lua, &home.sources);
    let mut failure = match error {
        Value::String(text) => from_text(&home.sources, FailureKind::Error, &beginning(&text.as_bytes())),
        Value::Error(inner) => from_text(&home.sources, FailureKind::Error, &innermost(inner)),
        other => Failure::new(FailureKind::Error, value_text(lua, home, other)),
    };
    if let (None, Some((file, line, _))) = (&failure.file, trace.first()) {
        (failure.file, failure.line) = (Some(file.clone()), Some(*line));
    }
    failure.trace = trace_text(&trace);
    failure
}

/// As much of a message as is kept, and enough more that it is seen to be cut.
fn beginning(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(2 * MESSAGE_BYTES_MAX)]).into_owned()
}

/// What `error({ … })` threw, as JSON where it can be.
fn value_text(lua: &Lua, home: &Home, value: &Value) -> String {
    let bounds = Bounds { bytes_max: MESSAGE_BYTES_MAX, ..Bounds::default() };
    match value {
        Value::Table(_) => match home.codec.encode(lua, value, None, &bounds) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("a table was thrown that cannot be shown: {error}"),
        },
        other => format!("{} was thrown", describe(other)),
    }
}

/// An error that came as text: `file:line: message`, where the file is one of ours.
pub(super) fn from_text(sources: &Sources, kind: FailureKind, text: &str) -> Failure {
    let Some((file, line, message)) = placed(sources, text) else { return Failure::new(kind, text) };
    let hint = sources.line(file, line).and_then(|source| hint(message, source));
    // An error of a module comes by here once more on its way through the file that requires it.
    let mut failure = match hint.filter(|hint| !message.contains(hint)) {
        Some(hint) => Failure::new(kind, format!("{message} ({hint})")),
        None => Failure::new(kind, message),
    };
    (failure.file, failure.line) = (Some(file.to_owned()), Some(line));
    failure
}

fn placed<'a>(sources: &Sources, text: &'a str) -> Option<(&'a str, u32, &'a str)> {
    let (file, rest) = text.split_once(':')?;
    let (line, message) = rest.split_once(": ")?;
    sources.files.contains_key(file).then_some((file, line.parse().ok()?, message))
}

/// `file:line: message` again, for people who read it in a list of problems.
pub(super) fn line_text(failure: &Failure) -> String {
    match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: {}", failure.message),
        _ => failure.message.clone(),
    }
}

/// The frames of scripts, innermost first.
fn trace(lua: &Lua, sources: &Sources) -> Vec<(String, u32, Option<String>)> {
    let frame = |level| {
        lua.inspect_stack(level, |frame| {
            let file = frame.source().short_src.map(|file| file.into_owned());
            let line = frame.current_line().and_then(|line| u32::try_from(line).ok());
            (file, line, frame.names().name.map(|name| name.into_owned()))
        })
    };
    let frames = (0..FRAMES_MAX * 4).map_while(frame);
    let ours = frames.filter_map(|(file, line, name)| {
        let file = file.filter(|file| sources.files.contains_key(file))?;
        Some((file, line?, name))
    });
    ours.take(FRAMES_MAX).collect()
}

fn trace_text(trace: &[(String, u32, Option<String>)]) -> Option<String> {
    let line = |(file, line, name): &(String, u32, Option<String>)| match name {
        Some(name) => format!("{file}:{line} {name}"),
        None => format!("{file}:{line}"),
    };
    let mut text = trace.iter().map(line).collect::<Vec<_>>().join("\n");
    text.truncate(text.floor_char_boundary(TRACE_BYTES_MAX));
    (!text.is_empty()).then_some(text)
}
