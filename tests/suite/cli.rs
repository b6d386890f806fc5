//! The command line, from outside: outputs, refusals, exit codes.

use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty, starts_with};
use tempfile::TempDir;

/// A folder to run commands in; nothing of the surrounding environment reaches them.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(TempDir::new().expect("a temporary folder can be made"));
        std::fs::create_dir(place.0.path().join("handlers")).expect("the folder is writable");
        place
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, path: &str, text: &str) {
        std::fs::write(self.0.path().join(path), text).expect("the folder is writable");
    }

    pub fn moontide(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
        command.current_dir(self.0.path()).env_clear().args(args);
        command
    }
}

const HANDLER: &str = "return function(event, ctx) end\n";

#[test]
fn help_has_examples_and_every_command_is_in_it() {
    let place = Place::new();
    let commands = [
        "run",
        "emit",
        "check",
        "handlers",
        "status",
        "new",
        "dead",
        "state",
        "groups",
        "backup",
        "completions",
        "demo",
    ];
    let help = place.moontide(&["--help"]).assert().success().stderr(is_empty());
    let text = String::from_utf8_lossy(&help.get_output().stdout).into_owned();
    assert!(text.contains("Exit codes:"), "{text}");
    for command in commands {
        assert!(text.contains(&format!("\n  {command} ")), "{command} is missing in {text}");
    }
    for command in commands.iter().filter(|command| **command != "demo") {
        place.moontide(&[*command, "--help"]).assert().success().stdout(contains("Examples:\n  moontide "));
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
        (&["dead", "list", "--reason", "bad"], "reasons are exhausted, rejected, undecodable, invalid, killer, cycle"),
        (&["dead", "replay", "x"], "named by its number"),
        (&["dead", "replay"], "required arguments were not provided"),
        (&["dead", "discard", "--handler", "a", "1"], "cannot be used"),
        (&["new", "a b"], "\"a b\" is no handler's name: ' ' cannot stand"),
        (&["new", "../a"], "what begins with `.` or `_` is not loaded"),
        (&["new", "lib/a"], "lib/ is for modules"),
        (&["new", "a.luau"], "the ending of the file is not part of it"),
        (&["new", "a-b", "--on", "a b"], "is no event type"),
        (&["groups", "move", "a", "b c"], "letters, digits and"),
        (&["completions", "tcsh"], "possible values: bash, zsh, fish"),
        (&["state", "set", "k", "text"], "a text needs quotes of its own"),
        (&["state", "set", "", "1"], "the key has 0 bytes; scripts can name 1 to 512"),
        (&["--bus", "kafka://x", "handlers"], "wrong configuration: --bus: kafka: is not available in this version"),
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
    let stops = contains("error: line 4 is no JSON object").and(contains("stored 2 events before it"));
    place.moontide(&file).assert().code(1).stdout("stored 2 events\n").stderr(stops);
    let left_out = starts_with("line 4 is no JSON object").and(contains("; left out\n"));
    let skips = place.moontide(&file).arg("--skip-bad").assert().code(1);
    skips.stdout("stored 3 events, left out 1 line\n").stderr(left_out);
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
    place.moontide(&["check"]).assert().success().stdout(contains("1 handler, no problems")).stderr(idle);
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
    place.moontide(&["emit", "a", "1"]).assert().success();
    for args in [&["dead", "list"][..], &["state", "list"], &["handlers"], &["check"], &["groups", "list"]] {
        place.moontide(args).arg("--json").assert().success().stdout("[]\n").stderr(is_empty());
    }
}

#[test]
fn what_is_not_there_is_code_1() {
    let place = Place::new();
    place.moontide(&["emit", "a", "1"]).assert().success();
    for args in [
        &["dead", "show", "7"][..],
        &["dead", "replay", "7"],
        &["state", "get", "k"],
        &["state", "delete", "k"],
        &["groups", "move", "a", "b"],
        &["groups", "forget", "a"],
        &["status", "--alive"],
    ] {
        place.moontide(args).assert().code(1);
    }
    let discarded = place.moontide(&["dead", "discard", "7", "8"]).assert().code(1);
    discarded.stdout("discarded 0 dead letters; 2 were not there\n");
    place.moontide(&["dead", "discard", "--all"]).assert().success().stdout("discarded 0 dead letters\n");
    place.moontide(&["run", "--only", "ghost"]).assert().code(2).stderr(contains("there is no such handler"));
}

#[test]
fn a_new_handler_loads_as_it_is_written_and_is_never_written_over() {
    let place = Place::new();
    place
        .moontide(&["new", "billing/charge", "--on", "order.*"])
        .assert()
        .success()
        .stdout("handlers/billing/charge.luau\n");
    place.moontide(&["new", "order.created"]).assert().success();
    let found = place.moontide(&["check", "--json"]).assert().success();
    let found: serde_json::Value = serde_json::from_slice(&found.get_output().stdout).expect("the listing is JSON");
    assert_eq!((&found[0]["name"], &found[0]["types"][0]), (&"billing/charge".into(), &"order.*".into()));
    assert_eq!((&found[1]["name"], &found[1]["types"][0]), (&"order.created".into(), &"order.created".into()));
    place.file("handlers/order.created.luau", HANDLER);
    place.moontide(&["new", "order.created"]).assert().code(1).stderr(contains("exists already"));
    let kept = std::fs::read_to_string(place.0.path().join("handlers/order.created.luau")).expect("it is there");
    assert_eq!(kept, HANDLER);
    place.file("handlers/old.lua", HANDLER);
    place.moontide(&["new", "old"]).assert().code(1).stderr(contains("old.lua exists already"));
}

/// A host in a process of its own; killed when it is dropped.
pub struct Running(pub std::process::Child);

impl Running {
    fn start(place: &Place) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_moontide"));
        command.current_dir(place.0.path()).env_clear().args(["run", "--name", "here"]);
        let running = Self(command.stderr(std::process::Stdio::null()).spawn().expect("the host starts"));
        until(|| place.moontide(&["handlers"]).output().is_ok_and(|seen| stdout(&seen).contains(" live ")));
        running
    }

    pub fn stop(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Stopped already where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn until(done: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !done() {
        assert!(began.elapsed() < crate::support::PATIENCE, "it never comes true");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn status_groups_and_backup_show_a_host_at_work() {
    let place = Place::new();
    place.file("handlers/tick.luau", "return function(event, ctx) if event.data.bad then error('no good') end end\n");
    let host = Running::start(&place);
    place.moontide(&["emit", "tick", "{}"]).assert().success();
    place.moontide(&["emit", "tick", "{\"bad\":true}"]).assert().success();
    until(|| place.moontide(&["status"]).output().is_ok_and(|seen| stdout(&seen).contains("no good")));
    let shown = place.moontide(&["status", "--alive"]).assert().success();
    let shown = stdout(shown.get_output());
    for part in [
        "host       here, since 20",
        "handlers   1 live\n",
        "waiting    1, 1 of them delayed; 0 in flight\n",
        "dead       0\n",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let listed = place.moontide(&["handlers", "--json"]).assert().success();
    let listed: serde_json::Value = serde_json::from_slice(&listed.get_output().stdout).expect("the listing is JSON");
    assert!(listed[0]["since"].as_str().is_some_and(|since| since.starts_with("20")), "{listed}");
    let live = place.moontide(&["groups", "list", "--json"]).assert().success();
    let live: serde_json::Value = serde_json::from_slice(&live.get_output().stdout).expect("the listing is JSON");
    assert_eq!((&live[0]["live"], &live[0]["streams"][0]["position"]), (&true.into(), &"2-0".into()));
    place.moontide(&["groups", "move", "tick", "tock"]).assert().code(1).stderr(contains("stop its host"));
    place.moontide(&["backup", "copy.db"]).assert().success().stdout("copy.db\n");
    place.moontide(&["backup", "copy.db"]).assert().code(1).stderr(contains("exists already"));
    host.stop();
    place
        .moontide(&["status", "--alive"])
        .assert()
        .code(1)
        .stdout(contains("none is alive").and(contains("1 not running")));
    let moved = "tock goes on where tick stood: 1 stream, 0 events that it had skipped, 1 piece of retries and delayed work, 0 dead";
    place.moontide(&["groups", "move", "tick", "tock"]).assert().success().stdout(contains(moved));
    place
        .moontide(&["groups", "forget", "tock"])
        .assert()
        .code(2)
        .stderr(contains("would be gone for good; say --yes"));
    let forgotten = "forgot 1 events that wait for tock (1 retries and delayed ones); 0 dead letters stay\n";
    place.moontide(&["groups", "forget", "tock", "--yes"]).assert().success().stdout(forgotten);
    let copy = ["--bus", "sqlite:copy.db", "groups", "list"];
    place.moontide(&copy).assert().success().stdout(contains("\ntick "));
}

#[test]
fn a_group_cannot_be_called_what_no_handler_could_say() {
    let place = Place::new();
    for name in ["../x", "a//b", "", "a\nb", "ü", &"n".repeat(201)] {
        place.moontide(&["groups", "move", "a", name]).assert().code(2).stderr(contains("expected "));
    }
}

#[test]
fn shells_get_their_completions() {
    let place = Place::new();
    for (shell, says) in [("bash", "complete -F"), ("zsh", "#compdef moontide"), ("fish", "complete -c moontide")] {
        place.moontide(&["completions", shell]).assert().success().stdout(contains(says).and(contains("groups")));
    }
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
    shell.stdout(starts_with("[{\"id\":")).stderr(contains("stored 20000 events before it"));
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
