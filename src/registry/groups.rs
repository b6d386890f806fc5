//! One group on one stream belongs to one handler.
//!
//! Decides who is refused where two claim the same: events shared out between two scripts would be handled by neither as a whole.

use std::collections::BTreeMap;

use super::Registry;
use crate::streams::{Selection, Streams};

/// One group on one stream belongs to one handler. Who claimed it first keeps serving; newcomers are refused, and where
/// nobody was first all are.
pub(super) fn refuse_shared(previous: &Registry, registry: &mut Registry, streams: &Streams) {
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
        let (file, group) = (&program.file, &program.manifest.group);
        let problem =
            format!("{file}: the group {group} on {stream} is claimed by {rival} too; give one of them another group");
        let before = previous.handlers.get(&name);
        registry.handlers.insert(name, super::refused(before, &program.file, problem));
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
    let (one, other) = (super::selection(&one, streams), super::selection(&other, streams));
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
