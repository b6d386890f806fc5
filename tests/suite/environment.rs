//! Variables that services of other makes set: what each means, what counts before it, and what is said of it.

use std::collections::BTreeSet;

use moontide::config::{Config, DEFAULT_TOML, FOREIGN, Means};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::cli::Place;
use crate::config::given;

/// A variable that sets one key.
struct Case {
    name: &'static str,
    /// What it says, and what then is shown of the configuration.
    text: &'static str,
    set: &'static str,
    shown: fn(&Config) -> String,
    /// The key, a value of ours for it as in the file, and what then is shown.
    key: (&'static str, &'static str),
    ours: (&'static str, &'static str),
    /// What it cannot say, and the beginning of what is said of that.
    wrong: (&'static str, &'static str),
}

const CASES: [Case; 13] = [
    Case {
        name: "METRICS_PORT",
        text: "9100",
        set: "Some(0.0.0.0:9100)",
        shown: |config| format!("{:?}", config.metrics_listen.map(|listen| listen.address)),
        key: ("metrics", "listen"),
        ours: ("'127.0.0.1:8'", "Some(127.0.0.1:8)"),
        wrong: ("many", "\"many\" is no port; write a number like 9100, or set metrics.listen, which counts before it"),
    },
    Case {
        name: "CONSUMER_NAME",
        text: "worker-1",
        set: "Some(\"worker-1\")",
        shown: |config| format!("{:?}", config.instance),
        key: ("run", "name"),
        ours: ("'here'", "Some(\"here\")"),
        wrong: ("worker 1", "expected 1 to 128 letters, digits and . _ -, got \"worker 1\""),
    },
    Case {
        name: "EVENT_SUBSCRIBER_CONSUMER_GROUP",
        text: "my-service",
        set: "Some(\"my-service\")",
        shown: |config| format!("{:?}", config.options_for("any").group),
        key: ("groups", "default"),
        ours: ("'ours'", "Some(\"ours\")"),
        wrong: ("my//service", "expected a name whose parts are names, got \"my//service\""),
    },
    Case {
        name: "REDIS_CHANNEL_PREFIX",
        text: "events",
        set: "events:",
        shown: |config| config.redis.channel_prefix.clone(),
        key: ("redis", "channel_prefix"),
        ours: ("'ours.'", "ours."),
        wrong: ("two words", "\"two words:\" can begin no channel; write it without spaces"),
    },
    Case {
        name: "EVENT_SUBSCRIBER_BATCH_SIZE",
        text: "10",
        set: "10",
        shown: |config| config.redis.batch.to_string(),
        key: ("redis", "batch"),
        ours: ("50", "50"),
        wrong: ("ten", "\"ten\" is no number; write one like 100, or set redis.batch"),
    },
    Case {
        name: "EVENT_SUBSCRIBER_BLOCK_TIME",
        text: "2500",
        set: "2.5s",
        shown: |config| format!("{:?}", config.redis.block),
        key: ("redis", "block"),
        ours: ("'4s'", "4s"),
        wrong: ("1s", "\"1s\" is no number of milliseconds; write one like 1000, or set redis.block"),
    },
    Case {
        name: "EVENT_SUBSCRIBER_MAX_RETRIES",
        text: "3",
        set: "4",
        shown: |config| config.options_for("any").retry.attempts.to_string(),
        key: ("retry", "attempts"),
        ours: ("9", "9"),
        wrong: ("1000", "1000 is too much; write a number up to 999, or set retry.attempts"),
    },
    Case {
        name: "EVENT_PUBLISHER_MAX_BATCH_SIZE",
        text: "100",
        set: "100",
        shown: |config| config.emit.batch.to_string(),
        key: ("emit", "batch"),
        ours: ("7", "7"),
        wrong: ("0", "must be a whole number from 1 to 10000, not 0"),
    },
    Case {
        name: "EVENT_PUBLISHER_PUBLISH_TIMEOUT",
        text: "250",
        set: "250ms",
        shown: |config| format!("{:?}", config.emit.timeout),
        key: ("emit", "timeout"),
        ours: ("'1m'", "60s"),
        wrong: ("0", "\"0ms\" is too short; at least \"1ms\""),
    },
    Case {
        name: "ENABLE_EVENT_STORE",
        text: "false",
        set: "Some(1ms)",
        shown: retained,
        key: ("retain", "age"),
        ours: ("'2d'", "Some(172800s)"),
        wrong: ("maybe", "\"maybe\" is neither true nor false; write one of them, or set retain.age"),
    },
    Case {
        name: "EVENT_STORE_TTL_DAYS",
        text: "90",
        set: "Some(7776000s)",
        shown: retained,
        key: ("retain", "age"),
        ours: ("'off'", "None"),
        wrong: ("0", "0 is too little; write a number of days like 90, or set retain.age"),
    },
    Case {
        name: "OTEL_LOG_LEVEL",
        text: "VERBOSE",
        set: "Trace",
        shown: |config| format!("{:?}", config.log.level),
        key: ("log", "level"),
        ours: ("'error'", "Error"),
        wrong: ("loud", "\"loud\" is no level; write none, error, warn, info, debug or verbose, or set log.level"),
    },
    Case {
        name: "DEBUG",
        text: "True",
        set: "Debug",
        shown: |config| format!("{:?}", config.log.level),
        key: ("log", "level"),
        ours: ("'warn'", "Warn"),
        wrong: ("app:*", "\"app:*\" is neither true nor false; write one of them, or set log.level"),
    },
];

