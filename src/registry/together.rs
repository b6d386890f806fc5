//! A module that changed takes its handlers along together or not at all.
//!
//! The rule: all handlers that serve with a module serve with one version of it. So where one of them cannot follow, the
//! others wait, on their last good version, and say for whom.

use std::collections::BTreeMap;

use super::{Registry, refused};
use crate::script::Program;

/// A version of a module that cannot be left yet, and the handler that keeps it.
struct Held {
    hash: u128,
    by: String,
}

/// Holds back handlers that would run another version of a module than one that is stuck; they are stuck then themselves.
pub(super) fn hold_back(previous: &Registry, registry: &mut Registry) {
    loop {
        let waiting = waiting(registry);
        if waiting.is_empty() {
            return;
        }
        for (name, file, problem) in waiting {
            let before = previous.handlers.get(&name);
            registry.handlers.insert(name, refused(before, &file, problem));
        }
    }
}

/// Handlers that must wait, their files, and why.
fn waiting(registry: &Registry) -> Vec<(String, String, String)> {
    let held = held(registry);
    let free = registry.handlers.iter().filter(|(_, loaded)| loaded.problem.is_none());
    let waits = free.filter_map(|(name, loaded)| {
        let program = loaded.program.as_ref()?;
        let (module, stuck) = program.modules.iter().find_map(|module| {
            let stuck = held.get(module.as_str())?;
            (Some(stuck.hash) != hash(program, module)).then_some((module, stuck))
        })?;
        let by = &stuck.by;
        let problem = format!("{module} changed, and {by} does not load with it; waits for {by}");
        Some((name.clone(), program.file.clone(), problem))
    });
    waits.collect()
}

fn held(registry: &Registry) -> BTreeMap<&str, Held> {
    let mut held = BTreeMap::new();
    for (name, loaded) in registry.handlers.iter().filter(|(_, loaded)| loaded.problem.is_some()) {
        let Some(program) = &loaded.program else { continue };
        for module in &program.modules {
            if let Some(hash) = hash(program, module) {
                held.entry(module.as_str()).or_insert_with(|| Held { hash, by: name.clone() });
            }
        }
    }
    held
}

fn hash(program: &Program, module: &str) -> Option<u128> {
    program.sources.files.get(module).map(|source| source.hash)
}
