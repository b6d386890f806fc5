//! From raw values to a [`Config`]: section by section, then what contradicts what.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::bus::{check_stream_name, read_bus, read_redis, read_sqlite};
use super::dead_letters::read_dead_letters;
use super::handlers::{HandlerRules, read_values};
use super::http::{read_http, read_metrics};
use super::layers::Surroundings;
use super::layouts::{Carrier, read_layout, read_layouts};
use super::raw::{Checker, Table};
use super::{Config, Log, LogFormat, LogLevel, secrets};
use crate::envelope::Layout;
use crate::event::TypePattern;
use crate::script::Limits;
use crate::streams::{Retain, StreamRule, Streams};

const LEAST: Duration = Duration::from_millis(1);
const THREADS_MAX: usize = 1024;
const EFFECTS_MAX: usize = 1_000_000;

/// Reads everything. The result may be used only if the checker found no problems.
pub fn config(checker: &Checker, around: &Surroundings) -> Config {
    let mut root = Table::root(checker);
    let bus = read_bus(root.table("bus"));
    let sqlite = read_sqlite(root.table("sqlite"));
    let (recovery_time, forget_group_after) = read_groups(root.table("groups"));
    let layouts = read_layouts(&root.table("layout"), checker);
    let streams = Arc::new(read_streams(&mut root, &layouts));
    let redis = read_redis(root.table("redis"), &streams);
    let limits = read_limits(root.table("limits"), &Limits::default()).over(&Limits::default());
    let secrets = secrets::read(root.table("secrets"), &around.environment);
    let values = read_values(&root.table("values"), checker, &secrets);
    let handlers = HandlerRules::read(&root.table("handlers"), &limits, values, secrets);
    let dead_letters = read_dead_letters(root.table("dead_letters"), &redis, &streams, &layouts);
    let mut reload = root.table("reload");
    let scan = reload.duration("scan", Duration::from_millis(100));
    reload.close();
    let (handlers_dir, threads, grace) = read_run(root.table("run"));
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
        streams,
        limits,
        dead_letters,
        scan,
        handlers_dir,
        threads,
        grace,
        http,
        metrics_listen,
        log,
        handlers,
    }
}

fn read_groups(mut table: Table<'_>) -> (Duration, Duration) {
    let recovery = table.duration("recovery", Duration::from_secs(1));
    let forget = table.duration("forget", LEAST);
    if forget < recovery {
        let message = "forget would be shorter than recovery: a group would be gone before it can be taken over";
        table.note_among(&["forget", "recovery"], message);
    }
    table.close();
    (recovery, forget)
}

fn read_run(mut table: Table<'_>) -> (PathBuf, usize, Duration) {
    let folder = table.text("handlers");
    if folder.is_empty() {
        table.note("handlers", "must name a folder: \"handlers\"");
    }
    let threads = table.need("threads", |table| table.optional_count("threads", 0..=THREADS_MAX));
    let grace = table.duration("grace", Duration::ZERO);
    table.close();
    (folder.into(), threads, grace)
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
            if earlier.name == rule.name && earlier.retain != rule.retain {
                table.note("retain", format!("differs from an earlier table of {:?}; say it once", rule.name));
            }
            if earlier.name == rule.name && earlier.layouts != rule.layouts {
                table.note("layout", format!("differs from an earlier table of {:?}; say the same", rule.name));
            }
        }
        table.close();
        rules.push(rule);
    }
    Streams { rules, retain }
}

fn read_stream(table: &mut Table<'_>, retain: Retain, layouts: &[Layout]) -> StreamRule {
    let name = table.text("name");
    if let Err(message) = check_stream_name(&name) {
        table.note("name", message);
    }
    let texts = table.need("types", |table| {
        let texts = table.optional_texts("types");
        if texts.as_ref().is_some_and(Vec::is_empty) {
            table.note("types", "must name at least one type: [\"Checkout*\"]");
        }
        texts
    });
    let mut types = Vec::with_capacity(texts.len());
    for text in texts {
        match TypePattern::parse(&text) {
            Ok(pattern) => types.push(pattern),
            Err(error) => table.note("types", format!("{text:?} is no pattern: {error}")),
        }
    }
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
