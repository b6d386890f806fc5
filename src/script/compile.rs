//! Compiling a file: once per snapshot, with a budget, and never on a script thread.
//!
//! Owns how large a source may be and how long compiling it may take; Luau's compiler asks no interrupt (8.4 MB took 12 s).
//! The code it makes is the only bytecode that is ever loaded: foreign bytecode can do anything.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Error, Function, Lua};
use parking_lot::Mutex;

use super::Sources;

/// Longest source file in bytes; the worst that was found compiles in a second.
pub(super) const SOURCE_BYTES_MAX: usize = 512 << 10;
/// A file up to this size is compiled where it is needed (the worst: 20 ms), a larger one on a thread of its own.
const SMALL_BYTES_MAX: usize = 32 << 10;
/// How long the thread may take.
const COMPILE_MAX: Duration = Duration::from_secs(5);
/// Luau's parser goes deep: as deep as on a script thread.
const STACK_BYTES: usize = 8 << 20;

/// The code of the files of a snapshot, as far as it was needed.
#[derive(Default)]
pub(super) struct Compiled(Mutex<HashMap<String, Arc<[u8]>>>);

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Compiled").field(&self.0.lock().len()).finish()
    }
}

/// The function that the file's top level is.
pub(super) fn chunk(lua: &Lua, sources: &Sources, file: &str) -> mlua::Result<Function> {
    let code = code(sources, file)?;
    lua.load(&code[..]).set_name(format!("={file}")).set_mode(ChunkMode::Binary).into_function()
}

fn code(sources: &Sources, file: &str) -> mlua::Result<Arc<[u8]>> {
    let known = sources.compiled.0.lock().get(file).cloned();
    if let Some(code) = known {
        return Ok(code);
    }
    let code: Arc<[u8]> = compile(sources, file)?.into();
    sources.compiled.0.lock().insert(file.to_owned(), code.clone());
    Ok(code)
}

fn compile(sources: &Sources, file: &str) -> mlua::Result<Vec<u8>> {
    let Some(source) = sources.files.get(file) else {
        return Err(Error::RuntimeError(format!("{file} is not among the files that were read")));
    };
    let size = source.text.len();
    if size > SOURCE_BYTES_MAX {
        return Err(Error::RuntimeError(format!("{file} has {size} bytes; a file has at most {SOURCE_BYTES_MAX}")));
    }
    let small = size <= SMALL_BYTES_MAX;
    let compiled = if small { compile_text(&source.text) } else { compile_aside(source.text.clone()) };
    compiled.map_err(|problem| Error::RuntimeError(format!("{file}{problem}")))
}

/// A problem is `:line: message`, or what there is to say of the file.
fn compile_text(text: &str) -> Result<Vec<u8>, String> {
    Compiler::new().compile(text.trim_start_matches('\u{feff}')).map_err(|error| match error {
        Error::SyntaxError { message, .. } => format!(":{message}"),
        other => format!(" cannot be compiled: {other}"),
    })
}

/// Compiles on a thread that is left behind if it takes too long.
fn compile_aside(text: Arc<str>) -> Result<Vec<u8>, String> {
    let (sender, receiver) = channel();
    let body = move || drop(sender.send(compile_text(&text)));
    let thread = std::thread::Builder::new().name("compile".into()).stack_size(STACK_BYTES).spawn(body);
    thread.map_err(|error| format!(" cannot be compiled: no thread: {error}"))?;
    receiver.recv_timeout(COMPILE_MAX).unwrap_or_else(|error| {
        Err(match error {
            RecvTimeoutError::Timeout => {
                format!(" takes longer than {COMPILE_MAX:?} to compile; split it into modules")
            }
            RecvTimeoutError::Disconnected => " makes the compiler fail".into(),
        })
    })
}
