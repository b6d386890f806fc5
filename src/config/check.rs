//! From raw values to a [`Config`]: section by section, then what contradicts what.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bus::{check_stream_name, read_bus, read_redis, read_sqlite};
use super::channels::{read_channels, read_types};
use super::dead_letters::read_dead_letters;
use super::handlers::{HandlerRules, read_values};
use super::http::{read_http, read_metrics};
use super::layers::Surroundings;
use super::layouts::{Carrier, read_layout, read_layouts};
use super::raw::{Checker, Table};
use super::{Config, Emitting, Log, LogFormat, LogLevel, secrets};
use crate::envelope::Layout;
use crate::judge::{ATTEMPTS_MAX, RetryPolicy};
use crate::script::{Limits, check_group};
use crate::streams::{Retain, StreamRule, Streams};

const LEAST: Duration = Duration::from_millis(1);
const THREADS_MAX: usize = 1024;
const EFFECTS_MAX: usize = 1_000_000;
const CALLS_MAX: usize = 10_000;
const STEPS_MAX: usize = 10_000;
const DEPTH_MAX: usize = 1_000_000;
const FACTOR_MAX: f64 = 1000.0;
/// Most events that one publish stores.
const BATCH_MAX: usize = 10_000;
const INSTANCE_BYTES_MAX: usize = 128;

/// Reads everything. The result may be used only if the checker found no problems.
pub fn config(checker: &Checker, around: &Surroundings) -> Config {
    let mut root = Table::root(checker);
    let bus = read_bus(root.table("bus"));
    let sqlite = read_sqlite(root.table("sqlite"));
    let (recovery_time, forget_group_after, default_group) = read_groups(root.table("groups"));
    let layouts = read_layouts(&root.table("layout"), checker);
    let mut streams = read_streams(&mut root, &layouts);
    let redis = read_redis(root.table("redis"), &streams);
    let channels = read_channels(&mut root, &redis.channel_prefix, &layouts);
    streams.mirrors = channels.mirrors;
    let streams = Arc::new(streams);
    let limits = read_limits(root.table("limits"), &Limits::default()).over(&Limits::default());
    let retry = read_retry(root.table("retry"));
    let emit = read_emit(root.table("emit"));
    let secrets = secrets::read(root.table("secrets"), &around.environment);
    let values = read_values(&root.table("values"), checker, &secrets);
    let handlers = HandlerRules::read(&root.table("handlers"), &limits, values, secrets, redis.reserved_state());
    let dead_letters = read_dead_letters(root.table("dead_letters"), &redis, &streams, &layouts);
    let mut reload = root.table("reload");
    let scan = reload.duration("scan", Duration::from_millis(100));
    reload.close();
    let Run { handlers_dir, threads, grace, instance } = read_run(root.table("run"));
    let http = read_http(root.table("http"), &around.environment);
    let metrics_listen = read_metrics(root.table("metrics"));
    let log = read_log(root.table("log"));
    root.close();
    Config {
        bus,
        sqlite,
        redis,
        recovery_time,
        forget_group_after,
        default_group,
        streams,
        channels: channels.listened,
        limits,
        retry,
        emit,
        dead_letters,
        scan,
        handlers_dir,
        threads,
        grace,
        instance,
        http,
        metrics_listen,
        log,
        handlers,
        borrowed: checker.layers.borrowed.clone(),
    }
}

fn read_groups(mut table: Table<'_>) -> (Duration, Duration, Option<String>) {
    let recovery = table.duration("recovery", Duration::from_secs(1));
    let forget = table.duration("forget", LEAST);
    if forget < recovery {
        let message = "forget would be shorter than recovery: a group would be gone before it can be taken over";
        table.note_among(&["forget", "recovery"], message);
    }
    let default = named(&mut table, "default", check_group);
    table.close();
    (recovery, forget, default)
}

