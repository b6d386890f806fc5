//! What a worker is made of: everything that is handed in.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::HandlerMetrics;
use crate::script::{Job, Mode, Pool, Program};

/// Whatever executes scripts.
pub trait Runner: Send + Sync {
    /// Runs the job's deliveries some time soon; never blocks.
    fn submit(&self, job: Job);
}

impl Runner for Pool {
    fn submit(&self, job: Job) {
        Pool::submit(self, job);
    }
}

/// What a worker is made of.
pub struct Spec {
    /// Swapped on reload; a run keeps the version it started with.
    pub program: Arc<ArcSwap<Program>>,
    pub runner: Arc<dyn Runner>,
    pub metrics: Arc<HandlerMetrics>,
    pub clock: Arc<dyn Clock>,
    /// Held while a suspect runs: one at a time in the whole process, so that a death can be charged.
    pub alone: Arc<Mutex<()>>,
    pub mode: Mode,
    /// Seed of all jitter.
    pub seed: u64,
    /// Cancelled: stop receiving, finish what runs, give the rest back.
    pub stop: CancellationToken,
}
