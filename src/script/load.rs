//! Loading one handler: its file is run once in a VM of its own, and its header checked.
//!
//! Owns what makes a program and its version. Reports all problems of a file at once, each with its place.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use xxhash_rust::xxh3::xxh3_128;

use super::api::Bucket;
use super::meter::Meter;
use super::vm::{Opening, Vm};
use super::{LoadError, LoadOptions, Program, Sources, fault, manifest};
use crate::clock::SystemClock;
use crate::outcome::{Failure, FailureKind};

/// Hex digits of a version.
const VERSION_DIGITS: usize = 12;

/// Loads the handler in `file`, a path in `sources`.
///
/// Compiles it (as text), runs its top level once under the limits in a VM of its own, reads its header and finds the
/// modules it requires.
///
/// # Errors
/// All problems that were found: of the language, of the top level, or of the header.
pub fn load(file: &str, sources: &Arc<Sources>, options: &LoadOptions) -> Result<Program, LoadError> {
    let refused = |problems: Vec<String>| {
        let secrets = &options.granted.secrets;
        let problems = problems.into_iter().map(|text| secrets.redact(&text).into_owned()).collect();
        LoadError { file: file.to_owned(), problems }
    };
    let name: Arc<str> = name_of(file).into();
    let opening = Opening {
        name: name.clone(),
        version: "loading".into(),
        instance: "".into(),
        file,
        sources,
        granted: &options.granted,
        limits: &options.limits,
        clock: Arc::new(SystemClock),
        meter: Meter::unwatched(),
        bucket: Rc::new(RefCell::new(Bucket::full())),
    };
    // Without a watchdog nothing yields.
    let waits = || Err(Failure::new(FailureKind::Error, "the top level waits for something; only `handle` can"));
    let vm = Vm::open(opening)
        .now_or_never()
        .unwrap_or_else(waits)
        .map_err(|failure| refused(vec![place(file, fault::line_text(&failure))]))?;
    let manifest = manifest::read(&name, &vm.returned, options);
    let manifest =
        manifest.map_err(|problems| refused(problems.into_iter().map(|text| place(file, text)).collect()))?;
    let modules = vm.home.modules.borrow().paths();
    Ok(Program {
        name,
        version: version(file, &modules, sources).into(),
        manifest,
        granted: options.granted.clone(),
        file: file.to_owned(),
        modules,
        sources: sources.clone(),
    })
}

/// The handler's name: its path without the ending.
fn name_of(file: &str) -> &str {
    file.strip_suffix(".luau").or_else(|| file.strip_suffix(".lua")).unwrap_or(file)
}

/// `text` with the file in front, unless it names a file already.
fn place(file: &str, text: String) -> String {
    let first = text.split([':', ' ']).next().unwrap_or_default();
    if first.ends_with(".luau") || first.ends_with(".lua") { text } else { format!("{file}: {text}") }
}

/// The hash over the file and every module it required.
fn version(file: &str, modules: &[String], sources: &Sources) -> String {
    let mut hashes = Vec::new();
    for path in std::iter::once(file).chain(modules.iter().map(String::as_str)) {
        hashes.extend_from_slice(path.as_bytes());
        hashes.push(0);
        hashes.extend(sources.files.get(path).map(|source| source.hash.to_le_bytes()).into_iter().flatten());
    }
    let mut digits = format!("{:032x}", xxh3_128(&hashes));
    digits.truncate(VERSION_DIGITS);
    digits
}
