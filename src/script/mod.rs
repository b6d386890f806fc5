//! The only door to Luau: loading handler files, and running them over deliveries.
//!
//! Owns VMs, the sandbox, deadlines, the conversion of data and the libraries that scripts see. Knows nothing of stores
//! but the [`Ledger`] it reads state from, and what [`Steps`] remember; never decides what becomes of a delivery.

mod api;
mod buffer;
mod calls;
mod compile;
pub mod convert;
mod fault;
mod hints;
mod key;
mod life;
mod load;
mod lookups;
mod manifest;
mod meter;
mod metered;
mod natives;
mod pool;
mod post;
mod run;
mod secrets;
mod sources;
mod stage;
mod steps;
mod thread;
mod turns;
mod vm;
mod watchdog;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::bus::{Delivery, Ledger, Start, Steps};
use crate::clock::Clock;
use crate::event::TypePattern;
use crate::hot::{HotGuard, HotKeys};
use crate::judge::RetryPolicy;
use crate::outbound::{HostGrant, Outbound};
use crate::outcome::{Outcome, Read, Record, RecordKey};
use crate::streams::Streams;

pub use self::load::load;
pub use self::manifest::check_group;
pub use self::pool::Pool;
pub use self::secrets::Secrets;
pub use self::watchdog::EXIT_STUCK;

/// The text of every script below the handlers folder, read at one moment. Programs are built from it and never touch the
/// file system again, so that a handler and its modules are always of one version.
#[derive(Debug, Default)]
pub struct Sources {
    /// By path below the folder, with `/` and its ending: `billing/charge.luau`, `lib/money.luau`.
    pub files: BTreeMap<String, Source>,
    compiled: compile::Compiled,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub text: Arc<str>,
    /// Content hash (xxh3, 128 bits).
    pub hash: u128,
}

/// What a handler's header says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub types: Vec<TypePattern>,
    pub group: String,
    /// Named by the handler; empty: from the configuration, by type.
    pub streams: Vec<String>,
    pub start: Start,
    /// Runs in flight per process.
    pub concurrency: usize,
    /// Wall clock of one attempt.
    pub timeout: Duration,
    pub retry: RetryPolicy,
    pub idempotency: Idempotency,
    pub limits: Limits,
    pub grants: Grants,
}

/// How duplicates are recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Idempotency {
    pub key: IdempotencyKey,
    /// `None`: off.
    pub window: Option<Duration>,
}

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyKey {
    /// Source and id.
    SourceAndId,
    /// Paths as written (`data.checkout_id`), their values joined.
    Paths(Vec<String>),
    /// A function in the handler's table, called with the event.
    Function,
}

/// What one run, or one VM, may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processor time of one attempt.
    pub cpu: Duration,
    /// Of the handler's VM, per script thread.
    pub memory_bytes: usize,
    pub emits_max: usize,
    pub writes_max: usize,
    /// Of all effects of a run together.
    pub effects_bytes_max: usize,
    /// Of one event's data.
    pub payload_bytes_max: usize,
    /// Calls to services outside.
    pub calls_max: usize,
    /// Of the bodies of all calls of a run together, sent and received.
    pub call_bytes_max: usize,
    /// Steps of one event.
    pub steps_max: usize,
    /// Of what one step comes to; of an event's steps together, the same as of a run's effects.
    pub step_bytes_max: usize,
    /// Emits that may have led to an event, one after the other.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_secs(1),
            memory_bytes: 64 << 20,
            emits_max: 1000,
            writes_max: 1000,
            effects_bytes_max: 4 << 20,
            payload_bytes_max: 1 << 20,
            calls_max: 100,
            call_bytes_max: 4 << 20,
            steps_max: 100,
            step_bytes_max: 256 << 10,
            depth_max: 64,
        }
    }
}

/// What a handler asks for in `grants`; only the operator's configuration grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub hosts: Vec<HostGrant>,
    pub secrets: Vec<String>,
}

/// What the operator grants a handler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// What `config.get(name)` answers, besides secrets.
    pub values: BTreeMap<String, String>,
    pub secrets: Secrets,
    /// What may be called.
    pub hosts: Arc<[HostGrant]>,
    /// Prefixes of state keys that the handler may touch; `None`: all.
    pub state: Option<Vec<String>>,
    /// State keys that begin so belong to the host; `None`: none do.
    pub reserved: Option<String>,
}

