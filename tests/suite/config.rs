//! Configurations, read from a file, variables and flags of the test's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use moontide::config::{BusUrl, Config, ConfigProblems, DEFAULT_TOML, Flags, Surroundings, load_in};
use moontide::judge::RetryPolicy;
use moontide::outbound::HostGrant;
use moontide::script::Limits;
use tempfile::TempDir;

pub struct Given {
    folder: TempDir,
    pub flags: Flags,
    environment: BTreeMap<String, String>,
}

/// A folder with `text` as its moontide.toml.
pub fn given(text: &str) -> Given {
    let folder = TempDir::new().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("moontide.toml"), text).expect("the folder is writable");
    Given { folder, flags: Flags::default(), environment: BTreeMap::new() }
}

impl Given {
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    pub fn load(&self) -> Result<Config, ConfigProblems> {
        let file = self.folder.path().join("moontide.toml");
        load_in(&self.flags, &Surroundings { environment: self.environment.clone(), file })
    }

    pub fn problems(&self) -> Vec<String> {
        let found = self.load().expect_err("the configuration is wrong");
        let folder = format!("{}/", self.folder.path().display());
        found.0.iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

/// Each text is refused with exactly these problems.
fn refused(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(given(text).problems(), *expected, "{text}");
    }
}

#[test]
fn the_embedded_defaults_are_the_defaults() {
    let config = given("").load().expect("the defaults are right");
    assert_eq!(config.bus.url, BusUrl::SqliteFile("data/moontide.db".into()));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.streams.retain("events:x").age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(config.streams.retain("events:x").length, None);
    assert_eq!(config.handlers_dir, Path::new("handlers"));
    assert_eq!(config.retry, RetryPolicy::default());
    assert_eq!((config.default_group.as_ref(), config.instance.as_ref()), (None, None));
    assert!(config.script_threads() >= 1);
    let options = config.options_for("any");
    assert_eq!((options.limits, options.concurrency), (Limits::default(), None));
    assert_eq!((options.group, options.retry), (None, RetryPolicy::default()));
    assert!(options.granted.values.is_empty() && options.granted.state.is_none());
}

#[test]
fn a_later_layer_wins_and_the_rest_stays() {
    let mut case = given("[bus]\nurl = 'sqlite:file.db'\nsource = 'file'\n[limits]\ncpu = '2s'\nemits = 7")
        .variable("MOONTIDE_BUS_SOURCE", "variable")
        .variable("MOONTIDE_LIMITS_EMITS", "8")
        .variable("MOONTIDE_RETAIN_LENGTH", "1000")
        .variable("MOONTIDE_CONFIG", "is no key");
    case.flags.bus = Some("memory:".into());
    let config = case.load().expect("the configuration is right");
    assert_eq!(config.bus.url, BusUrl::Memory);
    assert_eq!(config.bus.source, "variable");
    assert_eq!((config.limits.cpu, config.limits.emits_max), (Duration::from_secs(2), 8));
    assert_eq!(config.limits.memory_bytes, 64 << 20);
    assert_eq!(config.streams.retain("events:x").length, Some(1000));
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let mut case = given("[limits]\ncpu = 5\nmemmory = '1 MiB'\n[handlers.'billing/*'.limits]\npayload = true")
        .variable("MOONTIDE_LIMIT_CPU", "5s")
        .variable("MOONTIDE_GROUPS_RECOVERY", "10 parsecs");
    case.flags.bus = Some("kafka://localhost".into());
    assert_eq!(
        case.problems(),
        [
            "moontide.toml: handlers.\"billing/*\".limits.payload: must be a size like \"64 MiB\", not true",
            "moontide.toml: limits.cpu: \"5\" has no unit; write \"5s\"",
            "moontide.toml: limits.memmory: is no key; did you mean memory?",
            "MOONTIDE_GROUPS_RECOVERY: \"parsecs\" is no unit; write \"10s\" (units: ms, s, m, h, d)",
            "MOONTIDE_LIMIT_CPU: sets nothing; did you mean MOONTIDE_LIMITS_CPU?",
            "--bus: kafka: is not available in this version; write \"sqlite:PATH\", \"redis://HOST\" or \"memory:\"",
        ]
    );
}

#[test]
fn a_table_that_is_none_is_seen_even_under_a_variable() {
    let case = given("bus = 5").variable("MOONTIDE_BUS_URL", "memory:").variable("MOONTIDE_LOG", "debug");
    assert_eq!(
        case.problems(),
        [
            "moontide.toml: bus: must be a table, not 5",
            "MOONTIDE_LOG: sets nothing; did you mean MOONTIDE_LOG_FORMAT or MOONTIDE_LOG_LEVEL?",
        ]
    );
}

#[test]
fn wrong_values_come_with_right_ones() {
    refused(&[
        ("limits = 5", &["moontide.toml: limits: must be a table, not 5"]),
        ("[limit]", &["moontide.toml: limit: is no key; did you mean limits?"]),
        (
            "[limits]\nemits = '7'",
            &["moontide.toml: limits.emits: must be a whole number from 0 to 1000000, not \"7\""],
        ),
        (
            "[limits]\nmemory = '64 KiB'",
            &["moontide.toml: limits.memory: \"64 KiB\" is too little; at least \"1 MiB\""],
        ),
        (
            "[sqlite]\nsynchronous = 'off'",
            &["moontide.toml: sqlite.synchronous: must be one of \"full\", \"normal\", not \"off\""],
        ),
        ("[groups]\nrecovery = '10ms'", &["moontide.toml: groups.recovery: \"10ms\" is too short; at least \"1s\""]),
        ("[retain]\nage = 7", &["moontide.toml: retain.age: \"7\" has no unit; write \"7s\""]),
        ("[retain]\nlength = 0", &["moontide.toml: retain.length: must be a whole number above 0, or \"off\", not 0"]),
        ("[bus]\nurl = 'sqlite:'", &["moontide.toml: bus.url: names no file; write \"sqlite:data/moontide.db\""]),
        (
            "[bus]\nurl = 'data.db'",
            &["moontide.toml: bus.url: \"data.db\" is no bus; write \"sqlite:PATH\", \"redis://HOST\" or \"memory:\""],
        ),
        ("[bus]\nurl = 'redis:'", &["moontide.toml: bus.url: names no server; write \"redis://localhost:6379\""]),
        (
            "[redis]\nallow_eviction = 1\nprefix = 'a b'",
            &[
                "moontide.toml: redis.allow_eviction: must be true or false, not 1",
                "moontide.toml: redis.prefix: \"a b\" can begin no key; letters, digits and . _ - : / can: \"shop:\"",
            ],
        ),
        (
            "[redis]\nprefix = 'events:'\nstate_prefix = 'events:state:'",
            &[
                "moontide.toml: redis.prefix: \"events:\" would take streams called \"events:\" for the host's own",
                "moontide.toml: redis.prefix: state_prefix begins with prefix: scripts would write the host's own keys",
            ],
        ),
        (
            "[bus]\nsource = 'a b'",
            &["moontide.toml: bus.source: \"a b\" can be no source; a name or URI without spaces can: \"moontide\""],
        ),
        (
            "[handlers.'a b']",
            &[
                "moontide.toml: handlers.\"a b\": can fit no handler; names are letters, digits and . _ - / (and * or ** in patterns)",
            ],
        ),
        ("[values]\nx = [1]", &["moontide.toml: values.x: must be a text, a number, true or false, not a list"]),
    ]);
}

#[test]
fn numbers_and_names_have_bounds() {
    refused(&[
        (
            "[redis]\nbatch = 0\nblock = '2m'",
            &[
                "moontide.toml: redis.batch: must be a whole number from 1 to 10000, not 0",
                "moontide.toml: redis.block: is too long; at most \"1m\"",
            ],
        ),
        (
            "[retry]\nattempts = 0\nfactor = 0.5\njitter = 2",
            &[
                "moontide.toml: retry.attempts: must be a whole number from 1 to 1000, not 0",
                "moontide.toml: retry.factor: must be a number from 1 to 1000, not 0.5",
                "moontide.toml: retry.jitter: must be a number from 0 to 1, not 2",
            ],
        ),
        (
            "[groups]\ndefault = 'a b'\n[run]\nname = 'a/b'\n[emit]\nbatch = 10_001\ntimeout = '0s'",
            &[
                "moontide.toml: emit.batch: must be a whole number from 1 to 10000, not 10001",
                "moontide.toml: emit.timeout: \"0s\" is too short; at least \"1ms\"",
                "moontide.toml: groups.default: expected 1 to 200 letters, digits and . _ - / :, got \"a b\"",
                "moontide.toml: run.name: expected 1 to 128 letters, digits and . _ -, got \"a/b\"",
            ],
        ),
    ]);
}

#[test]
fn what_is_no_toml_or_not_there_is_said() {
    let broken = given("[bus\n").problems();
    assert!(broken[0].starts_with("moontide.toml: is not TOML: TOML parse error at line 1, column 5"), "{broken:?}");
    let mut missing = given("");
    missing.flags.config = Some("/nowhere/moontide.toml".into());
    let problems = missing.problems();
    assert_eq!(problems, ["/nowhere/moontide.toml: cannot be read: No such file or directory (os error 2)"]);
    std::fs::remove_file(missing.folder.path().join("moontide.toml")).expect("the file is there");
    missing.flags.config = None;
    assert!(missing.load().is_ok(), "the file in the current directory may be missing");
}

#[test]
fn contradictions_are_refused() {
    refused(&[
        (
            "[limits]\npayload = '8 MiB'",
            &[
                "moontide.toml: limits.payload: effects_bytes would be less than payload: an event of that size could not be emitted",
            ],
        ),
        (
            "[handlers.x]\nlimits = { payload = '8 MiB' }",
            &[
                "moontide.toml: handlers.x.limits.payload: effects_bytes would be less than payload: an event of that size could not be emitted",
            ],
        ),
        (
            "[groups]\nforget = '5s'",
            &[
                "moontide.toml: groups.forget: forget would be shorter than recovery: a group would be gone before it can be taken over",
            ],
        ),
        (
            "[[stream]]\ntypes = ['a', 'b']\nname = 'one'\n[[stream]]\ntypes = ['b']\nname = 'one'\nretain = { age = '1d' }",
            &[
                "moontide.toml: stream #2.retain: differs from an earlier table of \"one\"; say it once",
                "moontide.toml: stream #2.types: \"b\" is in \"one\" already, and the first match wins",
            ],
        ),
        (
            "[[stream]]\ntypes = ['a b']\nname = '{type}.log'",
            &[
                "moontide.toml: stream #1.name: \"{type}.log\" has {type} elsewhere than at its end; write \"shop:{type}\"",
                "moontide.toml: stream #1.types: \"a b\" is no pattern: ' ' cannot stand in an event type; letters, digits and . _ - : / can",
            ],
        ),
        (
            "[[stream]]\ntypes = ['a']\nname = 'moontide:{type}'",
            &[
                "moontide.toml: stream #1.name: \"moontide:{type}\" belongs to the host; choose a name that does not begin with \"moontide:\"",
            ],
        ),
        ("[retry]\ndelay = '10m'", &["moontide.toml: retry.delay: max_delay would be shorter than delay"]),
        ("[stream]\nname = 'x'", &["moontide.toml: stream: must be a list of tables: write [[stream]]"]),
    ]);
}

#[test]
fn streams_are_read_in_their_order() {
    let text = "[[stream]]\ntypes = ['Checkout*']\nname = 'shop'\nretain = { length = 9 }\n\
                [[stream]]\ntypes = ['Audit*']\nname = 'audit'\nretain = { age = 'off' }\n\
                [[stream]]\ntypes = ['*']\nname = 'rest:{type}'";
    let streams = given(text).load().expect("the configuration is right").streams;
    assert_eq!(streams.of("CheckoutInitiated"), "shop");
    assert_eq!(streams.of("order.created"), "rest:order.created");
    let retain = streams.retain("shop");
    assert_eq!((retain.age, retain.length), (Some(Duration::from_secs(7 * 86_400)), Some(9)));
    assert_eq!(streams.retain("audit").age, None, "off is off, whatever is kept elsewhere");
    assert_eq!((streams.retain_by_rule("rest:x"), streams.retain("rest:x")), (None, streams.retain));
}

#[test]
fn dead_letters_lie_where_nothing_else_does_and_in_a_layout_that_can_be_written() {
    let text = "[dead_letters]\nstream = 'event_dlq'\nlayout = 'aggregate'";
    let letters = given(text).load().expect("the configuration is right").dead_letters;
    assert_eq!(letters.stream.as_deref(), Some("event_dlq"));
    assert_eq!(letters.layout.map(|layout| layout.names().collect::<Vec<_>>().join(" ")), Some("aggregate".into()));
    assert_eq!(letters.retain, Some(Duration::from_secs(90 * 86_400)));
    let own = "[layout.hook]\ntype = 'kind'\ndata = 'body'\n[dead_letters]\nlayout = 'hook'";
    let case = given(own).variable("MOONTIDE_DEAD_LETTERS_STREAM", "failed:all");
    let letters = case.load().expect("the configuration is right").dead_letters;
    assert_eq!(letters.stream.as_deref(), Some("failed:all"));
    assert!(letters.layout.is_some_and(|layout| layout.names().eq(["hook"])));
    let none = given("").load().expect("the defaults are right").dead_letters;
    assert_eq!((none.stream, none.layout), (None, None));
    let stream = |name: &str, says: &str| {
        let rules = "[[stream]]\ntypes = ['A*']\nname = 'shop'\n[[stream]]\ntypes = ['B*']\nname = 'log:{type}'\n";
        let text = format!("{rules}[redis]\nprefix = 'host:'\n[dead_letters]\nstream = '{name}'");
        assert_eq!(given(&text).problems(), [format!("moontide.toml: dead_letters.stream: \"{name}\" {says}")]);
    };
    stream("shop", "is a stream of events (\"shop\"), which handlers read; choose another");
    stream("log:dead", "is a stream of events (\"log:{type}\"), which handlers read; choose another");
    stream("events:dead", "is a stream of events (\"events:{type}\"), which handlers read; choose another");
    stream("host:dead", "begins with redis.prefix = \"host:\"; \"\" is the host's own stream there");
    stream("state:dead", "begins with redis.state_prefix = \"state:\": scripts could overwrite it");
    stream("dead:{handler}", "would be several streams; there is one for all handlers: \"event_dlq\"");
    stream("a b", "is no name; letters, digits and . _ - : / make one");
    stream("moontide:x", "belongs to the host; choose a name that does not begin with \"moontide:\"");
    refused(&[
        (
            "[dead_letters]\nlayout = 'auto'",
            &[
                "moontide.toml: dead_letters.layout: \"auto\" is for reading; name the layout that is written: event_data, payload, aggregate, cloudevents",
            ],
        ),
        (
            "[dead_letters]\nlayout = 'agregate'",
            &["moontide.toml: dead_letters.layout: \"agregate\" is no layout; did you mean \"aggregate\"?"],
        ),
        (
            "[dead_letters]\nlayout = 'domain'",
            &[
                "moontide.toml: dead_letters.layout: \"domain\" is a layout of channels; streams have event_data, payload, aggregate, cloudevents, or a [layout.NAME]",
            ],
        ),
        ("[dead_letters]\nlayout = ['aggregate']", &["moontide.toml: dead_letters.layout: must be a text, not a list"]),
    ]);
}

#[test]
fn the_most_specific_word_on_a_handler_counts() {
    let text = "[handlers.'**']\nconcurrency = 1\nlimits = { cpu = '2s', emits = 5 }\n\
                [handlers.'billing/*']\nlimits = { cpu = '3s' }\n\
                [handlers.'billing/*'.grants]\nsecrets = ['key']\nstate = ['billing/']\n\
                hosts = ['api.example', { host = 'shop.internal', private = true }]\n\
                [handlers.'billing/charge']\nconcurrency = 9\n\
                [secrets]\nkey = { env = 'THE_KEY' }\n[values]\ncurrency = 'EUR'\nrate = 3";
    let config = given(text).variable("THE_KEY", "s3cret").load().expect("the configuration is right");
    let charge = config.options_for("billing/charge");
    assert_eq!(charge.concurrency, Some(9));
    assert_eq!((charge.limits.cpu, charge.limits.emits_max), (Duration::from_secs(3), 5));
    assert_eq!(charge.granted.state, Some(vec!["billing/".to_owned()]));
    assert_eq!(charge.granted.secrets.get("key"), Some("s3cret"));
    let hosts: Vec<_> = charge.granted.hosts.iter().map(HostGrant::as_str).collect();
    assert_eq!(hosts, ["api.example", "shop.internal"]);
    assert_eq!(charge.granted.hosts.iter().map(HostGrant::is_private).collect::<Vec<_>>(), [false, true]);
    let other = config.options_for("mail");
    assert_eq!((other.concurrency, other.limits.cpu), (Some(1), Duration::from_secs(2)));
    assert_eq!(other.granted.state, None);
    let values: Vec<_> = other.granted.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(values, ["currency=EUR", "rate=3"], "values are everybody's, secrets are not");
    assert!(other.granted.secrets.get("key").is_none() && other.granted.hosts.is_empty());
    assert!(!format!("{config:?}").contains("s3cret"), "a secret is not printed");
}

#[test]
fn whom_a_handler_adopts_from_is_named() {
    let text = "[bus]\nurl = 'redis://localhost'\n[handlers.'**']\nadopt = { consumers = ['*'] }\n\
                [handlers.'billing/*']\nadopt = { consumers = ['worker-*', 'old'], idle = '5m' }\n[handlers.mail]\nconcurrency = 1";
    let config = given(text).load().expect("the configuration is right");
    let adopting = config.adopting();
    let of = |name: &str| adopting.of(name).map(|adopt| (adopt.consumers.join(" "), adopt.idle.as_secs()));
    assert_eq!(of("billing/charge"), Some(("worker-* old".to_owned(), 300)));
    assert_eq!(of("mail"), Some(("*".to_owned(), 60)));
    assert_eq!(config.in_vain(), Vec::<String>::new());
    let config = given("[handlers.mail]\nadopt = { consumers = ['a'], idle = '1s' }").load().expect("it is right");
    assert_eq!(config.adopting().of("bail"), None);
    let vain = "[handlers.\"mail\"] adopt does nothing: only groups on Redis have consumers of others";
    assert_eq!(config.in_vain(), [vain]);
    refused(&[
        ("[handlers.x]\nadopt = {}", &["moontide.toml: handlers.x.adopt.consumers: is missing"]),
        (
            "[handlers.x]\nadopt = { consumers = [], idle = '999ms' }",
            &[
                "moontide.toml: handlers.x.adopt.consumers: must name at least one: [\"worker-*\"], or [\"*\"] for all that \
                 are not Moontide's",
                "moontide.toml: handlers.x.adopt.idle: \"999ms\" is too short; at least \"1s\"",
            ],
        ),
        (
            "[handlers.x]\nadopt = { consumers = ['moontide:*'], idel = '5m' }",
            &[
                "moontide.toml: handlers.x.adopt.consumers: \"moontide:*\" names consumers of Moontide's, which are taken \
                 over by themselves",
                "moontide.toml: handlers.x.adopt.idel: is no key; did you mean idle?",
            ],
        ),
        ("[handlers.x]\nadopt = true", &["moontide.toml: handlers.x.adopt: must be a table, not true"]),
    ]);
}

#[test]
fn no_handler_may_touch_the_hosts_own_keys_whatever_the_prefixes_are() {
    for (prefixes, reserved) in [
        ("", None),
        ("[redis]\nstate_prefix = ''", Some("moontide:")),
        ("[redis]\nprefix = 'shop:own:'\nstate_prefix = 'shop:'", Some("own:")),
    ] {
        let config = given(prefixes).load().expect("the configuration is right");
        assert_eq!(config.options_for("any").granted.reserved.as_deref(), reserved, "{prefixes}");
    }
}

#[test]
fn secrets_must_be_there_and_be_secret() {
    let case = given(
        "[secrets]\na = { env = 'NOT_SET' }\nb = { file = '/nowhere/b' }\nc = {}\nd = { env = 'X', file = 'y' }\n\
         [values]\na = 1\n[handlers.x]\ngrants = { secrets = ['cc'] }",
    );
    assert_eq!(
        case.problems(),
        [
            "moontide.toml: handlers.x.grants.secrets: there is no secret \"cc\" in [secrets]; did you mean \"c\"?",
            "moontide.toml: secrets.a: the variable NOT_SET is not set; set it before starting",
            "moontide.toml: secrets.b: the file /nowhere/b cannot be read: No such file or directory (os error 2)",
            "moontide.toml: secrets.c: must have either env or file: { env = \"NAME\" } or { file = \"PATH\" }",
            "moontide.toml: secrets.d: must have either env or file: { env = \"NAME\" } or { file = \"PATH\" }",
            "moontide.toml: values.a: is also the name of a secret; rename one of them",
        ]
    );
}

#[cfg(unix)]
#[test]
fn a_secret_file_that_everybody_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let case = given("");
    let path = case.folder.path().join("key");
    std::fs::write(&path, "s3cret\n").expect("the folder is writable");
    let text =
        format!("[secrets]\nkey = {{ file = '{}' }}\n[handlers.x]\ngrants = {{ secrets = ['key'] }}", path.display());
    std::fs::write(case.folder.path().join("moontide.toml"), text).expect("the folder is writable");
    let allow =
        |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("the file is ours");
    allow(0o644);
    assert_eq!(case.problems(), ["moontide.toml: secrets.key: everybody can read the file key; run: chmod o-rwx key"]);
    allow(0o600);
    let options = case.load().expect("the configuration is right").options_for("x");
    assert_eq!(options.granted.secrets.get("key"), Some("s3cret"), "the line break at the end is dropped");
}

