//! The configuration: layers (embedded defaults → file → environment → flags) into a type that cannot be wrong.
//!
//! Owns every key, its default and its unit (`config/default.toml`), and what may not be combined. All problems are
//! reported at once, each with where it was set and what would be right. Opens nothing but the file and secrets' files;
//! nothing here depends on what is running.

mod bus;
mod check;
mod dead_letters;
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
pub use dead_letters::DeadLetters;
pub use http::{Http, Listen};
pub use layers::{DEFAULT_TOML, Flags, Surroundings};
pub use problem::{ConfigProblems, Origin, Problem};
pub use secrets::Secret;

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
    /// `[[stream]]` and `[retain]`.
    pub streams: Arc<Streams>,
    /// `[limits]`, for every handler.
    pub limits: Limits,
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
    /// `[http]`
    pub http: Http,
    /// `metrics.listen`: a listener for metrics alone; `None`: they are on `http` only.
    pub metrics_listen: Option<Listen>,
    /// `[log]`
    pub log: Log,
    handlers: handlers::HandlerRules,
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
        self.handlers.options_for(name, &self.limits)
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
