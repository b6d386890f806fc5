//! Settings that show only in what a process does: names, groups, retries, reads, patience.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moontide::judge::RetryPolicy;
use moontide::script::{LoadOptions, Sources, load};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::cli::{Place, Running, until};
use crate::support::{Desk, PATIENCE, event};
use moontide_stage::server::{Kind, Server};

/// A host in a process of its own, under these variables and no others.
fn run(place: &Place, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moontide"));
    command.current_dir(place.path()).env_clear().env("MOONTIDE_HTTP_LISTEN", "").envs(variables.iter().copied());
    command.arg("run").args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("the host starts"))
}

/// What a command prints under these variables.
fn printed(place: &Place, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = place.moontide(arguments).envs(variables.iter().copied()).output().expect("it runs");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Names of the hosts that are alive, sorted.
fn alive(place: &Place, variables: &[(&str, &str)]) -> Vec<String> {
    let status = printed(place, &["status", "--json"], variables);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    let hosts = status["processes"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<_> = hosts.iter().filter_map(|host| Some(host["instance"].as_str()?.to_owned())).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_retries_are_the_configurations_where_a_handler_is_silent() {
    let fails = "handle = function(event, ctx) error('no') end";
    let settings =
        "[http]\nlisten = ''\n[groups]\ndefault = 'theirs'\n[retry]\nattempts = 2\ndelay = '5ms'\nmax_delay = '10ms'";
    let said = format!("return {{ group = 'own', retry = {{ attempts = 3 }}, {fails} }}");
    let desk = Desk::with(settings, &[("said", &said), ("silent", &format!("return {{ {fails} }}"))]).await;
    desk.emit(vec![event("said", 1, "{}"), event("silent", 1, "{}")]).await;
    desk.until("both are given up", |desk| desk.counts("said").dead + desk.counts("silent").dead == 2).await;
    let mut dead: Vec<_> = desk.dead().await.into_iter().map(|letter| (letter.group, letter.attempts)).collect();
    dead.sort();
    assert_eq!(dead, [("own".to_owned(), 3), ("theirs".to_owned(), 2)]);
}

#[test]
fn a_handler_says_less_than_all_of_its_retries() {
    let options = LoadOptions {
        group: Some("theirs".into()),
        retry: RetryPolicy { delay: Duration::from_secs(7), jitter: 0.1, ..RetryPolicy::default() },
        ..LoadOptions::default()
    };
    let manifest = |text: &str| {
        let sources = Arc::new(Sources::new(BTreeMap::from([("a.luau".to_owned(), text.into())])));
        load("a.luau", &sources, &options).expect("it loads").manifest
    };
    let said = manifest("return { group = 'own', retry = { attempts = 3 }, handle = function(event, ctx) end }");
    assert_eq!((&*said.group, said.retry), ("own", RetryPolicy { attempts: 3, ..options.retry.clone() }));
    for silent in ["return { handle = function(event, ctx) end }", "return function(event, ctx) end"] {
        let silent = manifest(silent);
        assert_eq!((&*silent.group, &silent.retry), ("theirs", &options.retry));
    }
}

#[test]
fn a_group_that_several_handlers_claim_is_refused_with_what_to_do() {
    let place = Place::new();
    place.file("handlers/a.luau", "return function(event, ctx) end");
    place.file("handlers/b.luau", "return function(event, ctx) end");
    place.moontide(&["check"]).assert().success();
    let says = |why: &str| {
        contains(format!("a.luau: the group g is claimed by b too{why}; give one of them another: group = \"…\"\n"))
            .and(contains(format!("b.luau: the group g is claimed by a too{why}; give one")))
    };
    let by_default = says(" (groups.default gives it to every handler that names none)");
    place.moontide(&["check"]).env("EVENT_SUBSCRIBER_CONSUMER_GROUP", "g").assert().code(1).stdout(by_default);
    for name in ["a", "b"] {
        place.file(&format!("handlers/{name}.luau"), "return { group = 'g', handle = function(event, ctx) end }");
    }
    place.moontide(&["check"]).assert().code(1).stdout(says(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_claims_a_group_is_refused_and_who_has_it_goes_on() {
    let handler =
        |n: u8| format!("return {{ group = 'g', handle = function(event, ctx) ctx.kv:add(event.type, {n}) end }}");
    let desk = Desk::new(&[("first", &handler(1))]).await;
    desk.write("second", &handler(1));
    let problem = |desk: &Desk, name: &str| {
        let rows = desk.host().snapshot();
        rows.into_iter().find(|row| row.name == name).and_then(|row| row.problem).unwrap_or_default()
    };
    desk.until("it is refused", |desk| problem(desk, "second").contains("the group g is claimed by first too")).await;
    assert_eq!(problem(&desk, "first"), "");
    let before = desk.version("first");
    desk.write("first", &handler(2));
    desk.until("it is reloaded", |desk| desk.version("first") != before && problem(desk, "first").is_empty()).await;
    desk.emit(vec![event("first", 1, "{}"), event("second", 1, "{}")]).await;
    desk.until("it goes on", |desk| desk.counts("first").done == 1).await;
    desk.remove("first");
    desk.until("the group is free", |desk| problem(desk, "second").is_empty()).await;
    desk.emit(vec![event("second", 2, "{}")]).await;
    desk.until_state("second", "1").await;
}

const JOB: &str = "return { on = 'job', concurrency = 4, start = 'earliest', handle = function(event, ctx)\n\
                   ctx:sleep('10ms') ctx.kv:add('done/' .. ctx.instance, 1) end }";

/// Two processes of one name share the work, and one goes on when the other is killed.
fn two_of_one_name(bus: &str) {
    let place = Place::new();
    place.file("handlers/job.luau", JOB);
    let variables = [("MOONTIDE_BUS_URL", bus), ("CONSUMER_NAME", "worker")];
    let first = run(&place, &[], &variables);
    let _second = run(&place, &[], &variables);
    until(|| alive(&place, &variables) == ["worker", "worker"]);
    let lines: String = (0..300).map(|id| format!("{{\"type\":\"job\",\"id\":\"{id}\"}}\n")).collect();
    place.file("jobs.ndjson", &lines);
    place.moontide(&["emit", "--file", "jobs.ndjson"]).envs(variables).assert().success();
    let done = || printed(&place, &["state", "get", "done/worker"], &variables).trim().parse().unwrap_or(0);
    until(|| done() > 20);
    first.stop();
    until(|| done() >= 300);
    until(|| alive(&place, &variables) == ["worker"]);
    assert_eq!(done(), 300);
    let _third = run(&place, &["--name", "ours"], &variables);
    until(|| alive(&place, &variables) == ["ours", "worker"]);
}

#[test]
fn two_processes_of_one_name_share_a_file() {
    two_of_one_name("sqlite:moontide.db");
}

#[test]
fn two_processes_of_one_name_share_a_server() {
    two_of_one_name(&Server::with(Kind::Redis, &[]).url());
}

/// What the server is asked from now on.
struct Asked(std::io::Lines<BufReader<TcpStream>>);

impl Asked {
    fn of(server: &Server) -> Self {
        let mut connection = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
        connection.write_all(b"MONITOR\r\n").expect("it is there");
        connection.set_read_timeout(Some(PATIENCE)).expect("it takes one");
        Self(BufReader::new(connection).lines())
    }

    /// The next command in which all of `parts` are.
    fn next(&mut self, parts: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let line = self.0.next().expect("the server is there").expect("it goes on telling");
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
            assert!(began.elapsed() < PATIENCE, "nobody asks {parts:?}");
        }
    }
}

#[test]
fn a_service_of_others_is_taken_over_with_its_variables() {
    let server = Server::with(Kind::Redis, &[]);
    let url = server.url();
    let database = redis::Client::open(format!("{url}3")).expect("it is an address");
    let mut database = database.get_connection().expect("the server answers");
    let call = |words: &[&str], at: &mut redis::Connection| -> redis::Value {
        redis::cmd(words[0]).arg(&words[1..]).query(at).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    };
    let place = Place::new();
    let fails = "return function(event, ctx) ctx.kv:get('n') error('no') end";
    place.file("handlers/user.created.luau", fails);
    let variables = [
        ("EVENT_BUS_TYPE", "redis"),
        ("REDIS_EVENT_URL", url.trim_end_matches('/')),
        ("REDIS_DB", "3"),
        ("CONSUMER_NAME", "users-1"),
        ("EVENT_SUBSCRIBER_CONSUMER_GROUP", "my-service"),
        ("EVENT_SUBSCRIBER_BATCH_SIZE", "3"),
        ("EVENT_SUBSCRIBER_BLOCK_TIME", "777"),
        ("EVENT_SUBSCRIBER_MAX_RETRIES", "1"),
    ];
    call(&["XGROUP", "CREATE", "events:user.created", "my-service", "$", "MKSTREAM"], &mut database);
    call(&["XADD", "events:user.created", "*", "type", "user.created", "data", "{}"], &mut database);
    let mut asked = Asked::of(&server);
    let _host = run(&place, &[], &variables);
    let reads = asked.next(&["XREADGROUP", "\"my-service\""]);
    assert!(reads.contains("\"COUNT\" \"3\""), "{reads}");
    let waits = asked.next(&["\"BLOCK\""]);
    assert!(waits.contains("\"BLOCK\" \"777\""), "{waits}");
    let dead = || printed(&place, &["dead", "list", "--json"], &variables);
    until(|| dead().contains("exhausted"));
    let letters: serde_json::Value = serde_json::from_str(&dead()).expect("the listing is JSON");
    assert_eq!((&letters[0]["group"], &letters[0]["attempts"]), (&"my-service".into(), &2.into()), "{letters}");
    assert_eq!(server.get::<u64>(&["DBSIZE"]), 0, "nothing lies in another database");
}

/// An emit with much patience goes on waiting where one with little gives up; `wait` until the first one waits, `go_on` then.
fn patience(place: &Place, bus: &str, wait: impl Fn(), go_on: impl Fn(), says: &str) {
    let emit = ["emit", "a", "1", "--bus", bus];
    let mut patient = Command::new(env!("CARGO_BIN_EXE_moontide"));
    patient.current_dir(place.path()).env_clear().env("EVENT_PUBLISHER_PUBLISH_TIMEOUT", "600000").args(emit);
    let mut patient = patient.stdout(Stdio::null()).spawn().expect("it starts");
    wait();
    place.moontide(&emit).env("MOONTIDE_EMIT_TIMEOUT", "70ms").assert().code(3).stderr(contains(says));
    go_on();
    assert!(patient.wait().expect("it ends").success(), "it went on waiting");
}

#[test]
fn emit_waits_for_a_server_as_long_as_it_is_told() {
    let server = Server::with(Kind::Redis, &[]);
    server.call(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    let wait = || until(|| server.get::<String>(&["INFO", "clients"]).contains("blocked_clients:1\r"));
    let go_on = || drop(server.call(&["CLIENT", "UNPAUSE"]));
    patience(&Place::new(), &server.url(), wait, go_on, "does not answer within 70ms");
}

#[test]
fn emit_waits_for_a_lock_as_long_as_it_is_told() {
    let place = Place::new();
    place.moontide(&["emit", "a", "1", "--bus", "sqlite:moontide.db"]).assert().success();
    let shell = rusqlite::Connection::open(place.path().join("moontide.db")).expect("the file opens");
    shell.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    let go_on = || shell.execute_batch("ROLLBACK").expect("it is ours");
    patience(&place, "sqlite:moontide.db", || {}, go_on, "another program holds a write lock");
}
