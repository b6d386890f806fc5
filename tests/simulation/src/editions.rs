//! What the handlers folder can look like, and what the real registry makes of each change.
//!
//! `registry::build` runs real Luau, which takes milliseconds: each transition (what is loaded, what the folder becomes) is
//! built once in the process, the first time that a history needs it, and looked up from then on. That is where it is checked too:
//! what it comes to depends on nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use moontide::config::{self, Config, Flags, Surroundings};
use moontide::registry::{self, Registry};
use moontide::script::{Program, Sources};
use parking_lot::Mutex;

/// Handlers of the folder, each with a group of its own name.
pub const GROUPS: [&str; 3] = ["audit", "rough", "steady"];
/// Types of events that are published; children are of type [`CHILD`].
pub const KINDS: [&str; 2] = ["work.steady", "work.rough"];
/// What runs emit.
pub const CHILD: &str = "work.child";
/// Counted attempts that every version of every handler has.
pub const ATTEMPTS: u32 = 4;
/// Most runs in flight that any version allows.
pub const CONCURRENCY_MAX: usize = 4;

/// What can lie in the folder: (lib/shared, audit, rough, steady); the first one is where every history begins and ends.
const FOLDERS: [[&str; 4]; 9] = [
    ["1", "good", "good", "good"],
    ["1", "good", "good", "changed"],
    ["1", "good", "changed", "good"],
    ["1", "good", "good", "broken"],
    ["1", "good", "gone", "good"],
    ["1", "good", "moved", "good"],
    ["1", "thief", "good", "good"],
    ["2", "good", "good", "good"],
    ["2", "stuck", "good", "changed"],
];

/// How many folders there are; number 0 is the one in which all is well.
pub const COUNT: usize = FOLDERS.len();

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let around = Surroundings { environment: BTreeMap::new(), file: "no such file".into() };
    config::load_in(&Flags::default(), &around).expect("the defaults are right")
});

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// The configuration of all processes.
pub fn config() -> &'static Config {
    &CONFIG
}

/// What is loaded.
pub struct Edition {
    number: usize,
    registry: Registry,
}

/// The transitions that were built.
#[derive(Default)]
struct Known {
    editions: BTreeMap<Vec<(String, String, bool)>, Arc<Edition>>,
    after: BTreeMap<(usize, usize), Arc<Edition>>,
}

impl Edition {
    /// What serves, by handler.
    pub fn programs(&self) -> impl Iterator<Item = (&str, &Arc<Program>)> {
        self.registry.handlers.iter().filter_map(|(name, loaded)| Some((name.as_str(), loaded.program.as_ref()?)))
    }

    fn version(&self, name: &str) -> Option<&str> {
        let loaded = self.registry.handlers.get(name)?;
        loaded.program.as_ref().map(|program| &*program.version)
    }
}

/// What a process has loaded that starts with this folder.
pub fn first(folder: usize) -> Arc<Edition> {
    static EMPTY: LazyLock<Edition> = LazyLock::new(|| Edition { number: usize::MAX, registry: Registry::default() });
    after(&EMPTY, folder)
}

/// What is loaded after the folder became number `folder`.
pub fn after(before: &Edition, folder: usize) -> Arc<Edition> {
    let mut known = KNOWN.lock();
    if let Some(edition) = known.after.get(&(before.number, folder)) {
        return edition.clone();
    }
    let registry = registry::build(&before.registry, sources(folder), Vec::new(), config());
    let next = known.editions.len();
    // The folder belongs to it: what was tried last decides what is tried next.
    let mut signature = vec![(folder.to_string(), String::new(), false)];
    signature.extend(registry.handlers.iter().map(|(name, loaded)| {
        let version = loaded.program.as_ref().map(|program| program.version.to_string());
        (name.clone(), version.unwrap_or_default(), loaded.problem.is_some())
    }));
    let edition = Arc::new(Edition { number: next, registry });
    let wrong = wrongs(before, folder, &edition);
    assert!(wrong.is_empty(), "the registry is wrong about a change of the folder: {}", wrong.join("; "));
    let edition = known.editions.entry(signature).or_insert(edition).clone();
    known.after.insert((before.number, folder), edition.clone());
    edition
}