/// A name, if it is not empty.
fn named(table: &mut Table<'_>, key: &'static str, check: impl FnOnce(&str) -> Result<(), String>) -> Option<String> {
    let name = Some(table.text(key)).filter(|name| !name.is_empty())?;
    if let Err(message) = check(&name) {
        table.note(key, message);
    }
    Some(name)
}

/// Whether a process can be called so.
///
/// # Errors
/// What was expected, and what it is.
pub fn check_instance(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match !name.is_empty() && name.len() <= INSTANCE_BYTES_MAX && name.chars().all(fits) {
        true => Ok(()),
        false => Err(format!("expected 1 to {INSTANCE_BYTES_MAX} letters, digits and . _ -, got {name:?}")),
    }
}

fn read_retry(mut table: Table<'_>) -> RetryPolicy {
    let attempts = table.need("attempts", |table| table.optional_count("attempts", 1..=ATTEMPTS_MAX));
    let policy = RetryPolicy {
        attempts: attempts as u32,
        delay: table.duration("delay", LEAST),
        factor: table.need("factor", |table| table.optional_number("factor", 1.0..=FACTOR_MAX)),
        max_delay: table.duration("max_delay", LEAST),
        jitter: table.need("jitter", |table| table.optional_number("jitter", 0.0..=1.0)),
        max_age: table.duration("max_age", LEAST),
    };
    if policy.max_delay < policy.delay {
        table.note_among(&["max_delay", "delay"], "max_delay would be shorter than delay");
    }
    table.close();
    policy
}

fn read_emit(mut table: Table<'_>) -> Emitting {
    let batch = table.need("batch", |table| table.optional_count("batch", 1..=BATCH_MAX));
    let timeout = table.duration("timeout", LEAST);
    table.close();
    Emitting { batch, timeout }
}

/// `[run]`
struct Run {
    handlers_dir: PathBuf,
    threads: usize,
    grace: Duration,
    instance: Option<String>,
}

fn read_run(mut table: Table<'_>) -> Run {
    let folder = table.text("handlers");
    if folder.is_empty() {
        table.note("handlers", "must name a folder: \"handlers\"");
    }
    let threads = table.need("threads", |table| table.optional_count("threads", 0..=THREADS_MAX));
    let grace = table.duration("grace", Duration::ZERO);
    let instance = named(&mut table, "name", check_instance);
    table.close();
    Run { handlers_dir: folder.into(), threads, grace, instance }
}

fn read_log(mut table: Table<'_>) -> Log {
    let level = table.choice("level", &LogLevel::ALL.map(|level| (level.as_str(), level)));
    let format = table.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    table.close();
    Log { level, format }
}

/// The limits that a table sets; `None`: not set there.
#[derive(Clone, Debug, Default)]
pub struct LimitsGiven {
    cpu: Option<Duration>,
    memory: Option<usize>,
    payload: Option<usize>,
    emits: Option<usize>,
    writes: Option<usize>,
    effects_bytes: Option<usize>,
    calls: Option<usize>,
    call_bytes: Option<usize>,
    steps: Option<usize>,
    step_bytes: Option<usize>,
    depth: Option<usize>,
}

impl LimitsGiven {
    /// Takes from `other` what is not set yet.
    pub fn fill_from(&mut self, other: &Self) {
        self.cpu = self.cpu.or(other.cpu);
        self.memory = self.memory.or(other.memory);
        self.payload = self.payload.or(other.payload);
        self.emits = self.emits.or(other.emits);
        self.writes = self.writes.or(other.writes);
        self.effects_bytes = self.effects_bytes.or(other.effects_bytes);
        self.calls = self.calls.or(other.calls);
        self.call_bytes = self.call_bytes.or(other.call_bytes);
        self.steps = self.steps.or(other.steps);
        self.step_bytes = self.step_bytes.or(other.step_bytes);
        self.depth = self.depth.or(other.depth);
    }

