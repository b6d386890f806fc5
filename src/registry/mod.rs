//! The handlers that are loaded: an immutable set, built anew on every change.
//!
//! Owns which file is a handler, that names and groups are claimed once, and that a broken file leaves its last good version
//! serving. Knows nothing of workers or stores.

mod folder;
mod listing;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bus::Subscription;
use crate::config::Config;
use crate::script::{LoadError, LoadOptions, Program, Sources, load};
use crate::streams::{Selection, Streams};

pub use folder::{Scanner, Skipped, is_handler, name_of};
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
    /// Problems that concern no single handler file.
    pub skipped: Vec<Skipped>,
}

/// Builds the set for `sources`. What did not change since `previous` is taken over; a file that does not load keeps its
/// last good version.
pub fn build(previous: &Registry, sources: Arc<Sources>, skipped: Vec<Skipped>, config: &Config) -> Registry {
    let mut registry = Registry { handlers: BTreeMap::new(), skipped };
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources.files.keys().filter(|path| is_handler(path)) {
        files.entry(name_of(path).to_owned()).or_default().push(path.clone());
    }
    for (name, paths) in files {
        let before = previous.handlers.get(&name);
        let loaded = match paths.as_slice() {
            [path] => load_one(before, path, &sources, &config.options_for(&name)),
            _ => twice(before, &name, &paths),
        };
        registry.handlers.insert(name, loaded);
    }
    refuse_shared_groups(previous, &mut registry, &config.streams);
    registry
}

fn load_one(before: Option<&Loaded>, path: &str, sources: &Arc<Sources>, options: &LoadOptions) -> Loaded {
    if let Some(before) = before
        && !before.tried.is_empty()
        && before.tried.iter().all(|(path, hash)| sources.files.get(path).is_some_and(|now| now.hash == *hash))
        && before.tried[0].0 == path
    {
        return before.clone();
    }
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
    let problem = format!("{} all claim the name {name}; keep one of them", paths.join(" and "));
    refused(before, &paths[0], problem)
}

fn refused(before: Option<&Loaded>, file: &str, problem: String) -> Loaded {
    Loaded {
        program: before.and_then(|before| before.program.clone()),
        problem: Some(LoadError { file: file.to_owned(), problems: vec![problem] }),
        tried: Vec::new(),
    }
}

/// One group on one stream belongs to one handler. Who claimed it first keeps serving; newcomers are refused, and where
/// nobody was first all are.
fn refuse_shared_groups(previous: &Registry, registry: &mut Registry, streams: &Streams) {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, loaded) in &registry.handlers {
        if let Some(program) = &loaded.program {
            groups.entry(program.manifest.group.clone()).or_default().push(name.clone());
        }
    }
    let mut refusals = Vec::new();
    for (one, other) in groups.values().flat_map(|names| pairs(names)) {
        let Some(stream) = shared_stream(registry, one, other, streams) else { continue };
        for (name, rival) in [(one, other), (other, one)] {
            if !serves_unchanged(previous, registry, name) || serves_unchanged(previous, registry, rival) {
                refusals.push((name.clone(), rival.clone(), stream.clone()));
            }
        }
    }
    for (name, rival, stream) in refusals {
        let Some(program) = registry.handlers.get(&name).and_then(|loaded| loaded.program.clone()) else { continue };
        let group = &program.manifest.group;
        let problem =
            format!("the group {group} on {stream} is claimed by {rival} too; give one of them another group");
        let before = previous.handlers.get(&name);
        registry.handlers.insert(name, refused(before, &program.file, problem));
    }
}

fn pairs(names: &[String]) -> impl Iterator<Item = (&String, &String)> {
    names.iter().enumerate().flat_map(|(at, one)| names[at + 1..].iter().map(move |other| (one, other)))
}

fn serves_unchanged(previous: &Registry, registry: &Registry, name: &str) -> bool {
    let group = |registry: &Registry| {
        let program = registry.handlers.get(name)?.program.clone()?;
        Some((program.manifest.group.clone(), program.manifest.types.clone(), program.manifest.streams.clone()))
    };
    group(previous).is_some_and(|before| group(registry) == Some(before))
}

fn shared_stream(registry: &Registry, one: &str, other: &str, streams: &Streams) -> Option<String> {
    let program = |name: &str| registry.handlers.get(name)?.program.clone();
    let (one, other) = (program(one)?, program(other)?);
    let (one, other) = (selection(&one, streams), selection(&other, streams));
    let common = one.streams.iter().find(|stream| other.streams.contains(stream) || discovers(&other, stream));
    let discovered = || other.streams.iter().find(|stream| discovers(&one, stream));
    let both = || one.discover.iter().find(|(prefix, _)| other.discover.iter().any(|(theirs, _)| theirs == prefix));
    common.or_else(discovered).cloned().or_else(|| both().map(|(prefix, _)| format!("{prefix}…")))
}

fn discovers(selection: &Selection, stream: &str) -> bool {
    selection
        .discover
        .iter()
        .any(|(prefix, pattern)| stream.strip_prefix(prefix.as_str()).is_some_and(|rest| pattern.matches(rest)))
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