fn retained(config: &Config) -> String {
    format!("{:?}", config.streams.retain("events:x").age)
}

#[test]
fn every_variable_that_sets_a_key_is_tried() {
    let sets = FOREIGN.iter().filter_map(|foreign| match foreign.means {
        Means::Key(key, _) => Some((foreign.name, key.to_owned())),
        Means::Bus | Means::Missing(_) => None,
    });
    let tried = CASES.iter().map(|case| (case.name, format!("{}.{}", case.key.0, case.key.1)));
    assert_eq!(sets.collect::<BTreeSet<_>>(), tried.collect());
}

#[test]
fn each_counts_where_ours_say_nothing() {
    for Case { name, text, set, shown, key: (table, key), ours: (value, then), wrong: (wrong, _) } in CASES {
        let shown = |case: &crate::config::Given| shown(&case.load().unwrap_or_else(|error| panic!("{name}: {error}")));
        let default = shown(&given(""));
        assert_ne!(default, set, "{name}");
        assert_eq!(shown(&given("").variable(name, text)), set, "{name}");
        assert_eq!(shown(&given("").variable(name, "")), default, "{name}: empty is unset");
        let file = format!("[{table}]\n{key} = {value}");
        assert_eq!(shown(&given(&file).variable(name, text)), then, "{name} against the file");
        let variable = format!("MOONTIDE_{table}_{key}").to_uppercase();
        let case = given("").variable(&variable, value.trim_matches('\''));
        assert_eq!(
            shown(&case.variable(name, wrong)),
            then,
            "{name} against {variable}: what does not count may be wrong"
        );
    }
}

#[test]
fn what_each_cannot_say_is_refused_by_its_name() {
    for Case { name, wrong: (text, says), .. } in CASES {
        for (text, says) in [(text, says), ("\u{fffd}", "is not UTF-8")] {
            let problems = given("").variable(name, text).problems();
            assert!(matches!(&problems[..], [one] if one.starts_with(&format!("{name}: {says}"))), "{problems:?}");
        }
    }
}

#[test]
fn of_several_for_one_key_the_first_that_says_something_counts() {
    for (variables, shown) in [
        (&[("ENABLE_EVENT_STORE", "true"), ("EVENT_STORE_TTL_DAYS", "90")][..], "Some(7776000s)"),
        (&[("ENABLE_EVENT_STORE", "0"), ("EVENT_STORE_TTL_DAYS", "90")], "Some(1ms)"),
        (&[("ENABLE_EVENT_STORE", "true")], "Some(604800s)"),
    ] {
        let case = variables.iter().fold(given(""), |case, (name, text)| case.variable(name, text));
        assert_eq!(retained(&case.load().expect("it is right")), shown, "{variables:?}");
    }
    let level = |case: crate::config::Given| format!("{:?}", case.load().expect("it is right").log.level);
    assert_eq!(level(given("").variable("OTEL_LOG_LEVEL", "warn").variable("DEBUG", "true")), "Warn");
    assert_eq!(level(given("").variable("DEBUG", "0")), "Info");
    let mut flagged = given("").variable("DEBUG", "1");
    flagged.flags.log = Some("off".into());
    assert_eq!(level(flagged), "Off");
}

