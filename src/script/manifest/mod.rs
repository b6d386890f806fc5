//! A handler's header: the table its file returns, read into a manifest that cannot be wrong.
//!
//! Owns every key, its default and its unit. All problems are found at once; unknown keys are answered with the nearest
//! right one. Reads raw fields only, so that no metamethod of the script runs.

mod fields;

use std::time::Duration;

use mlua::{Table, Value};

use self::fields::{Problems, list, positive, quantity_of_time, share, size, text, whole};
use super::{Grants, Idempotency, IdempotencyKey, Limits, LoadOptions, Manifest, key};
use crate::bus::Start;
use crate::event::TypePattern;
use crate::judge::{ATTEMPTS_MAX, RetryPolicy};
use crate::outbound::HostGrant;
use crate::streams::check_stream;
use crate::units::show_duration;

const KEYS: [&str; 11] =
    ["on", "handle", "group", "streams", "start", "concurrency", "timeout", "retry", "idempotency", "limits", "grants"];
const LATER: [&str; 11] = [
    "order_key",
    "schedule",
    "batch",
    "handle_batch",
    "undo",
    "rate",
    "limit",
    "debounce",
    "breaker",
    "stages",
    "accepts",
];
const CONCURRENCY: usize = 64;
const CONCURRENCY_MAX: usize = 10_000;
const TIMEOUT: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(3600);
const GROUP_BYTES_MAX: usize = 200;
const SHOWN_CHARS_MAX: usize = 60;

/// Reads what the file of handler `name` returned.
pub(super) fn read(name: &str, returned: &Value, options: &LoadOptions) -> Result<Manifest, Vec<String>> {
    let mut problems = Problems::default();
    let manifest = match returned {
        Value::Function(_) => defaults(name, options, &mut problems),
        Value::Table(table) => from_table(name, table, options, &mut problems),
        other => {
            problems.add(
                "",
                format!(
                    "expected the file to return function(event, ctx) or a table with handle, got {}",
                    super::api::describe(other)
                ),
            );
            return Err(problems.into_list());
        }
    };
    problems.check(manifest)
}

fn defaults(name: &str, options: &LoadOptions, problems: &mut Problems) -> Manifest {
    Manifest {
        types: default_types(name, problems),
        group: default_group(name, options),
        streams: Vec::new(),
        start: Start::Latest,
        concurrency: options.concurrency.unwrap_or(CONCURRENCY),
        timeout: TIMEOUT,
        retry: options.retry.clone(),
        idempotency: Idempotency { key: IdempotencyKey::SourceAndId, window: Some(WINDOW) },
        limits: options.limits.clone(),
        grants: Grants::default(),
    }
}

fn from_table(name: &str, table: &Table, options: &LoadOptions, problems: &mut Problems) -> Manifest {
    problems.keys(table, "", &KEYS, &LATER);
    if !problems.raw(table, "handle").is_function() {
        problems.add("handle", "expected function(event, ctx)".to_owned());
    }
    let types = match problems.raw(table, "on") {
        Value::Nil => default_types(name, problems),
        _ => problems.field(table, "on", Vec::new(), types),
    };
    let concurrency = problems.field(table, "concurrency", CONCURRENCY, |value| whole(value, 1, CONCURRENCY_MAX));
    Manifest {
        types,
        group: problems.field(table, "group", default_group(name, options), group),
        streams: problems.field(table, "streams", Vec::new(), streams),
        start: problems.field(table, "start", Start::Latest, start),
        concurrency: options.concurrency.unwrap_or(concurrency),
        timeout: problems.field(table, "timeout", TIMEOUT, quantity_of_time),
        retry: problems
            .section(table, "retry", options.retry.clone(), |at, problems| retry(at, &options.retry, problems)),
        idempotency: idempotency(table, problems),
        limits: problems
            .section(table, "limits", options.limits.clone(), |at, problems| limits(at, &options.limits, problems)),
        grants: problems.section(table, "grants", Grants::default(), grants),
    }
}

fn default_group(name: &str, options: &LoadOptions) -> String {
    options.group.clone().unwrap_or_else(|| name.to_owned())
}

fn default_types(name: &str, problems: &mut Problems) -> Vec<TypePattern> {
    let base = name.rsplit('/').next().unwrap_or(name);
    match TypePattern::parse(base) {
        Ok(pattern) => vec![pattern],
        Err(error) => {
            problems.add("on", format!("the file's name {base:?} is no event type ({error}); say which it handles"));
            Vec::new()
        }
    }
}

fn types(value: &Value) -> Result<Vec<TypePattern>, String> {
    let names = list(value)?;
    if names.is_empty() {
        return Err("expected at least one event type".to_owned());
    }
    let parse = |name: &String| TypePattern::parse(name).map_err(|error| format!("{name:?}: {error}"));
    names.iter().map(parse).collect()
}

fn group(value: &Value) -> Result<String, String> {
    let group = text(value)?;
    check_group(&group)?;
    Ok(group)
}

/// Whether a group can be called so.
///
/// # Errors
/// What was expected, and what it is.
pub fn check_group(group: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if group.is_empty() || group.len() > GROUP_BYTES_MAX || !group.chars().all(fits) {
        let got = beginning(group);
        return Err(format!("expected 1 to {GROUP_BYTES_MAX} letters, digits and . _ - / :, got {got}"));
    }
    match group.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some(part) => Err(format!("expected a name whose parts are names, got {group:?}, of which one is {part:?}")),
        None => Ok(()),
    }
}

fn streams(value: &Value) -> Result<Vec<String>, String> {
    let names = list(value)?;
    names.iter().try_for_each(|name| {
        check_stream(name).map_err(|reason| format!("expected names of streams, got {}: {reason}", beginning(name)))
    })?;
    Ok(names)
}