#[test]
fn http_listens_on_loopback_unless_somebody_says_otherwise() {
    let config = given("").load().expect("the defaults are right");
    let listen = config.http.listen.expect("it is on");
    assert_eq!((listen.address.to_string().as_str(), listen.explicit), ("127.0.0.1:7100", false));
    assert_eq!((config.http.token, config.metrics_listen), (None, None));
    let config = given("[http]\nlisten = 'localhost:7100'\nhosts = ['Moon.Example']").load().expect("it is right");
    let listen = config.http.listen.expect("it is on");
    assert_eq!((listen.address.to_string().as_str(), listen.explicit), ("127.0.0.1:7100", true));
    assert_eq!(config.http.hosts, ["moon.example"]);
    let off = given("").variable("MOONTIDE_HTTP_LISTEN", "").load().expect("it is right");
    assert_eq!(off.http.listen, None);
}

#[test]
fn nobody_is_let_in_from_outside_without_a_token() {
    let open = "[http]\nlisten = '0.0.0.0:7100'\n";
    let says = "moontide.toml: http.listen: is open to others without a token; set http.token (MOONTIDE_HTTP_TOKEN, or \
                { file = \"PATH\" }), or listen on \"127.0.0.1:7100\"";
    assert_eq!(given(open).problems(), [says]);
    let config = given(open).variable("MOONTIDE_HTTP_TOKEN", "0123456789abcdef").load().expect("it is right");
    assert_eq!(config.http.token.as_ref().map(|token| token.reveal()), Some("0123456789abcdef"));
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "nobody prints it");
    let named = format!("{open}token = {{ env = 'MOONTIDE_TOKEN' }}");
    let config = given(&named).variable("MOONTIDE_TOKEN", "0123456789abcdef").load().expect("it is right");
    assert!(config.http.token.is_some());
    refused(&[
        (
            "[http]\ntoken = '0123456789abcdef'",
            &[
                "moontide.toml: http.token: does not belong in this file; write { env = \"NAME\" } or { file = \"PATH\" }",
            ],
        ),
        (
            "[http]\nlisten = 'localhost'",
            &["moontide.toml: http.listen: \"localhost\" is no address; write an IP address and a port, \
               \"127.0.0.1:7100\", or \"\" for off"],
        ),
        (
            "[http]\nhosts = ['a:7']",
            &["moontide.toml: http.hosts: \"a:7\" is no name of a host; write it without port: \"shop.example\""],
        ),
    ]);
    let problems = given("").variable("MOONTIDE_HTTP_TOKEN", "short").problems();
    assert_eq!(
        problems,
        ["MOONTIDE_HTTP_TOKEN: is too short to be safe; at least 16 characters: openssl rand -hex 24"]
    );
}

/// Every `table.key` of default.toml, those in commented examples included.
fn keys() -> Vec<String> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in DEFAULT_TOML.lines().map(|line| line.trim_start_matches("# ").trim()) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = header.trim_start_matches('[').split('.').next().unwrap_or_default().to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            && !["secrets", "values"].contains(&table.as_str())
        {
            keys.push(format!("{table}.{key}"));
        }
    }
    keys
}

#[test]
fn every_key_is_in_the_readme() {
    let keys = keys();
    assert!(
        keys.len() > 25 && keys.contains(&"stream.retain".into()) && keys.contains(&"log.level".into()),
        "{keys:?}"
    );
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md is there");
    let settings = readme.split("\n## Settings").nth(1).expect("README.md has a section Settings");
    let settings = settings.split("\n## ").next().unwrap_or(settings);
    let missing: Vec<_> = keys.iter().filter(|key| !settings.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "README.md, section Settings, lacks {missing:?}");
}

#[test]
fn every_key_says_what_it_is() {
    let mut before = "";
    for line in DEFAULT_TOML.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(before.starts_with("# "), "{line:?} has no comment above it");
        }
        before = line;
    }
}