/// The bus under these variables, as it is shown, and what chose it.
fn bus(variables: &[(&str, &str)]) -> String {
    let case = variables.iter().fold(given(""), |case, (name, text)| case.variable(name, text));
    case.load().unwrap_or_else(|error| panic!("{variables:?}: {error}")).chosen().remove(0)
}

#[test]
fn the_bus_is_what_most_specific_address_says() {
    let (publisher, events, any) = ("EVENT_PUBLISHER_REDIS_URL", "REDIS_EVENT_URL", "REDIS_URL");
    for (variables, chosen) in [
        (&[][..], "sqlite:data/moontide.db, chosen by built-in defaults"),
        (&[(any, "")], "sqlite:data/moontide.db, chosen by built-in defaults"),
        (&[("REDIS_DB", "3")], "sqlite:data/moontide.db, chosen by built-in defaults"),
        (&[(any, "redis://a")], "redis://a, chosen by REDIS_URL"),
        (&[(any, "redis://u:geheim@a:1"), ("REDIS_DB", "3")], "redis://a:1/3, chosen by REDIS_URL and REDIS_DB"),
        (&[(any, "redis://a/2"), ("REDIS_DB", "3")], "redis://a/2, chosen by REDIS_URL"),
        (&[(any, "redis://a"), (events, "redis://b")], "redis://b, chosen by REDIS_EVENT_URL"),
        (&[(any, "redis://a"), (publisher, "rediss://b")], "rediss://b, chosen by EVENT_PUBLISHER_REDIS_URL"),
        (
            &[(publisher, "redis://b:6379/0"), (events, "redis://b:6379")],
            "redis://b:6379/0, chosen by EVENT_PUBLISHER_REDIS_URL",
        ),
        (&[("EVENT_BUS_TYPE", "redis")], "redis://localhost:6379, chosen by EVENT_BUS_TYPE"),
        (
            &[("MESSAGING_BACKEND", "Redis"), ("EVENT_BUS_TYPE", "redis"), ("REDIS_DB", "1")],
            "redis://localhost:6379/1, chosen by MESSAGING_BACKEND and REDIS_DB",
        ),
        (&[("MESSAGING_BACKEND", "redis"), (any, "unix:///r")], "unix:///r, chosen by REDIS_URL"),
        (&[(any, "redis://a"), ("MOONTIDE_BUS_URL", "memory:")], "memory:, chosen by MOONTIDE_BUS_URL"),
        // What does not count may say what it will.
        (&[("EVENT_BUS_TYPE", "kafka"), ("MOONTIDE_BUS_URL", "memory:")], "memory:, chosen by MOONTIDE_BUS_URL"),
    ] {
        assert_eq!(bus(variables), format!("the bus is {chosen}"), "{variables:?}");
    }
    let mut case = given("[bus]\nurl = 'sqlite:x.db'").variable(any, "redis://a");
    let chosen = |case: &crate::config::Given| case.load().expect("it is right").chosen().remove(0);
    assert!(chosen(&case).ends_with("/moontide.toml") && chosen(&case).contains("sqlite:x.db"), "{}", chosen(&case));
    case.flags.bus = Some("memory:".into());
    assert_eq!(chosen(&case), "the bus is memory:, chosen by --bus");
}