/// What a transition must not do: a file that does not serve leaves what served before, one that is gone leaves nothing, one
/// that serves is the one that lies there, and all that share a module serve with one version of it.
fn wrongs(before: &Edition, folder: usize, after: &Edition) -> Vec<String> {
    let files = &sources(folder).files;
    let mut wrong = Vec::new();
    for (at, name) in GROUPS.into_iter().enumerate() {
        let (condition, loaded) = (FOLDERS[folder][at + 1], after.registry.handlers.get(name));
        let problem = loaded.is_some_and(|loaded| loaded.problem.is_some());
        let text = files.get(&format!("{name}.luau")).map(|source| source.hash);
        let serves = loaded.and_then(|loaded| loaded.program.as_ref());
        let served = serves.and_then(|program| program.sources.files.get(&program.file)).map(|source| source.hash);
        let is_wrong = match condition {
            "gone" => loaded.is_some(),
            "broken" | "stuck" | "thief" => !problem || after.version(name) != before.version(name),
            _ if problem => after.version(name) != before.version(name),
            _ => served != text,
        };
        if is_wrong {
            wrong.push(format!("{name} is {condition} and serves {:?}, problem: {problem}", after.version(name)));
        }
    }
    let sharing = after.programs().filter(|(_, program)| !program.modules.is_empty());
    let modules = sharing.filter_map(|(_, program)| program.sources.files.get("lib/shared.luau"));
    let mut hashes: Vec<u128> = modules.map(|source| source.hash).collect();
    hashes.dedup();
    if hashes.len() > 1 {
        wrong.push("handlers serve with two versions of one module".to_owned());
    }
    wrong
}

fn sources(folder: usize) -> Arc<Sources> {
    let [shared, rest @ ..] = FOLDERS[folder];
    let files = GROUPS.into_iter().zip(rest).filter(|(_, condition)| *condition != "gone");
    let files = files.map(|(name, condition)| (format!("{name}.luau"), Arc::from(script(name, condition))));
    let module = ("lib/shared.luau".to_owned(), Arc::from(format!("return {{ version = {shared} }}")));
    Arc::new(Sources::new(files.chain([module])))
}

/// A handler file; what runs is up to the simulation, so `handle` is empty.
fn script(name: &str, condition: &str) -> String {
    let require = if name == "rough" { "" } else { "local shared = require('@lib/shared')\n" };
    let check = if condition == "stuck" { "assert(shared.version == 1, 'only the first')\n" } else { "" };
    let (on, concurrency, window) = match (name, condition) {
        ("audit", _) => (format!("'{CHILD}'"), 1, "off"),
        ("rough", "moved") => (format!("{{ '{}', 'work.other' }}", KINDS[1]), 2, "30d"),
        ("rough", "changed") => (format!("'{}'", KINDS[1]), 3, "30d"),
        ("rough", _) => (format!("'{}'", KINDS[1]), 2, "30d"),
        (_, "changed") => (format!("'{}'", KINDS[0]), 2, "30d"),
        _ => (format!("'{}'", KINDS[0]), CONCURRENCY_MAX, "30d"),
    };
    let group = if condition == "thief" { "steady" } else { name };
    let end = if condition == "broken" { "this is no Luau" } else { "" };
    format!(
        "{require}{check}return {{ on = {on}, group = '{group}', start = 'earliest', concurrency = {concurrency},\n\
         retry = {{ attempts = {ATTEMPTS}, delay = '500ms', factor = 2, max_delay = '4s' }},\n\
         idempotency = {{ window = '{window}' }}, handle = function() end }} {end}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_the_folder_is_built_and_checked() {
        for from in 0..COUNT {
            let before = first(from);
            for to in 0..COUNT {
                let there = after(&before, to);
                assert_eq!(after(&before, to).number, there.number);
                let back = after(&there, 0);
                let names: Vec<&str> = back.programs().map(|(name, _)| name).collect();
                assert_eq!(names, GROUPS, "all is well again, from {from} by {to}");
            }
        }
    }
}
