//! The command line, from outside: outputs, refusals, exit codes.

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

/// A folder to run commands in; nothing of the surrounding environment reaches them.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().expect("a temporary folder can be made"));
        std::fs::create_dir(place.0.path().join("handlers")).expect("the folder is writable");
        place
    }

    fn file(&self, path: &str, text: &str) {
        std::fs::write(self.0.path().join(path), text).expect("the folder is writable");
    }

    fn moontide(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
        command.current_dir(self.0.path()).env_clear().args(args);
        command
    }
}

const HANDLER: &str = "return function(event, ctx) end\n";

#[test]
fn help_has_examples_and_every_command_is_in_it() {
    let place = Place::new();
    let commands = ["run", "emit", "check", "handlers", "dead", "state", "demo"];
    let help = place.moontide(&["--help"]).assert().success().stderr(is_empty());
    let text = String::from_utf8_lossy(&help.get_output().stdout).into_owned();
    assert!(text.contains("Exit codes:"), "{text}");
    for command in commands {
        assert!(text.contains(&format!("\n  {command} ")), "{command} is missing in {text}");
    }
    for command in ["run", "emit", "check", "handlers", "dead", "state"] {
        place.moontide(&[command, "--help"]).assert().success().stdout(contains("Examples:\n  moontide "));
    }
}

#[test]
fn wrong_usage_and_wrong_configuration_are_code_2() {
    let place = Place::new();
    for (args, says) in [
        (&["emit"][..], "required arguments were not provided"),
        (&["emit", "order.created", "{"], "error: the data is not JSON: EOF while parsing an object"),
        (&["emit", "order created", "{}"], "error: has the type \"order created\": ' ' cannot stand"),
        (&["emit", "--file", "x", "--id", "1"], "cannot be used with"),
        (&["emit", "a", "1", "--delay", "5"], "\"5\" has no unit; write \"5s\""),
        (&["dead", "list", "--reason", "bad"], "reasons are exhausted, rejected, undecodable, invalid, killer"),
        (&["dead", "replay", "x"], "named by its number"),
        (&["dead", "replay"], "required arguments were not provided"),
        (&["dead", "discard", "--handler", "a", "1"], "cannot be used"),
        (&["state", "set", "k", "text"], "a text needs quotes of its own"),
        (&["--bus", "redis://x", "handlers"], "wrong configuration: --bus: redis: is not available in this version"),
        (&["--bus", "memory:", "dead", "list"], "memory: lives within the process"),
        (&["--handlers", "nowhere", "check"], "cannot read the handlers folder nowhere"),
        (&["--config", "nowhere.toml", "check"], "nowhere.toml: cannot be read"),
    ] {
        place.moontide(args).assert().code(2).stdout(is_empty()).stderr(contains(says));
    }
}

#[test]
fn all_problems_of_a_configuration_are_listed() {
    let place = Place::new();
    place.file("moontide.toml", "[limits]\ncpu = 5\n[bsu]\n");
    let says = "error: wrong configuration, 3 problems:\n  \
                moontide.toml: bsu: is no key; did you mean bus?\n  \
                moontide.toml: limits.cpu: \"5\" has no unit; write \"5s\"\n  \
                MOONTIDE_BSU_URL: sets nothing; did you mean MOONTIDE_BUS_URL?\n";
    place.moontide(&["check"]).env("MOONTIDE_BSU_URL", "memory:").assert().code(2).stderr(says);
}

#[test]
fn an_emitted_event_answers_with_its_id() {
    let place = Place::new();
    place.moontide(&["emit", "a", "1", "--id", "e1"]).assert().success().stdout("e1\n").stderr(is_empty());
    let stored = place.moontide(&["emit", "a", "{}", "--json", "--delay", "1h"]).assert().success();
    let stored: serde_json::Value = serde_json::from_slice(&stored.get_output().stdout).expect("the listing is JSON");
    assert_eq!(stored[0]["stream"], "events:a");
    assert_eq!(stored[0]["entry"], serde_json::Value::Null, "a delayed event lies nowhere yet");
}

