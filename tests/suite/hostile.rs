//! Hostile scripts: each ends in time and only its own run fails, in a host where an innocent neighbour goes on working.
//!
//! Every section of `tests/hostile/*.luau` is one script, or many: a line `--:` of JSON says for which values of `each` it is
//! repeated, what `$NAME` stands for in `repeat`, and how it may end ("expect"). Without "top" it is the body of `handle`.

use std::path::Path;

use moontide::outcome::Emit;
use serde_json::Value;

use crate::support::{Desk, event};

/// Budgets so small that several hundred attacks pass quickly.
pub const SETTINGS: &str = "[limits]\ncpu = \"50ms\"\nmemory = \"16 MiB\"\n";
const NEIGHBOUR: &str = "return { on = 'tick', handle = function(event, ctx) ctx.kv:add('ticks', 1) end }";
/// Attacks at a time, so that none waits for long behind others.
pub const WAVE: usize = 16;
/// By how much a process may grow that goes through attacks on its memory again and again.
pub const KEPT_BYTES_MAX: u64 = 256 << 20;

pub struct Attack {
    /// File, title and values: `loops: recursion, BODY = …`.
    pub name: String,
    script: String,
    top: bool,
    timeout: String,
    /// The ways in which it may end.
    expect: Vec<String>,
    /// Is in its message.
    says: String,
}

pub fn attacks() -> Vec<Attack> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let entries = std::fs::read_dir(folder).expect("the folder is part of the repository");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        let file = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        text.split("\n--- ").skip(1).for_each(|section| all.extend(section_attacks(&file, section)));
    }
    all
}

fn section_attacks(file: &str, section: &str) -> Vec<Attack> {
    let (title, body) = section.split_once('\n').expect("a section has a title and a body");
    let header: String = body.lines().filter_map(|line| line.strip_prefix("--:")).collect();
    let header: Value = serde_json::from_str(&header).unwrap_or_else(|error| panic!("{file}: {title}: {error}"));
    let body: Vec<&str> = body.lines().filter(|line| !line.starts_with("--:")).collect();
    let mut texts = vec![(title.to_owned(), body.join("\n"))];
    for (name, values) in header["each"].as_object().into_iter().flatten() {
        let values: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        texts = texts.iter().flat_map(|text| values.iter().map(|value| filled(text, name, value))).collect();
    }
    for (name, what) in header["repeat"].as_object().into_iter().flatten() {
        let count = what[1].as_u64().expect("a count") as usize;
        let value = what[0].as_str().expect("a text").repeat(count);
        texts.iter_mut().for_each(|(_, script)| *script = script.replace(&format!("${name}"), &value));
    }
    let text = |key: &str, default: &str| header[key].as_str().unwrap_or(default).to_owned();
    let attack = |(title, script)| Attack {
        name: format!("{file}: {title}"),
        script,
        top: header["top"] == true,
        timeout: text("timeout", "30s"),
        expect: text("expect", "").split(' ').map(str::to_owned).collect(),
        says: text("says", ""),
    };
    texts.into_iter().map(attack).collect()
}

fn filled((title, script): &(String, String), name: &str, value: &str) -> (String, String) {
    let mark = format!("${name}");
    let named = if title.contains(&mark) { title.replace(&mark, value) } else { format!("{title}, {name} = {value}") };
    (named, script.replace(&mark, value))
}

impl Attack {
    /// The file of its handler, which asks for events of type `kind`.
    pub fn file(&self, kind: &str) -> String {
        let (timeout, script) = (&self.timeout, &self.script);
        if self.top {
            return script.clone();
        }
        format!(
            "return {{ on = '{kind}', timeout = '{timeout}', retry = {{ attempts = 1 }}, handle = function(event, ctx)\n\
             {script}\nend }}"
        )
    }
}

pub fn kind(at: usize) -> String {
    format!("attack_{at}")
}

/// What attack number `at` gets.
pub fn attack_event(at: usize, id: impl ToString) -> Emit {
    event(&kind(at), id, r#"{"list": [3, 1, 2], "x": 1, "text": "abc"}"#)
}

/// Bytes of memory that this process has now.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux says it");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// How each attack ended: `load`, `done`, or the kind of its failure, with the message.
async fn endings(desk: &Desk, count: usize) -> Vec<(String, String)> {
    let dead = desk.dead().await;
    let snapshot = desk.host().snapshot();
    let ending = |at: usize| {
        let name = kind(at);
        let row = snapshot.iter().find(|row| row.name == name).expect("every file is known");
        if let Some(problem) = &row.problem {
            return ("load".to_owned(), problem.clone());
        }
        match dead.iter().find(|letter| letter.handler == name).and_then(|letter| letter.failures.last()) {
            Some(last) => (last.failure.kind.as_str().to_owned(), last.failure.message.clone()),
            None => ("done".to_owned(), String::new()),
        }
    };
    (0..count).map(ending).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_in_time_and_harms_nobody() {
    let attacks = attacks();
    assert!(attacks.len() >= 300, "only {} attacks", attacks.len());
    attack(&attacks.iter().collect::<Vec<_>>()).await;
    let (hungry, before) = (attacks.iter().filter(|attack| attack.name.starts_with("memory: ")), resident());
    let hungry: Vec<&Attack> = hungry.collect();
    for _ in 0..2 {
        attack(&hungry).await;
    }
    // The allocator keeps some; if VMs were kept it would be a GiB.
    let more = resident().saturating_sub(before);
    assert!(more < KEPT_BYTES_MAX, "{} MiB more are in use", more >> 20);
}

/// A host in which each attack is one handler that gets one event.
async fn attack(attacks: &[&Attack]) {
    let files: Vec<(String, String)> =
        attacks.iter().enumerate().map(|(at, it)| (kind(at), it.file(&kind(at)))).collect();
    let mut handlers: Vec<(&str, &str)> = files.iter().map(|(name, file)| (name.as_str(), file.as_str())).collect();
    handlers.push(("neighbour", NEIGHBOUR));
    let mut desk = Desk::with(SETTINGS, &handlers).await;
    let loaded: Vec<String> =
        desk.host().snapshot().into_iter().filter(|row| row.problem.is_none()).map(|row| row.name).collect();
    let running: Vec<usize> = (0..attacks.len()).filter(|at| loaded.contains(&kind(*at))).collect();
    let mut ticks = 0;
    for wave in running.chunks(WAVE) {
        ticks += wave.len();
        desk.emit(wave.iter().map(|at| event("tick", at, "{}")).collect()).await;
        desk.emit(wave.iter().map(|at| attack_event(*at, at)).collect()).await;
        desk.until("every attack ends", |desk| {
            let over = |at: &usize| {
                let counts = desk.counts(&kind(*at));
                counts.done + counts.dead == 1
            };
            wave.iter().all(over)
        })
        .await;
        desk.until_state("ticks", &ticks.to_string()).await;
    }
    let mut wrong = Vec::new();
    for (attack, (ending, message)) in attacks.iter().zip(endings(&desk, attacks.len()).await) {
        // Where the machine is busy, anything can use up its budget.
        let expected = attack.expect.contains(&ending) && message.contains(&attack.says);
        let slow = ending == "cpu" || ending == "load" && message.contains("limits.cpu");
        if !expected && (!slow || attack.top) {
            let (name, expect) = (&attack.name, attack.expect.join(" or "));
            wrong.push(format!("{name}: expected {expect} {}, got {ending}: {message}", attack.says));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), attacks.len(), wrong.join("\n"));
    desk.stop().await;
}
