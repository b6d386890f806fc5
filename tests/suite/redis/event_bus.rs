//! Services of others and handlers of ours share a stream of dead letters, as document 3 has it: either can look at what
//! the other gave up, and have it handled anew.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::rig::{Place, Rig};
use moontide_stage::server::Kind;

/// Handles each task once, unless its world is broken.
const TASKS: &str = r#"
return {
    on = "task.created",
    start = "earliest",
    idempotency = { key = "data.task_id" },
    handle = function(event, ctx)
        if ctx.kv:get("broken") then
            ctx:reject("no such worker")
        end
        ctx.kv:add("handled/" .. event.data.task_id, 1)
    end,
}
"#;
const SHARED: &str = "[dead_letters]\nstream = \"event_dlq\"\nlayout = \"aggregate\"\n";
/// Their streams have the same layout.
const AS_THEIRS: &str = "[[stream]]\ntypes = [\"task.*\"]\nname = \"events:{type}\"\nlayout = \"aggregate\"\n";

struct Shop(Rig);

impl Shop {
    async fn new(kind: Kind, settings: &str) -> Self {
        Self(Rig::configured(Place::server(kind), &[("tasks", TASKS)], settings).await)
    }

    /// What their event bus answers.
    fn theirs(&self, action: &str, argument: Option<&str>) -> Value {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/python/bin/python");
        assert!(python.exists(), "{} is missing: scripts/test makes it", python.display());
        let script = root.join("tests/clients/event_bus.py");
        let said = Command::new(python).arg(script).args([&self.0.server().url(), action]).args(argument).output();
        let said = said.expect("python runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        serde_json::from_slice(&said.stdout).expect("it prints JSON")
    }

    /// The letters, as they see them: entry and fields.
    fn letters(&self) -> Vec<(String, Value)> {
        serde_json::from_value(self.theirs("get_dlq_messages", None)).expect("it is a list")
    }

    fn moontide(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
        command.args(arguments).args(["--config", "moontide.toml"]).current_dir(self.0.dir.path());
        command.output().expect("the binary starts")
    }

    /// What a command prints that succeeds.
    fn said(&self, arguments: &[&str]) -> String {
        let output = self.moontide(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn break_it(&self) {
        self.0.server().call(&["SET", "state:broken", "true"]);
    }

    fn mend_it(&self) {
        self.0.server().call(&["DEL", "state:broken"]);
    }

    async fn until_letters(&self, count: usize) {
        let server = self.0.server();
        self.0.until("so many letters", async || server.get::<usize>(&["XLEN", "event_dlq"]) == count).await;
    }

    async fn until_handled(&self, task: &str) {
        let key = format!("state:handled/{task}");
        let server = self.0.server();
        self.0.until("it is handled", async || server.get::<Option<u64>>(&["GET", &key]).is_some()).await;
        self.0.quiet().await;
        assert_eq!(self.handled(task), Some(1));
    }

    fn handled(&self, task: &str) -> Option<u64> {
        self.0.server().get(&["GET", &format!("state:handled/{task}")])
    }

    /// Waits until no letter of ours is counted any more.
    async fn until_none_is_counted(&self) {
        let overview = &self.0.backend.overview;
        let none = async || overview.groups().await.is_ok_and(|groups| groups.iter().all(|group| group.dead == 0));
        self.0.until("none is counted", none).await;
    }
}

/// One of their functions gives what we gave up to the handlers anew, with the fields that it knows or with all.
#[tokio::test(flavor = "multi_thread")]
async fn what_we_gave_up_is_reprocessed_by_them() {
    for (kind, settings, reprocess) in [
        (Kind::Redis, SHARED.to_owned(), "reprocess_dlq_message"),
        (Kind::Redis, format!("{AS_THEIRS}{SHARED}"), "reprocess_whole_dlq_message"),
        (Kind::Valkey, format!("{AS_THEIRS}[dead_letters]\nstream = \"event_dlq\""), "reprocess_dlq_message"),
    ] {
        let shop = Shop::new(kind, &settings).await;
        let _worker = shop.0.start();
        shop.break_it();
        let entry = shop.theirs("publish", Some("1"));
        shop.until_letters(1).await;
        let (letter, fields) = shop.letters().remove(0);
        for (name, value) in [
            ("type", "task.created"),
            ("aggregate_id", "1"),
            ("aggregate_type", "task"),
            ("data", r#"{"task_id": 1, "title": "Fix bug"}"#),
            ("retries", "0"),
            ("error", "no such worker"),
            ("handler", "tasks"),
            ("stream", "events:task.created"),
        ] {
            assert_eq!(fields[name], value, "{settings}: {fields}");
        }
        assert_eq!(fields["original_id"], entry);
        assert!(fields["failed_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{fields}");

        shop.mend_it();
        assert!(shop.theirs(reprocess, Some(&letter)).is_string(), "it found the letter");
        shop.until_handled("1").await;
        assert!(shop.letters().is_empty());
        shop.theirs("publish", Some("1"));
        shop.until_handled("1").await;
        shop.until_none_is_counted().await;
        assert_eq!(shop.0.server().get::<Vec<String>>(&["KEYS", "moontide:dead*"]), Vec::<String>::new());
    }
}

/// They add the event before they take the letter away, and between the two we may look.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_waits_for_its_letter_to_be_taken_away() {
    let shop = Shop::new(Kind::Redis, &format!("{AS_THEIRS}{SHARED}")).await;
    let _worker = shop.0.start();
    shop.break_it();
    shop.theirs("publish", Some("5"));
    shop.until_letters(1).await;
    let (letter, _) = shop.letters().remove(0);
    shop.mend_it();
    shop.theirs("publish", Some("5"));
    shop.0.until("it waits", async || shop.0.said("others may be taking away") > 0).await;
    assert_eq!(shop.handled("5"), None);
    shop.0.server().call(&["XDEL", "event_dlq", &letter]);
    shop.until_handled("5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_discarded_is_not_handled_when_it_comes_late() {
    let shop = Shop::new(Kind::Redis, SHARED).await;
    let _worker = shop.0.start();
    shop.break_it();
    shop.theirs("publish", Some("2"));
    shop.until_letters(1).await;
    let (letter, _) = shop.letters().remove(0);
    assert_eq!(shop.said(&["dead", "discard", &letter]), "discarded 1 dead letter\n", "named by its entry");
    shop.until_none_is_counted().await;
    shop.mend_it();
    shop.theirs("publish", Some("2"));
    shop.theirs("publish", Some("3"));
    shop.until_handled("3").await;
    assert_eq!(shop.handled("2"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_they_gave_up_is_listed_and_goes_back_to_its_stream() {
    let shop = Shop::new(Kind::Redis, &format!("{AS_THEIRS}{SHARED}")).await;
    let _worker = shop.0.start();
    let message = shop.theirs("give_up", Some("4"));
    let listed: Value = serde_json::from_str(&shop.said(&["dead", "list", "--json"])).expect("it is JSON");
    let letter = &listed[0];
    for (name, expected) in [
        ("handler", Value::Null),
        ("reason", "foreign".into()),
        ("error", "Connection timeout".into()),
        ("stream", "events:task.created".into()),
        ("entry", "1705319400000-0".into()),
        ("attempts", 3.into()),
    ] {
        assert_eq!(letter[name], expected, "{letter}");
    }
    assert_eq!(letter["event"]["data"]["task_id"], 4, "{letter}");
    let id = letter["id"].as_str().expect("a text").to_owned();
    let shown = shop.said(&["dead", "show", message.as_str().expect("an entry")]);
    assert!(shown.contains("error            Connection timeout\n"), "{shown}");
    assert!(shop.said(&["dead", "list", "--reason", "rejected"]).lines().count() == 1, "only the header");

    let told = shop.said(&["dead", "replay", &id]);
    assert_eq!(told, format!("{id}: back in events:task.created, for everybody who reads it\n"));
    shop.until_handled("4").await;
    let entries: Vec<(String, Vec<String>)> = shop.0.server().get(&["XRANGE", "events:task.created", "-", "+"]);
    let names: Vec<&str> = entries[0].1.iter().step_by(2).map(String::as_str).collect();
    assert_eq!(names, ["type", "aggregate_id", "aggregate_type", "data", "timestamp", "retries"]);
    assert_eq!(entries[0].1.last().map(String::as_str), Some("0"), "it is tried anew");
    assert!(shop.letters().is_empty());
    let again = shop.moontide(&["dead", "replay", &id]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&again.stdout), format!("{id}: there is no such dead letter\n"));
}
