//! The configuration: layers (embedded defaults → variables of other services → file → our variables → flags) into a type that cannot be wrong.
//!
//! Owns every key, its default and its unit (`config/default.toml`), and what may not be combined. All problems are
//! reported at once, each with where it was set and what would be right. Opens nothing but the file and secrets' files;
//! nothing here depends on what is running.

mod bus;
mod channels;
mod check;
mod dead_letters;
mod foreign;
mod handlers;
mod http;
mod layers;
mod layouts;
mod problem;
mod raw;
mod secrets;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use bus::{Bus, BusUrl, Redis, RedisUrl, Sqlite, Synchronous};
pub use check::check_instance;
pub use dead_letters::DeadLetters;
pub use foreign::{FOREIGN, Foreign, Means};
pub use handlers::{Adopt, Adopting};
pub use http::{Http, Listen};
pub use layers::{DEFAULT_TOML, Flags, Surroundings};
pub use problem::{ConfigProblems, Origin, Problem};
pub use secrets::Secret;

use crate::channels::Channel;
use crate::judge::RetryPolicy;
use crate::script::{Limits, LoadOptions};
use crate::streams::Streams;

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[bus]`
    pub bus: Bus,
    /// `[sqlite]`
    pub sqlite: Sqlite,
    /// `[redis]`
    pub redis: Redis,
    /// `groups.recovery`: a process that stood still this long is dead to its peers; at least 1 s.
    pub recovery_time: Duration,
    /// `groups.forget`: a group without a living handler holds back trimming this long.
    pub forget_group_after: Duration,
    /// `groups.default`: the group of handlers that name none; `None`: each has one of its own name.
    pub default_group: Option<String>,
    /// `[[stream]]` and `[retain]`.
    pub streams: Arc<Streams>,
    /// `[[channel]]`
    pub channels: Vec<Channel>,
    /// `[limits]`, for every handler.
    pub limits: Limits,
    /// `[retry]`, where a handler does not say otherwise.
    pub retry: RetryPolicy,
    /// `[emit]`
    pub emit: Emitting,
    /// `[dead_letters]`
    pub dead_letters: DeadLetters,
    /// `reload.scan`: period of the content scan.
    pub scan: Duration,
    /// `run.handlers`: the folder.
    pub handlers_dir: PathBuf,
    /// `run.threads`; 0: one per core.
    pub threads: usize,
    /// `run.grace`: how long a stopping host lets scripts finish.
    pub grace: Duration,
    /// `run.name`: what this process is called; `None`: by its host and its process id.
    pub instance: Option<String>,
    /// `[http]`
    pub http: Http,
    /// `metrics.listen`: a listener for metrics alone; `None`: they are on `http` only.
    pub metrics_listen: Option<Listen>,
    /// `[log]`
    pub log: Log,
    handlers: handlers::HandlerRules,
    borrowed: foreign::Borrowed,
}

/// `[emit]`: how `moontide emit` publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitting {
    /// Events stored by one publish, at most.
    pub batch: usize,
    /// How long the store may leave one unanswered.
    pub timeout: Duration,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

impl Config {
    /// The operator's word on how the handler `name` is loaded.
    pub fn options_for(&self, name: &str) -> LoadOptions {
        let (group, retry) = (self.default_group.clone(), self.retry.clone());
        LoadOptions { group, retry, ..self.handlers.options_for(name, &self.limits) }
    }

    /// What chose the bus, and which variables of other services count, or mean nothing: a line each.
    pub fn chosen(&self) -> Vec<String> {
        let Bus { url, chosen_by, .. } = &self.bus;
        let bus = format!("the bus is {url}, chosen by {chosen_by}");
        [bus].into_iter().chain(self.borrowed.told()).collect()
    }

    /// Which handlers adopt what consumers of others hold.
    pub fn adopting(&self) -> Adopting {
        self.handlers.adopting()
    }

    /// What is set and does nothing on this bus, as warnings.
    pub fn in_vain(&self) -> Vec<String> {
        if matches!(self.bus.url, BusUrl::Redis(_)) {
            return Vec::new();
        }
        let vain = |pattern| {
            format!("[handlers.{pattern:?}] adopt does nothing: only groups on Redis have consumers of others")
        };
        let channels = self.channels.iter().map(|channel| &channel.name);
        let channels = channels.map(|name| format!("[[channel]] {name:?} is not listened to: only Redis has channels"));
        let mirrors = self.streams.mirrors.iter().map(|mirror| &mirror.channel);
        let mirrors = mirrors.map(|name| format!("[[mirror]] {name:?} publishes nothing: only Redis has channels"));
        self.adopting().patterns().map(vain).chain(channels).chain(mirrors).collect()
    }

    /// The names of `[handlers."…"]` tables that fit none of `names`.
    pub fn idle_patterns<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Vec<&str> {
        self.handlers.idle_patterns(names)
    }

    /// Threads that run scripts; at least 1.
    pub fn script_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads == 0 { cores() } else { self.threads }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Reads the configuration of this process: `flags`, its environment, `moontide.toml` in the current directory.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(flags: &Flags) -> Result<Config, ConfigProblems> {
    load_in(flags, &Surroundings::of_process())
}

/// [`load`] for what runs no handler: secrets that cannot be had are no problem then.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_without_secrets(flags: &Flags) -> Result<Config, ConfigProblems> {
    checked(flags, &Surroundings::of_process(), |problem| !problem.key.starts_with("secrets."))
}

/// [`load`] with an environment and a file handed in.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_in(flags: &Flags, around: &Surroundings) -> Result<Config, ConfigProblems> {
    checked(flags, around, |_| true)
}

fn checked(flags: &Flags, around: &Surroundings, counts: impl Fn(&Problem) -> bool) -> Result<Config, ConfigProblems> {
    let mut unread = Vec::new();
    let layers = layers::Layers::read(flags, around, &mut unread);
    let checker = raw::Checker { layers, problems: RefCell::new(unread) };
    let config = check::config(&checker, around);
    let mut problems = checker.problems.into_inner();
    problems.retain(counts);
    if problems.is_empty() {
        return Ok(config);
    }
    problems.sort();
    problems.dedup();
    Err(ConfigProblems(problems))
}
