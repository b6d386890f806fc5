//! What a newcomer stumbles over: nothing there yet, the wrong folder, files from elsewhere, hosts that are gone.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};

use crate::cli::Place;
use crate::support::PATIENCE;

/// A host in a process of its own, killed when this is dropped.
struct Running(Child);

impl Running {
    fn in_place(place: &Place) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
        let log = std::fs::File::create(place.path().join("host.log")).expect("the folder is writable");
        command.current_dir(place.path()).env_clear().arg("run").stderr(Stdio::from(log));
        Self(command.spawn().expect("the host starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until_state(place: &Place, state: &str) {
    let began = Instant::now();
    loop {
        let output = place.moontide(&["handlers", "--json"]).output().expect("it runs");
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the listing is JSON");
        if rows[0]["state"] == state {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "never {state}: {rows}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_handler_of_a_host_that_is_gone_is_not_running() {
    let place = Place::new();
    place.file("handlers/a.luau", "return function(event, ctx) end\n");
    until_state(&place, "not running");
    let running = Running::in_place(&place);
    until_state(&place, "live");
    drop(running);
    until_state(&place, "not running");
}

#[test]
fn the_log_shows_what_a_script_prints_and_how_its_run_fails() {
    let place = Place::new();
    let script = "return { on = 'a', retry = { attempts = 2, delay = '20ms', jitter = 0 }, handle = function(event, ctx)\n\
                  print('got', event.data, json.null, setmetatable({}, {}) ~= nil)\nerror({ code = 7 })\nend }\n";
    place.file("handlers/a.luau", script);
    let _running = Running::in_place(&place);
    until_state(&place, "live");
    place.moontide(&["emit", "a", r#"{"n":[17]}"#]).assert().success();
    let log = log_until(&place, "given up");
    for part in
        ["INFO got\t{\"n\":[17]}\tnull\ttrue ", "WARN failed, again in 20ms: a.luau:3: {\"code\":7} ", "attempt=2"]
    {
        assert!(log.contains(part), "{part:?} in {log}");
    }
}

/// What the host logs until `last` is in it.
fn log_until(place: &Place, last: &str) -> String {
    let began = Instant::now();
    loop {
        let log = std::fs::read_to_string(place.path().join("host.log")).expect("the host logs");
        if log.contains(last) {
            return log;
        }
        assert!(began.elapsed() < PATIENCE, "never {last:?}: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_that_users_write_can_forge_a_line_of_the_log() {
    let forged = r"\n2026-01-01T00:00:00.000000Z ERROR forged";
    let place = Place::new();
    let script = format!(
        "return {{ on = 'a', retry = {{ attempts = 1 }}, handle = function(event, ctx)\n\
         log.warn('said {forged}', {{ why = 'x' }}) print('printed {forged}') error('thrown {forged}') end }}\n"
    );
    place.file("handlers/a.luau", &script);
    place.file("handlers/b\n2026-01-01T00:00:00.000000Z ERROR forged.luau", "");
    let _running = Running::in_place(&place);
    until_state(&place, "live");
    let line =
        format!(r#"{{"id": "id {forged}", "type": "a", "source": "s {forged}", "correlationid": "c {forged}"}}"#);
    place.file("events", &line);
    place.moontide(&["emit", "--file", "events"]).assert().success();
    let log = log_until(&place, "given up");
    assert!(log.matches("ERROR forged").count() > 5, "{log}");
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01")), "{log}");
    assert!(log.lines().all(|line| line.starts_with("20")), "each line is one that the host wrote: {log}");
    let checked = place.moontide(&["check"]).output().expect("it runs");
    let checked = String::from_utf8(checked.stdout).expect("it is text");
    assert!(checked.contains("forged") && !checked.contains("\n2026"), "{checked}");
}

#[test]
fn a_script_that_loses_its_vm_again_and_again_floods_no_log() {
    let place = Place::new();
    let script = "return { on = 'a', retry = { attempts = 1 }, handle = function(event, ctx)\n\
                  for n = 1, 3000 do log.info('flood') end string.rep('x', 1e9) end }\n";
    place.file("handlers/a.luau", script);
    place.file("moontide.toml", "[run]\nthreads = 1\n");
    let began = Instant::now();
    let _running = Running::in_place(&place);
    until_state(&place, "live");
    let events: String = (0..20).map(|n| format!("{{\"type\": \"a\", \"data\": {n}}}\n")).collect();
    place.file("events", &events);
    place.moontide(&["emit", "--file", "events"]).assert().success();
    let mut log = log_until(&place, "given up");
    while log.matches("given up").count() < 20 {
        assert!(began.elapsed() < PATIENCE, "not all are given up");
        std::thread::sleep(Duration::from_millis(20));
        log = log_until(&place, "given up");
    }
    // A thousand at once, and two hundred a second.
    let (lines, seconds) = (log.matches("INFO flood").count(), began.elapsed().as_secs() as usize + 1);
    assert!(lines >= 1000 && lines <= 1000 + 200 * seconds, "{lines} lines in {seconds} s");
}

#[test]
fn an_event_whose_effects_the_store_refuses_is_one_line_of_the_log() {
    let place = Place::new();
    place.file("handlers/a.luau", "return function(event, ctx) ctx.kv:add('n', 1) end\n");
    place.file("handlers/b.luau", "return function(event, ctx) end\n");
    place.moontide(&["emit", "b", "1"]).assert().success();
    place.moontide(&["state", "set", "n", "\"text\""]).assert().success();
    let _running = Running::in_place(&place);
    until_state(&place, "live");
    place.moontide(&["emit", "a", "{}", "--id", "refused-1"]).assert().success();
    log_until(&place, "given up");
    place.moontide(&["emit", "b", "{}", "--id", "last"]).assert().success();
    let log = log_until(&place, "\"last\"");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused-1")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("given up: ") && lines[0].contains("reason=\"invalid\""), "{lines:?}");
}

#[test]
fn commands_that_only_look_make_no_store_and_say_where_they_looked() {
    let place = Place::new();
    let away = "error: sqlite:data/moontide.db is away: there is no such file";
    for args in [
        &["dead", "list"][..],
        &["dead", "discard", "--all", "--yes"],
        &["state", "get", "k"],
        &["state", "list"],
        &["state", "delete", "k"],
        &["groups", "list"],
        &["groups", "move", "a", "b"],
        &["groups", "forget", "a", "--yes"],
        &["backup", "copy.db"],
        &["status"],
    ] {
        place.moontide(args).assert().code(3).stdout(is_empty()).stderr(contains(away));
    }
    let hint = contains("there is no handler in handlers yet");
    place.moontide(&["handlers"]).assert().success().stderr(hint.clone());
    place.moontide(&["check"]).assert().success().stderr(hint);
    assert!(!place.path().join("data").exists(), "looking leaves nothing behind");
}

#[test]
fn secrets_are_asked_for_only_where_handlers_are_loaded_to_run() {
    let place = Place::new();
    place.file("moontide.toml", "[secrets]\nkey = { env = \"NOT_SET\" }\n");
    place.moontide(&["emit", "a", "1"]).assert().success();
    place.moontide(&["dead", "list"]).assert().success();
    for command in ["check", "run"] {
        place.moontide(&[command]).assert().code(2).stderr(contains("secrets.key: the variable NOT_SET is not set"));
    }
}

#[test]
fn what_no_script_could_read_is_not_stored() {
    let place = Place::new();
    let deep = "[".repeat(200) + &"]".repeat(200);
    for (args, says) in [
        (&["emit", "a", r#"{"a":1,"a":2}"#][..], "the data cannot be taken: the key \"a\" stands twice"),
        (&["emit", "a", &deep], "the data cannot be taken: more than 128 levels"),
        (&["state", "set", "k", r#"{"a":1,"a":2}"#], "the value cannot be taken: the key \"a\" stands twice"),
        (&["emit", "a", "{a: 1}"], "the data is not JSON: key must be a string at line 1 column 2\n"),
    ] {
        place.moontide(args).assert().code(2).stdout(is_empty()).stderr(contains(says));
    }
    place.file("events.ndjson", "{\"type\":\"a\",\"data\":1,\"type\":\"b\"}\n");
    let twice =
        contains("line 1 cannot be taken: the key \"type\" stands twice").and(contains("stored 0 events before"));
    place.moontide(&["emit", "--file", "events.ndjson"]).assert().code(1).stderr(twice);
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark_and_a_folder_is_no_file() {
    let place = Place::new();
    place.file("events.ndjson", "\u{feff}{\"type\":\"a\"}\r\n");
    place.moontide(&["emit", "--file", "events.ndjson"]).assert().success().stdout("stored 1 event\n");
    place.moontide(&["emit", "--file", "handlers"]).assert().code(2).stderr(contains("handlers: it is a folder"));
}

#[test]
fn a_store_that_cannot_be_one_is_refused_with_what_to_do() {
    let place = Place::new();
    place.file("data", "in the way");
    place.file("note.txt", "this is a text that is longer than the header of a database, and it is no database at all");
    for (bus, says) in [
        ("sqlite:data/moontide.db", "data is no folder; move it away"),
        ("sqlite:/dev/null", "it is no regular file"),
        ("sqlite:handlers", "it is a folder"),
        ("sqlite:note.txt", "it is not a SQLite database"),
    ] {
        place.moontide(&["emit", "--bus", bus, "a", "1"]).assert().code(3).stderr(contains(says));
    }
    place.moontide(&["demo", "--bus", "memory:"]).assert().code(2).stderr(contains("a file of its own"));
}

#[test]
fn a_file_that_takes_long_to_load_is_named() {
    let place = Place::new();
    place.file("moontide.toml", "[limits]\ncpu = \"3s\"\n");
    place.file("handlers/endless.luau", "while true do end\n");
    let said = contains("still loading endless.luau; 1 of 1 files");
    place.moontide(&["check"]).assert().code(1).stderr(said).stdout(contains("limits.cpu = \"3s\""));
}