#[test]
fn a_file_is_stored_up_to_the_line_that_is_no_event() {
    let place = Place::new();
    place.file("events.ndjson", "{\"type\":\"a\"}\n\n{\"type\":\"b\",\"data\":[1]}\nnonsense\n{\"type\":\"c\"}\n");
    let file = ["emit", "--file", "events.ndjson"];
    let stops = contains("error: line 4 is no JSON object").and(contains("the 2 events before it were stored"));
    place.moontide(&file).assert().code(1).stdout("stored 2 events\n").stderr(stops);
    let left_out = starts_with("line 4 is no JSON object").and(contains("; left out\n"));
    let skips = place.moontide(&file).arg("--skip-bad").assert().code(1);
    skips.stdout("stored 3 events, left out 1 lines\n").stderr(left_out);
}

#[test]
fn standard_input_is_a_file_too() {
    let place = Place::new();
    let lines: String = (0..1201).map(|n| format!("{{\"type\":\"a\",\"id\":\"{n}\"}}\n")).collect();
    let args = ["emit", "--file", "-", "--json"];
    let stored = place.moontide(&args).write_stdin(lines).assert().success();
    let stored: serde_json::Value = serde_json::from_slice(&stored.get_output().stdout).expect("the listing is JSON");
    assert_eq!(stored.as_array().map(Vec::len), Some(1201));
    assert_eq!(stored[1200]["id"], "1200");
    place.moontide(&args).write_stdin("").assert().success().stdout("[]\n");
    place.moontide(&["emit", "--file", "nowhere"]).assert().code(2).stderr(contains("cannot read nowhere"));
}

#[test]
fn check_names_what_is_wrong_and_fails() {
    let place = Place::new();
    place.file("handlers/good.luau", HANDLER);
    place.file("moontide.toml", "[handlers.'billing/*']\nconcurrency = 1\n");
    let idle = "warning: [handlers.\"billing/*\"] fits no handler\n";
    place.moontide(&["check"]).assert().success().stdout(contains("1 handlers, no problems")).stderr(idle);
    place.file("handlers/bad.luau", "return broken(\n");
    place.moontide(&["check"]).assert().code(1).stdout(contains("problem: ").and(contains("1 of 2 have problems")));
    let found = place.moontide(&["check", "--json"]).assert().code(1);
    let found: serde_json::Value = serde_json::from_slice(&found.get_output().stdout).expect("the listing is JSON");
    assert_eq!(found[1]["name"], "good");
    assert_eq!((&found[0]["name"], found[0]["problems"].as_array().map(Vec::len)), (&"bad".into(), Some(1)));
}

#[test]
fn listings_are_json_arrays_even_when_empty() {
    let place = Place::new();
    for args in [&["dead", "list"][..], &["state", "list"], &["handlers"], &["check"]] {
        place.moontide(args).arg("--json").assert().success().stdout("[]\n").stderr(is_empty());
    }
}

#[test]
fn what_is_not_there_is_code_1() {
    let place = Place::new();
    for args in
        [&["dead", "show", "7"][..], &["dead", "replay", "7"], &["state", "get", "k"], &["state", "delete", "k"]]
    {
        place.moontide(args).assert().code(1);
    }
    place.moontide(&["dead", "discard", "--all"]).assert().success().stdout("discarded 0 dead letters\n");
    place.moontide(&["run", "--only", "ghost"]).assert().code(2).stderr(contains("there is no such handler"));
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_does_not_stop_the_storing() {
    let place = Place::new();
    let lines = "{\"type\":\"a\"}\n".repeat(20_000) + "nonsense\n";
    place.file("events.ndjson", &lines);
    let script = "\"$0\" emit --file events.ndjson --json | head -n 1";
    let moontide = env!("CARGO_BIN_EXE_moontide");
    let shell = Command::new("bash").current_dir(place.0.path()).args(["-c", script, moontide]).assert();
    shell.stdout(starts_with("[{\"id\":")).stderr(contains("the 20000 events before it were stored"));
}

#[test]
fn a_port_that_somebody_chose_and_another_has_is_named() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let says = contains(format!("error: cannot listen on {address} (http.listen): Address already in use"));
    place.moontide(&["run"]).env("MOONTIDE_HTTP_LISTEN", &address).assert().code(2).stderr(says);
    assert!(!place.0.path().join("data").exists(), "nothing was started");
}