    /// `base` with what is set here.
    pub fn over(&self, base: &Limits) -> Limits {
        Limits {
            cpu: self.cpu.unwrap_or(base.cpu),
            memory_bytes: self.memory.unwrap_or(base.memory_bytes),
            payload_bytes_max: self.payload.unwrap_or(base.payload_bytes_max),
            emits_max: self.emits.unwrap_or(base.emits_max),
            writes_max: self.writes.unwrap_or(base.writes_max),
            effects_bytes_max: self.effects_bytes.unwrap_or(base.effects_bytes_max),
            calls_max: self.calls.unwrap_or(base.calls_max),
            call_bytes_max: self.call_bytes.unwrap_or(base.call_bytes_max),
            steps_max: self.steps.unwrap_or(base.steps_max),
            step_bytes_max: self.step_bytes.unwrap_or(base.step_bytes_max),
            depth_max: self.depth.unwrap_or(base.depth_max),
        }
    }
}

/// Reads a table of limits; `base` holds where it is silent.
pub fn read_limits(mut table: Table<'_>, base: &Limits) -> LimitsGiven {
    let given = LimitsGiven {
        cpu: table.optional_duration("cpu", LEAST),
        memory: table.optional_bytes("memory", 1 << 20),
        payload: table.optional_bytes("payload", 1),
        emits: table.optional_count("emits", 0..=EFFECTS_MAX),
        writes: table.optional_count("writes", 0..=EFFECTS_MAX),
        effects_bytes: table.optional_bytes("effects_bytes", 1),
        calls: table.optional_count("calls", 0..=CALLS_MAX),
        call_bytes: table.optional_bytes("call_bytes", 1),
        steps: table.optional_count("steps", 0..=STEPS_MAX),
        step_bytes: table.optional_bytes("step_bytes", 1),
        depth: table.optional_count("depth", 0..=DEPTH_MAX),
    };
    let limits = given.over(base);
    if limits.effects_bytes_max < limits.payload_bytes_max {
        let message = "effects_bytes would be less than payload: an event of that size could not be emitted";
        table.note_among(&["effects_bytes", "payload"], message);
    }
    table.close();
    given
}

fn read_streams(root: &mut Table<'_>, layouts: &[Layout]) -> Streams {
    let retain = read_retain(root.table("retain"), Retain::default()).unwrap_or_default();
    let mut rules: Vec<StreamRule> = Vec::new();
    for mut table in root.tables("stream") {
        let rule = read_stream(&mut table, retain, layouts);
        for earlier in &rules {
            if let Some(twice) = rule.types.iter().find(|pattern| earlier.types.contains(pattern)) {
                let message =
                    format!("{:?} is in {:?} already, and the first match wins", twice.as_str(), earlier.name);
                table.note("types", message);
            }
            // Where every type has a stream of its own, each table speaks of others.
            let one = earlier.name == rule.name && !rule.name.contains("{type}");
            if one && earlier.retain != rule.retain {
                table.note("retain", format!("differs from an earlier table of {:?}; say it once", rule.name));
            }
            if one && earlier.layouts != rule.layouts {
                table.note("layout", format!("differs from an earlier table of {:?}; say the same", rule.name));
            }
        }
        table.close();
        rules.push(rule);
    }
    Streams { rules, retain, mirrors: Vec::new() }
}

fn read_stream(table: &mut Table<'_>, retain: Retain, layouts: &[Layout]) -> StreamRule {
    let name = table.text("name");
    if let Err(message) = check_stream_name(&name) {
        table.note("name", message);
    }
    let types = read_types(table);
    let layouts = read_layout(table, layouts, Carrier::Stream);
    StreamRule { types, name, retain: read_retain(table.table("retain"), retain), layouts }
}

/// What a table says that is kept, and where it is silent, `base`; `None`: it says nothing.
fn read_retain(mut table: Table<'_>, base: Retain) -> Option<Retain> {
    let age = table.optional_duration_or_off("age");
    let length = table.optional_count_or_off("length");
    table.close();
    let says = age.is_some() || length.is_some();
    says.then(|| Retain { age: age.unwrap_or(base.age), length: length.unwrap_or(base.length) })
}
