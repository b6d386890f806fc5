//! Variables that services of other makes set, and what they mean here. They count where flags, our own variables and the file
//! say nothing.
//!
//! Owns the one table of them, [`FOREIGN`]: how each text is read is in `text`, what several say of the bus together in `bus`.
//! What a value may be is none of its business: it is checked as that of any other layer.

mod bus;
mod text;

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::layers::insert;
use super::problem::{Origin, Problem};
use text::Read;

/// A variable that other services set too.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    pub name: &'static str,
    pub means: Means,
}

/// What a variable of others means here.
#[derive(Clone, Copy, Debug)]
pub enum Means {
    /// It says, with others, where events are stored: `bus.url`.
    Bus,
    /// It sets this key.
    Key(&'static str, Read),
    /// It is about something that this version does not have.
    Missing(&'static str),
}

impl Foreign {
    const fn bus(name: &'static str) -> Self {
        Self { name, means: Means::Bus }
    }

    const fn sets(name: &'static str, key: &'static str, read: Read) -> Self {
        Self { name, means: Means::Key(key, read) }
    }

    const fn missing(name: &'static str, what: &'static str) -> Self {
        Self { name, means: Means::Missing(what) }
    }
}

/// All of them. Where several set one key, the first that says something counts.
pub const FOREIGN: &[Foreign] = &[
    Foreign::bus("EVENT_PUBLISHER_REDIS_URL"),
    Foreign::bus("REDIS_EVENT_URL"),
    Foreign::bus("REDIS_URL"),
    Foreign::bus("REDIS_DB"),
    Foreign::bus("MESSAGING_BACKEND"),
    Foreign::bus("EVENT_BUS_TYPE"),
    Foreign::sets("METRICS_PORT", "metrics.listen", text::port),
    Foreign::sets("CONSUMER_NAME", "run.name", text::name),
    Foreign::sets("EVENT_SUBSCRIBER_CONSUMER_GROUP", "groups.default", text::name),
    Foreign::sets("EVENT_SUBSCRIBER_BATCH_SIZE", "redis.batch", text::count),
    Foreign::sets("EVENT_SUBSCRIBER_BLOCK_TIME", "redis.block", text::milliseconds),
    Foreign::sets("EVENT_SUBSCRIBER_MAX_RETRIES", "retry.attempts", text::retries),
    Foreign::sets("EVENT_PUBLISHER_MAX_BATCH_SIZE", "emit.batch", text::count),
    Foreign::sets("EVENT_PUBLISHER_PUBLISH_TIMEOUT", "emit.timeout", text::milliseconds),
    Foreign::sets("REDIS_CHANNEL_PREFIX", "redis.channel_prefix", text::channel_prefix),
    Foreign::sets("ENABLE_EVENT_STORE", "retain.age", text::event_store),
    Foreign::sets("EVENT_STORE_TTL_DAYS", "retain.age", text::days),
    Foreign::sets("OTEL_LOG_LEVEL", "log.level", text::level),
    Foreign::sets("DEBUG", "log.level", text::debug),
    Foreign::missing("ENABLE_SAGAS", "sagas"),
    Foreign::missing("SAGA_TIMEOUT_SECONDS", "sagas"),
];

/// What the variables of others set, and which of them did.
#[derive(Default)]
pub struct Layer {
    pub values: Dict,
    pub borrowed: Borrowed,
}

/// Which variables of others count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Borrowed {
    /// Keys that are set, and the names of what sets them: `REDIS_URL and REDIS_DB`.
    keys: Vec<(&'static str, String)>,
    /// Variables that set nothing, and what this version does not have.
    idle: Vec<(&'static str, &'static str)>,
}

impl Borrowed {
    /// What set `key`.
    pub fn who_set(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(set, _)| *set == key).map(|(_, names)| names.as_str())
    }

    /// What counts besides what chose the bus, and what does not: a line each.
    pub fn told(&self) -> impl Iterator<Item = String> {
        let counts =
            self.keys.iter().filter(|(key, _)| *key != bus::KEY).map(|(key, names)| format!("{names} -> {key}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let counts = (!counts.is_empty()).then(|| format!("variables of other services count: {counts}"));
        let mut missing: Vec<&str> = self.idle.iter().map(|(_, what)| *what).collect();
        missing.dedup();
        let idle = missing.into_iter().map(|what| {
            let names = self.idle.iter().filter(|(_, of)| *of == what).map(|(name, _)| *name);
            format!("this version has no {what}: {} mean nothing", names.collect::<Vec<_>>().join(" and "))
        });
        counts.into_iter().chain(idle.collect::<Vec<_>>())
    }
}

/// Reads them. `is_said`: something that counts before them sets this key.
pub fn read(
    environment: &BTreeMap<String, String>,
    is_said: impl Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) -> Layer {
    let mut reading = Reading { environment, layer: Layer::default(), problems };
    if !is_said(bus::KEY) {
        reading.bus();
    }
    for Foreign { name, means } in FOREIGN {
        match *means {
            Means::Key(key, read) if !is_said(key) => reading.key(name, key, read),
            Means::Missing(what) if reading.said(name).is_some() => reading.layer.borrowed.idle.push((name, what)),
            Means::Bus | Means::Key(..) | Means::Missing(_) => {}
        }
    }
    reading.layer
}

struct Reading<'a> {
    environment: &'a BTreeMap<String, String>,
    layer: Layer,
    problems: &'a mut Vec<Problem>,
}

impl Reading<'_> {
    fn said(&self, name: &str) -> Option<&str> {
        said(self.environment, name)
    }

    fn bus(&mut self) {
        match bus::read(|name| said(self.environment, name)) {
            Ok(Some(chosen)) => self.set(bus::KEY, chosen.by.join(" and "), chosen.url),
            Ok(None) => {}
            Err(wrong) => wrong.into_iter().for_each(|(name, message)| self.wrong(name, bus::KEY, &message)),
        }
    }

    fn key(&mut self, name: &'static str, key: &'static str, read: Read) {
        let Some(text) = self.said(name).filter(|_| self.layer.borrowed.who_set(key).is_none()) else { return };
        match text::utf8(text).and_then(read) {
            Ok(Some(value)) => self.set(key, name.to_owned(), value),
            Ok(None) => {}
            Err(message) => self.wrong(name, key, &message),
        }
    }

    fn set(&mut self, key: &'static str, names: String, value: impl Into<Value>) {
        insert(&mut self.layer.values, key, value.into());
        self.layer.borrowed.keys.push((key, names));
    }

    fn wrong(&mut self, name: &str, key: &str, message: &str) {
        let message = format!("{message}, or set {key}, which counts before it");
        self.problems.push(Problem { origin: Origin::Variable(name.to_owned()), key: String::new(), message });
    }
}

/// What the variable says; nothing where it is empty.
fn said<'a>(environment: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    environment.get(name).map(String::as_str).filter(|text| !text.is_empty())
}
