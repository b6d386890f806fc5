//! A group belongs to one handler.
//!
//! Decides who is refused where two claim the same. On one stream each would handle only a part of the events; and what the
//! store keeps for a group (retries above all) it keeps for the group as a whole, so that on different streams one handler
//! would be given the other's retries.

use std::collections::BTreeMap;

use super::Registry;
use crate::config::Config;

/// Who claimed a group first keeps serving; newcomers are refused, and where nobody was first all are.
pub(super) fn refuse_shared(previous: &Registry, registry: &mut Registry, config: &Config) {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, loaded) in &registry.handlers {
        if let Some(program) = &loaded.program {
            groups.entry(program.manifest.group.clone()).or_default().push(name.clone());
        }
    }
    let mut refusals = Vec::new();
    for (one, other) in groups.values().flat_map(|names| pairs(names)) {
        for (name, rival) in [(one, other), (other, one)] {
            if !serves_unchanged(previous, registry, name) || serves_unchanged(previous, registry, rival) {
                refusals.push((name.clone(), rival.clone()));
            }
        }
    }
    for (name, rival) in refusals {
        let Some(program) = registry.handlers.get(&name).and_then(|loaded| loaded.program.clone()) else { continue };
        let (file, group) = (&program.file, &program.manifest.group);
        let why = match config.default_group.as_ref() == Some(group) {
            true => " (groups.default gives it to every handler that names none)",
            false => "",
        };
        let problem = format!(
            "{file}: the group {group} is claimed by {rival} too{why}; give one of them another: group = \"…\""
        );
        let before = previous.handlers.get(&name);
        registry.handlers.insert(name, super::refused(before, &program.file, problem));
    }
}

fn pairs(names: &[String]) -> impl Iterator<Item = (&String, &String)> {
    names.iter().enumerate().flat_map(|(at, one)| names[at + 1..].iter().map(move |other| (one, other)))
}

fn serves_unchanged(previous: &Registry, registry: &Registry, name: &str) -> bool {
    let group = |registry: &Registry| Some(registry.handlers.get(name)?.program.as_ref()?.manifest.group.clone());
    group(previous).is_some_and(|before| group(registry) == Some(before))
}