#[test]
fn what_contradicts_itself_or_is_no_bus_is_refused() {
    let end = ", or set bus.url, which counts before it";
    for (variables, problems) in [
        (
            &[("REDIS_URL", "memory:")][..],
            &["REDIS_URL: \"memory:\" is no address of a Redis server; write one like redis://localhost:6379"][..],
        ),
        (
            &[("REDIS_URL", "https://u:geheim@cache")],
            &["REDIS_URL: \"https://cache\" is no address of a Redis server; write one like redis://localhost:6379"],
        ),
        (&[("REDIS_URL", "redis://\u{fffd}")], &["REDIS_URL: is not UTF-8; write it in plain text"]),
        (
            &[("REDIS_URL", "redis://a"), ("REDIS_DB", "first")],
            &["REDIS_DB: \"first\" is no database; write a number like 0"],
        ),
        (
            &[("EVENT_PUBLISHER_REDIS_URL", "redis://:geheim@a/1"), ("REDIS_EVENT_URL", "redis://:geheim@a")],
            &["EVENT_PUBLISHER_REDIS_URL: leads elsewhere than REDIS_EVENT_URL; let both say the same"],
        ),
        (
            &[("MESSAGING_BACKEND", "eventhub"), ("REDIS_URL", "redis://a")],
            &["MESSAGING_BACKEND: \"eventhub\" is not available in this version; write redis"],
        ),
        (
            &[("MESSAGING_BACKEND", "redis"), ("EVENT_BUS_TYPE", "rabbitmq")],
            &[
                "EVENT_BUS_TYPE: \"rabbitmq\" is not available in this version; write redis",
                "MESSAGING_BACKEND: says \"redis\", but EVENT_BUS_TYPE says \"rabbitmq\"; let both say the same",
            ],
        ),
    ] {
        let case = variables.iter().fold(given(""), |case, (name, text)| case.variable(name, text));
        let problems: Vec<_> = problems.iter().map(|problem| format!("{problem}{end}")).collect();
        assert_eq!(case.problems(), problems, "{variables:?}");
    }
}

#[test]
fn what_counts_and_what_means_nothing_is_told() {
    let case = given("[log]\nlevel = 'info'")
        .variable("DEBUG", "true")
        .variable("CONSUMER_NAME", "a")
        .variable("EVENT_SUBSCRIBER_BATCH_SIZE", "7")
        .variable("ENABLE_SAGAS", "true")
        .variable("SAGA_TIMEOUT_SECONDS", "3600");
    assert_eq!(
        case.load().expect("it is right").chosen()[1..],
        [
            "variables of other services count: CONSUMER_NAME -> run.name, EVENT_SUBSCRIBER_BATCH_SIZE -> redis.batch",
            "this version has no sagas: ENABLE_SAGAS and SAGA_TIMEOUT_SECONDS mean nothing",
        ]
    );
    assert_eq!(given("").load().expect("it is right").chosen().len(), 1);
}

#[test]
fn the_start_and_check_say_what_chose_the_bus_and_show_no_password() {
    let place = Place::new();
    let port = crate::support::free_port();
    let url = format!("redis://u:geheim@127.0.0.1:{port}");
    let says = || {
        contains(format!("the bus is redis://127.0.0.1:{port}/2, chosen by REDIS_URL and REDIS_DB\n"))
            .and(contains("variables of other services count: CONSUMER_NAME -> run.name\n"))
            .and(contains("geheim").not())
    };
    let moontide = |command| {
        let mut moontide = place.moontide(&[command]);
        moontide.env("REDIS_URL", &url).env("REDIS_DB", "2").env("CONSUMER_NAME", "here");
        moontide
    };
    moontide("run").assert().code(3).stderr(says());
    moontide("check").assert().success().stdout(says());
    moontide("check")
        .env("EVENT_BUS_TYPE", "kafka")
        .assert()
        .code(2)
        .stderr(contains("error: wrong configuration: EVENT_BUS_TYPE: \"kafka\""));
    place
        .moontide(&["check"])
        .assert()
        .success()
        .stdout(contains("the bus is sqlite:data/moontide.db, chosen by built-in defaults\n"));
}

#[test]
fn each_is_in_the_documentation_with_what_it_sets() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/environment.md"));
    let page = page.expect("docs/environment.md is there");
    for foreign in FOREIGN {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", foreign.name)));
        let row = row.unwrap_or_else(|| panic!("docs/environment.md lacks {}", foreign.name));
        let sets = match foreign.means {
            Means::Bus => "`bus.url`".to_owned(),
            Means::Key(key, _) => format!("`{key}`"),
            Means::Missing(what) => what.to_owned(),
        };
        assert!(row.contains(&sets), "{row} does not say {sets}");
    }
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("it is there");
    assert!(readme.contains("(docs/environment.md)") && DEFAULT_TOML.contains("docs/environment.md"));
}
