//! A ledger in memory, and deliveries and jobs to try a pool with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use moontide::bus::{BusError, Delivery, Lease, Ledger, Recorded};
use moontide::clock::ManualClock;
use moontide::event::{EntryId, Event, Json};
use moontide::hot::{HotGuard, HotKeys};
use moontide::outcome::RecordKey;
use moontide::script::{Finished, Job, LoadOptions, Mode, Pool, Program, Services, Sources, load};
use moontide::streams::Streams;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::steps::MemorySteps;

/// 2026-11-21T00:24:00Z.
pub const NOW: i64 = 1_795_220_640_000;

/// State and records, as a test put them there.
#[derive(Default)]
pub struct MemoryLedger {
    pub state: HashMap<String, Bytes>,
    pub records: HashMap<RecordKey, Recorded>,
    /// What some keys hold from the second reading on.
    pub moves: HashMap<String, Bytes>,
    /// How often state was read.
    pub readings: AtomicUsize,
    /// Every question is answered with [`BusError::Away`].
    pub away: bool,
    /// Questions so far.
    pub asked: AtomicUsize,
}

impl MemoryLedger {
    fn ask(&self) -> Result<(), BusError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.away {
            true => Err(BusError::Away { store: "memory".into(), cause: "the test says so".into() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, BusError> {
        self.ask()?;
        let again = self.readings.fetch_add(1, Ordering::SeqCst) > 0;
        let moved = |key: &String| self.moves.get(key).filter(|_| again);
        Ok(keys.iter().map(|key| moved(key).or_else(|| self.state.get(key)).cloned()).collect())
    }

    async fn recorded(&self, keys: &[RecordKey]) -> Result<Vec<Option<Recorded>>, BusError> {
        self.ask()?;
        Ok(keys.iter().map(|key| self.records.get(key).cloned()).collect())
    }
}

/// Services over `ledger`, with a clock that stands still.
pub fn services(ledger: Arc<dyn Ledger>) -> Services {
    Services {
        ledger,
        streams: Arc::new(Streams::default()),
        clock: Arc::new(ManualClock::at(NOW)),
        instance: "test-1".into(),
        source: "moontide".into(),
        outbound: None,
    }
}

/// The program of one file.
pub fn program(text: &str, options: &LoadOptions) -> Arc<Program> {
    let sources = Arc::new(Sources::new([("work.luau".to_owned(), Arc::from(text))]));
    Arc::new(load("work.luau", &sources, options).expect("the script loads"))
}

/// The event that a delivery has unless a test says otherwise.
pub fn event(id: &str, data: &str) -> Event {
    Event { data: Some(Json::trusted(data.to_owned())), ..Event::new(id, "/shop", "order.created") }
}

/// A first delivery of `event`.
pub fn delivery(number: u64, event: Event) -> Delivery {
    Delivery {
        lease: Lease { claim: number, epoch: 1 },
        stream: "events:order.created".into(),
        entry: EntryId(number, 0),
        event: Ok(event),
        lay: None,
        past: None,
        orphaned: 0,
        deaths: 0,
        received: NOW,
    }
}

/// A pool, and where its answers come.
pub struct Rig {
    pool: Option<Pool>,
    reply: UnboundedSender<Vec<Finished>>,
    answers: UnboundedReceiver<Vec<Finished>>,
    pub hot: Arc<HotKeys>,
    pub steps: Arc<MemorySteps>,
}

impl Rig {
    pub fn new(threads: usize, ledger: MemoryLedger) -> Self {
        Self::over(threads, Arc::new(ledger))
    }

    pub fn over(threads: usize, ledger: Arc<MemoryLedger>) -> Self {
        let pool = Pool::start(threads, services(ledger)).expect("threads can be started");
        let (reply, answers) = unbounded_channel();
        Self { pool: Some(pool), reply, answers, hot: Arc::default(), steps: Arc::default() }
    }

    pub fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("the pool has not been dropped")
    }

    /// Drops the pool; what it still answers can be taken.
    pub fn without_pool(mut self) -> Self {
        self.pool = None;
        self
    }

    pub fn submit(&self, program: &Arc<Program>, deliveries: Vec<Delivery>, alone: bool) {
        self.pool().submit(Job {
            program: program.clone(),
            deliveries: deliveries.into_iter().map(Arc::new).collect(),
            mode: Mode::Live,
            alone,
            hot: self.hot.clone(),
            steps: self.steps.clone(),
            reply: self.reply.clone(),
        });
    }

    /// Makes `key` hot and takes its turn, so that runs which read it wait until the guard is dropped.
    pub fn take_turn(&self, key: &str) -> HotGuard {
        self.hot.mark(key);
        let turn = self.hot.enter(key, &[]).now_or_never().flatten();
        turn.expect("nobody else has the turn")
    }

    /// Submits one event per document of `data`, with ids from 1.
    pub fn submit_data(&self, program: &Arc<Program>, data: &[&str]) {
        let delivery = |(at, data): (usize, &&str)| delivery(at as u64 + 1, event(&format!("e{}", at + 1), data));
        self.submit(program, data.iter().enumerate().map(delivery).collect(), false);
    }

    /// The next `count` finished runs, by number of delivery.
    pub fn finished(&mut self, count: usize) -> Vec<Finished> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
        let mut all = Vec::new();
        runtime.block_on(async {
            while all.len() < count {
                let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.recv()).await;
                all.extend(answer.expect("an answer within a minute").expect("the rig holds a sender"));
            }
        });
        all.sort_by_key(|finished| finished.delivery.lease.claim);
        all
    }
}
