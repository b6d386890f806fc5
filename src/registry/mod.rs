//! The handlers that are loaded: an immutable set, built anew on every change.
//!
//! Owns which file is a handler, that names and groups are claimed once, and that a broken file leaves its last good version
//! serving. Knows nothing of workers or stores.

mod folder;
mod groups;
mod listing;
mod loading;
mod together;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bus::Subscription;
use crate::config::Config;
use crate::script::{LoadError, LoadOptions, Program, Sources, load};
use crate::streams::{Selection, Streams};

pub use folder::{Scanner, Skipped, check_name, has_ending, is_handler, name_of};
pub use listing::{Row, rows};

/// One handler file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What serves: the newest version that loaded. `None`: no version ever did.
    pub program: Option<Arc<Program>>,
    /// Why the file as it stands now does not serve.
    pub problem: Option<LoadError>,
    /// Hash of the file that was last tried.
    tried: Vec<(String, u128)>,
}

/// All handlers, by name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub handlers: BTreeMap<String, Loaded>,
    /// Problems that concern no single handler file; sorted.
    pub skipped: Vec<Skipped>,
    /// Handlers that came with this build and have the content of one that went with it.
    pub renamed: Vec<Renamed>,
}

/// A file that has another name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// What served under the old name.
    pub from: String,
    pub from_group: String,
    pub to: String,
    pub to_group: String,
}

/// Builds the set for `sources`. What did not change since `previous` is taken over; a file that does not load, or that
/// cannot be read any more, keeps its last good version.
pub fn build(previous: &Registry, sources: Arc<Sources>, skipped: Vec<Skipped>, config: &Config) -> Registry {
    let mut registry = Registry { handlers: BTreeMap::new(), skipped, renamed: Vec::new() };
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources.files.keys().filter(|path| is_handler(path)) {
        files.entry(name_of(path).to_owned()).or_default().push(path.clone());
    }
    let load_file = |(name, paths): &(String, Vec<String>)| {
        let before = previous.handlers.get(name);
        match paths.as_slice() {
            [path] => load_one(before, path, &sources, &config.options_for(name)),
            _ => twice(before, name, paths),
        }
    };
    let (same, new): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, paths)| {
        previous.handlers.get(name).is_some_and(|before| is_unchanged(before, paths, &sources))
    });
    let loaded = loading::load_all(&new, |(_, paths)| &paths[0], load_file);
    registry.handlers.extend(new.into_iter().map(|(name, _)| name).zip(loaded));
    let kept = same.into_iter().filter_map(|(name, _)| Some((name.clone(), previous.handlers.get(&name)?.clone())));
    registry.handlers.extend(kept);
    keep_unread(previous, &mut registry);
    settle_conflicts(previous, &mut registry, config);
    registry.renamed = renamed(previous, &registry);
    registry
}

/// A handler whose file is there and cannot be read is not gone.
fn keep_unread(previous: &Registry, registry: &mut Registry) {
    for (name, before) in &previous.handlers {
        let Some(program) = before.program.as_ref().filter(|_| !registry.handlers.contains_key(name)) else { continue };
        if let Some(skipped) = registry.skipped.iter().find(|skipped| holds(&skipped.file, &program.file)) {
            let loaded = refused(Some(before), &program.file, format!("{}: {}", skipped.file, skipped.reason));
            registry.handlers.insert(name.clone(), loaded);
        }
    }
}

/// Whether `path` is `file`, or a folder above it.
fn holds(path: &str, file: &str) -> bool {
    file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Each refusal leaves an older version in place, which can be the reason for the next one; in the end nothing is left to
/// refuse, because each round refuses one handler more.
fn settle_conflicts(previous: &Registry, registry: &mut Registry, config: &Config) {
    let problems = |registry: &Registry| registry.handlers.values().filter(|loaded| loaded.problem.is_some()).count();
    loop {
        let before = problems(registry);
        groups::refuse_shared(previous, registry, config);
        together::hold_back(previous, registry);
        if problems(registry) == before {
            return;
        }
    }
}

fn renamed(previous: &Registry, registry: &Registry) -> Vec<Renamed> {
    let content = |loaded: &Loaded| {
        let program = loaded.program.as_ref()?;
        Some((program.sources.files.get(&program.file)?.hash, program.manifest.group.clone()))
    };
    let gone: Vec<_> = previous.handlers.iter().filter(|(name, _)| !registry.handlers.contains_key(*name)).collect();
    let new = registry.handlers.iter().filter(|(name, _)| !previous.handlers.contains_key(*name));
    let found = new.filter_map(|(to, loaded)| {
        let (hash, to_group) = content(loaded)?;
        let same = gone.iter().filter_map(|(from, loaded)| Some((*from, content(loaded)?)));
        let (from, (_, from_group)) = same.into_iter().find(|(_, (theirs, _))| *theirs == hash)?;
        Some(Renamed { from: from.clone(), from_group, to: to.clone(), to_group })
    });
    found.collect()
}

/// Whether the file at the only one of `paths`, and every module it required, are as they were when it was last tried.
fn is_unchanged(before: &Loaded, paths: &[String], sources: &Sources) -> bool {
    let same = |(path, hash): &(String, u128)| sources.files.get(path).is_some_and(|now| now.hash == *hash);
    let file = before.tried.first().map(|(path, _)| path);
    matches!(paths, [path] if file == Some(path)) && before.tried.iter().all(same)
}

fn load_one(before: Option<&Loaded>, path: &str, sources: &Arc<Sources>, options: &LoadOptions) -> Loaded {
    match load(path, sources, options) {
        Ok(program) => Loaded { tried: hashes(&program, sources), program: Some(Arc::new(program)), problem: None },
        Err(problem) => Loaded {
            program: before.and_then(|before| before.program.clone()),
            problem: Some(problem),
            tried: Vec::new(),
        },
    }
}

fn hashes(program: &Program, sources: &Sources) -> Vec<(String, u128)> {
    let paths = std::iter::once(&program.file).chain(&program.modules);
    paths.filter_map(|path| Some((path.clone(), sources.files.get(path)?.hash))).collect()
}

fn twice(before: Option<&Loaded>, name: &str, paths: &[String]) -> Loaded {
    let problem = format!("{} claim the same name, {name}; keep one of them", paths.join(" and "));
    refused(before, &paths[0], problem)
}

fn refused(before: Option<&Loaded>, file: &str, problem: String) -> Loaded {
    Loaded {
        program: before.and_then(|before| before.program.clone()),
        problem: Some(LoadError { file: file.to_owned(), problems: vec![problem] }),
        tried: Vec::new(),
    }
}

/// Which streams `program` reads.
pub fn selection(program: &Program, streams: &Streams) -> Selection {
    if program.manifest.streams.is_empty() {
        return streams.select(&program.manifest.types);
    }
    Selection { streams: program.manifest.streams.clone(), discover: Vec::new() }
}

/// What `program` asks its bus for.
pub fn subscription(program: &Program, streams: &Streams) -> Subscription {
    let Selection { streams, discover } = selection(program, streams);
    Subscription {
        handler: program.name.clone(),
        group: program.manifest.group.as_str().into(),
        types: program.manifest.types.clone(),
        streams,
        discover,
        start: program.manifest.start,
    }
}
