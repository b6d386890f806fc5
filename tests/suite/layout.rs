//! The map in `src/lib.rs`, held: who may know whom, and how files look.
//!
//! Reads the sources as text. Comments and unit tests are not counted: a test may look at whatever it needs.

use std::fs;
use std::path::{Path, PathBuf};

const ANYTHING: &[&str] = &["*"];

/// For each module of the crate: the modules it may name. One that is not here has no place on the map yet.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("cli", ANYTHING),
    ("demo", &["bus", "clock", "config", "event", "host", "outcome", "script", "streams"]),
    (
        "host",
        &[
            "bus", "channels", "clock", "config", "event", "http", "metrics", "outbound", "outcome", "registry",
            "script", "streams", "watch", "worker",
        ],
    ),
    (
        "http",
        &["bus", "clock", "config", "draft", "event", "letter", "metrics", "outcome", "registry", "script", "streams"],
    ),
    ("draft", &["clock", "event", "outcome", "streams"]),
    ("config", &["channels", "envelope", "event", "judge", "nearest", "outbound", "script", "streams", "units"]),
    ("letter", &["bus", "clock", "event"]),
    ("watch", &["registry", "script"]),
    ("registry", &["bus", "clock", "config", "event", "nearest", "script", "streams"]),
    ("worker", &["bus", "clock", "event", "hot", "judge", "metrics", "outcome", "registry", "script", "streams"]),
    ("metrics", &["bus", "clock", "event", "judge", "outbound", "outcome", "script"]),
    ("script", &["bus", "clock", "event", "hot", "judge", "nearest", "outbound", "outcome", "streams", "units"]),
    ("outbound", &["clock", "units"]),
    ("bus", &["channels", "clock", "envelope", "event", "judge", "outcome", "streams"]),
    ("judge", &["outcome"]),
    ("outcome", &["event"]),
    ("streams", &["channels", "envelope", "event"]),
    ("channels", &["envelope", "event"]),
    ("envelope", &["event"]),
    ("event", &[]),
    ("clock", &[]),
    ("failpoint", &["nearest"]),
    ("hot", &[]),
    ("nearest", &[]),
    ("units", &[]),
];

/// Modules that every other one may name: whoever is on the way of an event has places to name.
const FOR_ALL: &[&str] = &["failpoint"];

/// Names that only these modules may speak.
const RESERVED: &[(&str, &[&str])] = &[
    ("bus::sqlite", &["bus", "host"]),
    ("bus::redis", &["bus", "host"]),
    ("rusqlite::", &["bus"]),
    ("mlua::", &["script"]),
    ("clap::", &["cli", "config"]),
    ("reqwest::", &["outbound", "script"]),
    ("anyhow::", &["cli", "demo", "main"]),
    ("SystemTime::now", &["clock"]),
    ("Timestamp::now", &["clock"]),
];

/// Where mlua's FFI forces `unsafe`; everywhere else the compiler refuses it.
const UNSAFE: &[&str] = &["src/script/convert/", "src/script/natives/"];

const LINES_MAX: usize = 400;
/// Files that are longer, and up to what.
const LONGER: &[(&str, usize)] = &[];

pub struct Source {
    /// From the root of the project: `src/bus/mod.rs`.
    pub path: String,
    text: String,
    /// Without comments and unit tests.
    pub code: String,
}

impl Source {
    /// The module of the crate that the file belongs to.
    pub fn module(&self) -> &str {
        let below = self.path.trim_start_matches("src/");
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }
}

pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("sources are text");
        let path = path.strip_prefix(root).expect("it was found below the root").display().to_string();
        let tests = path.contains("/tests/") || path.ends_with("/tests.rs");
        Source { code: if tests { String::new() } else { code(&text) }, path, text }
    };
    found.into_iter().map(read).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => walk(&path, found),
            path if path.extension() == Some("rs".as_ref()) => found.push(path),
            _ => {}
        }
    }
}

/// What is left of a source without comment lines and without the unit tests at its end.
fn code(text: &str) -> String {
    let before_tests = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    let lines = before_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The modules that `code` names after `root`: `crate::bus::Bus` names `bus`, `crate::{bus, event}` names `{`.
fn named<'a>(code: &'a str, root: &str) -> Vec<&'a str> {
    let ends = |rest: &'a str| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 { &rest[..1] } else { &rest[..end] }
    };
    code.split(root).skip(1).filter(|rest| !rest.is_empty()).map(ends).collect()
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some((_, allowed)) = MAY_KNOW.iter().find(|(name, _)| *name == module) else {
            wrong
                .push(format!("{}: say in MAY_KNOW what {module} may know, and in src/lib.rs what it is", source.path));
            continue;
        };
        let mut names = named(&source.code, "crate::");
        names.extend(named(&source.code, " moontide::"));
        if source.path == format!("src/{module}.rs") || source.path == format!("src/{module}/mod.rs") {
            names.extend(named(&source.code, "super::").into_iter().filter(|name| is_module(name)));
        }
        for name in names.into_iter().filter(|name| *name != module) {
            if name == "{" {
                wrong.push(format!("{}: write one `use crate::…` per module", source.path));
            } else if *allowed != ANYTHING && !allowed.contains(&name) && !FOR_ALL.contains(&name) {
                wrong.push(format!("{}: {module} must not know {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_module(name: &str) -> bool {
    MAY_KNOW.iter().any(|(module, _)| *module == name)
}

#[test]
fn some_names_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, modules) in RESERVED {
            if source.code.contains(name) && !modules.contains(&source.module()) {
                wrong.push(format!("{}: {name} belongs to {}", source.path, modules.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let mut wrong = Vec::new();
    for Source { path, text, .. } in sources() {
        if !text.starts_with("//! ") {
            wrong.push(format!("{path}: begins without saying what it is for (//!)"));
        }
        let lines = text.lines().count();
        let most = LONGER.iter().find(|(longer, _)| *longer == path).map_or(LINES_MAX, |(_, most)| *most);
        if lines > most {
            wrong.push(format!("{path}: has {lines} lines, more than {most}; it holds more than one idea"));
        }
        if most > LINES_MAX && lines <= LINES_MAX {
            wrong.push(format!("{path}: is short enough; take it out of LONGER"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_where_it_must_be_and_says_why() {
    let mut wrong = Vec::new();
    for Source { path, text, .. } in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| is_unsafe(line)) {
            let above = &lines[at.saturating_sub(8)..=at];
            if !UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
                wrong.push(format!("{path}:{}: unsafe outside of the places in UNSAFE", at + 1));
            } else if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                wrong.push(format!("{path}:{}: unsafe without a reason (// SAFETY: …) above", at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a line of code opens something unsafe.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "//! crate::a\nuse crate::bus::Bus; // crate::b\nfn f() { crate::cli::main() }\nuse crate::{event, clock};\n\
                #[cfg(test)]\nmod tests {\n    use crate::host;\n}\n";
    assert_eq!(named(&code(text), "crate::"), ["bus", "cli", "{"]);
    assert!(is_unsafe("    let x = unsafe { read(p) };") && is_unsafe("unsafe extern \"C\" fn f() {}"));
    assert!(!is_unsafe("// unsafe is not needed") && !is_unsafe("#![deny(unsafe_code)]"));
}