/// The operator's word on how a handler is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Defaults and ceilings: a handler may ask for less, never for more.
    pub limits: Limits,
    /// Overrides the manifest.
    pub concurrency: Option<usize>,
    /// Its group where it names none; `None`: one of its own name.
    pub group: Option<String>,
    /// What it does not say of its retries.
    pub retry: RetryPolicy,
    pub granted: Granted,
}

/// A handler that loaded: everything that is needed to run it, on any thread.
#[derive(Debug)]
pub struct Program {
    /// Path below the folder without its ending: `billing/charge`.
    pub name: Arc<str>,
    /// First 12 hex digits of the hash over the file and every module it required.
    pub version: Arc<str>,
    pub manifest: Manifest,
    pub granted: Granted,
    /// Path of its file in `sources`.
    pub file: String,
    /// Paths of the modules it required while loading, sorted.
    pub modules: Vec<String>,
    pub sources: Arc<Sources>,
}

impl Program {
    /// What it asks for and was not granted, a line each.
    pub fn ungranted(&self) -> Vec<String> {
        let (name, granted) = (&*self.name, &self.granted);
        let known = |secret: &&String| granted.values.contains_key(*secret) || granted.secrets.get(secret).is_some();
        let secrets = self.manifest.grants.secrets.iter().filter(|secret| !known(secret)).map(|secret| {
            format!("asks for the secret {secret:?}, which [handlers.{name:?}] does not grant: config.get will fail")
        });
        let covered = |asked: &&HostGrant| granted.hosts.iter().any(|host| host.covers(asked));
        let hosts = self.manifest.grants.hosts.iter().filter(|asked| !covered(asked)).map(|asked| {
            let host = asked.as_str();
            format!("asks for the host {host:?}, which [handlers.{name:?}] does not grant: calls to it will fail")
        });
        secrets.chain(hosts).collect()
    }
}

/// Why a file is no handler, with all problems found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", .problems.join("; "))]
pub struct LoadError {
    /// Path below the folder.
    pub file: String,
    /// Each names file and, where known, line: `handlers/x.luau:12: …`.
    pub problems: Vec<String>,
}

/// What runs need of the host.
#[derive(Clone)]
pub struct Services {
    pub ledger: Arc<dyn Ledger>,
    pub streams: Arc<Streams>,
    pub clock: Arc<dyn Clock>,
    /// `ctx.instance`.
    pub instance: Arc<str>,
    /// CloudEvents source of what is emitted; the handler's name is appended: `moontide/billing/charge`.
    pub source: Arc<str>,
    /// `http.*`; `None`: there is no network here, as in tests of scripts.
    pub outbound: Option<Arc<Outbound>>,
}

/// Whether effects are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Live,
    /// Effects are computed and thrown away.
    Shadow,
    Test,
}

/// Deliveries to run, each a run of its own.
pub struct Job {
    pub program: Arc<Program>,
    pub deliveries: Vec<Arc<Delivery>>,
    pub mode: Mode,
    /// Run with no other run in the VM.
    pub alone: bool,
    pub hot: Arc<HotKeys>,
    /// What is remembered of steps.
    pub steps: Arc<dyn Steps>,
    /// Gets what finished, several at a time.
    pub reply: UnboundedSender<Vec<Finished>>,
}

/// A run that ended.
pub struct Finished {
    pub delivery: Arc<Delivery>,
    pub outcome: Outcome,
    pub reads: Vec<Read>,
    /// What to record if the verdict ends the event; `None` when idempotency is off.
    pub record: Option<Record>,
    /// Where steps of the event may be recorded.
    pub steps: Option<RecordKey>,
    /// Version of the program that ran.
    pub version: Arc<str>,
    /// Turns on hot keys, to be dropped when the settle is answered.
    pub held: Vec<HotGuard>,
    pub usage: Usage,
}

/// What a run used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Duration,
    pub wall: Duration,
    /// Of the VM, when the run ended; 0: nothing ran.
    pub memory_bytes: usize,
}