/// As much of a name as a message needs.
fn beginning(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &name[..end], name.len()),
        None => format!("{name:?}"),
    }
}

fn start(value: &Value) -> Result<Start, String> {
    match text(value)?.as_str() {
        "latest" => Ok(Start::Latest),
        "earliest" => Ok(Start::Earliest),
        time => {
            let at = time.parse::<jiff::Timestamp>();
            at.map(|at| Start::At(at.as_millisecond())).map_err(|_| {
                format!("expected \"latest\", \"earliest\" or a time such as \"2026-11-21T00:24:00Z\", got {time:?}")
            })
        }
    }
}

fn retry(at: &Table, default: &RetryPolicy, problems: &mut Problems) -> RetryPolicy {
    problems.keys(at, "retry", &["attempts", "delay", "factor", "max_delay", "jitter", "max_age"], &[]);
    let policy = RetryPolicy {
        attempts: problems.field(at, "retry.attempts", default.attempts as usize, |value| whole(value, 1, ATTEMPTS_MAX))
            as u32,
        delay: problems.field(at, "retry.delay", default.delay, quantity_of_time),
        factor: problems.field(at, "retry.factor", default.factor, |value| positive(value, 1.0)),
        max_delay: problems.field(at, "retry.max_delay", default.max_delay, quantity_of_time),
        jitter: problems.field(at, "retry.jitter", default.jitter, share),
        max_age: problems.field(at, "retry.max_age", default.max_age, quantity_of_time),
    };
    if policy.max_delay < policy.delay && !problems.raw(at, "max_delay").is_nil() {
        let delay = show_duration(policy.delay);
        problems.add("retry.max_delay", format!("expected at least retry.delay, which is \"{delay}\""));
    }
    RetryPolicy { max_delay: policy.max_delay.max(policy.delay), ..policy }
}

fn idempotency(table: &Table, problems: &mut Problems) -> Idempotency {
    let default = Idempotency { key: IdempotencyKey::SourceAndId, window: Some(WINDOW) };
    problems.section(table, "idempotency", default, |at, problems| {
        problems.keys(at, "idempotency", &["key", "window"], &[]);
        Idempotency {
            key: problems.field(at, "idempotency.key", IdempotencyKey::SourceAndId, idempotency_key),
            window: problems.field(at, "idempotency.window", Some(WINDOW), window),
        }
    })
}

fn idempotency_key(value: &Value) -> Result<IdempotencyKey, String> {
    if value.is_function() {
        return Ok(IdempotencyKey::Function);
    }
    let paths = list(value).map_err(|_| {
        format!(
            "expected a path such as \"data.id\", a list of paths, or function(event), got {}",
            super::api::describe(value)
        )
    })?;
    if paths.is_empty() {
        return Err("expected at least one path".to_owned());
    }
    for path in &paths {
        key::check_path(path).map_err(|error| format!("{path:?}: {error}"))?;
    }
    Ok(IdempotencyKey::Paths(paths))
}

fn window(value: &Value) -> Result<Option<Duration>, String> {
    match value.as_string() {
        Some(off) if *off.as_bytes() == *b"off" => Ok(None),
        _ => quantity_of_time(value).map(Some).map_err(|error| format!("{error}, or \"off\"")),
    }
}

/// A handler may ask for less than the operator's limits, never for more.
fn limits(at: &Table, most: &Limits, problems: &mut Problems) -> Limits {
    let known =
        ["cpu", "memory", "emits", "writes", "effects_bytes", "calls", "call_bytes", "steps", "step_bytes", "depth"];
    problems.keys(at, "limits", &known, &[]);
    let below = |value: &Value, most: usize| whole(value, 0, most);
    Limits {
        cpu: problems.field(at, "limits.cpu", most.cpu, |value| {
            let cpu = quantity_of_time(value)?;
            let over = format!("expected at most \"{}\", the operator's limit", show_duration(most.cpu));
            if cpu > most.cpu { Err(over) } else { Ok(cpu) }
        }),
        memory_bytes: problems.field(at, "limits.memory", most.memory_bytes, |value| size(value, most.memory_bytes)),
        emits_max: problems.field(at, "limits.emits", most.emits_max, |value| below(value, most.emits_max)),
        writes_max: problems.field(at, "limits.writes", most.writes_max, |value| below(value, most.writes_max)),
        effects_bytes_max: problems
            .field(at, "limits.effects_bytes", most.effects_bytes_max, |value| size(value, most.effects_bytes_max)),
        payload_bytes_max: most.payload_bytes_max,
        calls_max: problems.field(at, "limits.calls", most.calls_max, |value| below(value, most.calls_max)),
        call_bytes_max: problems
            .field(at, "limits.call_bytes", most.call_bytes_max, |value| size(value, most.call_bytes_max)),
        steps_max: problems.field(at, "limits.steps", most.steps_max, |value| below(value, most.steps_max)),
        step_bytes_max: problems
            .field(at, "limits.step_bytes", most.step_bytes_max, |value| size(value, most.step_bytes_max)),
        depth_max: problems.field(at, "limits.depth", most.depth_max, |value| below(value, most.depth_max)),
    }
}

fn hosts(value: &Value) -> Result<Vec<HostGrant>, String> {
    let parse = |text: &String| HostGrant::parse(text).map_err(|error| format!("{text:?}: {error}"));
    list(value)?.iter().map(parse).collect()
}

fn grants(at: &Table, problems: &mut Problems) -> Grants {
    problems.keys(at, "grants", &["hosts", "secrets"], &["databases"]);
    Grants {
        hosts: problems.field(at, "grants.hosts", Vec::new(), hosts),
        secrets: problems.field(at, "grants.secrets", Vec::new(), list),
    }
}
