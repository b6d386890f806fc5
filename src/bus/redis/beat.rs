//! Our heartbeat, and a look at everybody else's.
//!
//! Each process raises a counter of its own and reads all of them, in one round trip. What the counters mean is decided in
//! `peers`; whoever has entries of the dead to take over is told that somebody died. No wall clock decides anything.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Pipeline, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::machine::{Lifeline, Place};
use super::peers::Peers;
use super::procedure::Procedure;
use super::reply;
use super::store::Store;
use crate::clock::Millis;

/// How often the kernel is asked about the processes of this machine.
const NEIGHBOURS_EVERY: Duration = Duration::from_millis(50);
/// What a silent process left is kept for so many recovery times, and for at least so long.
const BURIED_AFTER: (u32, Duration) = (10, Duration::from_secs(3600));

static FAREWELL: LazyLock<Procedure> = LazyLock::new(|| Procedure::new(include_str!("scripts/farewell.lua")));
static BURY: LazyLock<Procedure> = LazyLock::new(|| Procedure::new(include_str!("scripts/bury.lua")));

/// What a process says about itself, in `processes`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Registration {
    pub instance: String,
    /// By the server's clock.
    pub started_at: Millis,
    pub recovery_ms: u64,
    /// `None` where it cannot be looked for.
    pub place: Option<Place>,
}

/// The heartbeat of this process.
pub(super) struct Beat {
    store: Arc<Store>,
    registration: Registration,
    lifeline: Mutex<Option<Lifeline>>,
    watched: Mutex<Watched>,
    deaths: watch::Sender<u64>,
    stopped: CancellationToken,
}

struct Watched {
    peers: Peers,
    /// `None`: the last look failed, or there was none; what others did since then is not known.
    looked: Option<Instant>,
}

impl Beat {
    /// Registers this process, before it claims anything, and keeps its heart beating until the bus is closed.
    pub async fn begin(store: Arc<Store>) -> Result<Arc<Self>, Fault> {
        let lifeline = Lifeline::show();
        let registration = Registration {
            instance: store.options.instance.clone(),
            started_at: reply::time(store.link.call(&redis::cmd("TIME")).await?)?,
            recovery_ms: u64::try_from(store.options.recovery_time.as_millis()).unwrap_or(u64::MAX),
            place: lifeline.as_ref().map(|lifeline| lifeline.place.clone()),
        };
        let beat = Self {
            stopped: store.closed.child_token(),
            store,
            registration,
            lifeline: Mutex::new(lifeline),
            watched: Mutex::new(Watched { peers: Peers::new(), looked: None }),
            deaths: watch::Sender::new(0),
        };
        beat.register().await?;
        beat.beat().await?;
        let beat = Arc::new(beat);
        tokio::spawn(beat.clone().run());
        Ok(beat)
    }

    /// Changes whenever somebody died, or went away and may have left something.
    pub fn deaths(&self) -> watch::Receiver<u64> {
        self.deaths.subscribe()
    }

    /// The counter at which `process` is dead; `None`: it lives, as far as is known.
    pub fn dead_at(&self, process: &str) -> Option<i64> {
        self.watched.lock().peers.death(process).map(|(beat, _)| beat)
    }

    /// The orderly end, after everything in hand was given back: nobody has to find us dead. `read` are the streams and
    /// groups in which we have a consumer; one that still has something pending stays, and the others take it over.
    pub async fn farewell(&self, read: &[(Arc<str>, Arc<str>)]) -> Result<(), Fault> {
        self.stopped.cancel();
        let mut call = FAREWELL.call();
        call.arg(self.store.keys.prefix()).arg(&self.store.process).arg(&self.store.consumer);
        for (stream, group) in read {
            call.arg(&**stream).arg(&**group);
        }
        FAREWELL.run(&self.store.link, &call).await.map(drop)
    }

    fn period(&self) -> Duration {
        self.store.options.beat_period()
    }

    async fn run(self: Arc<Self>) {
        self.stopped.run_until_cancelled(self.beat_for_ever()).await;
        // The kernel takes it back, whoever else still holds this.
        self.lifeline.lock().take();
    }

    async fn beat_for_ever(&self) {
        let mut next = Instant::now() + self.period();
        loop {
            let pause = if self.has_neighbours() { self.period().min(NEIGHBOURS_EVERY) } else { self.period() };
            tokio::time::sleep_until(next.min(Instant::now() + pause)).await;
            if Instant::now() < next && !self.ask_the_kernel() {
                continue;
            }
            if let Err(fault) = self.beat().await {
                self.watched.lock().looked = None;
                tracing::debug!(?fault, "no heartbeat");
            }
            next = Instant::now() + self.period();
        }
    }

    async fn register(&self) -> Result<(), Fault> {
        let record = serde_json::to_string(&self.registration).map_err(|error| Fault::Unusable(error.to_string()))?;
        let mut command = redis::cmd("HSET");
        command.arg(self.store.keys.own("processes")).arg(&self.store.process).arg(record);
        self.store.link.call(&command).await.map(drop)
    }

    async fn beat(&self) -> Result<(), Fault> {
        let mut counters = self.raise().await?;
        if counters.remove(&self.store.process) == Some(1) {
            // The first one, or we were taken for dead for so long that we were forgotten.
            self.register().await?;
        }
        let died = self.take_up(&counters);
        self.place_new_ones().await?;
        let died = self.ask_the_kernel() || died;
        self.bury().await?;
        if died {
            self.deaths.send_modify(|deaths| *deaths += 1);
        }
        Ok(())
    }

    /// Raises our counter and reads everybody's.
    async fn raise(&self) -> Result<HashMap<String, i64>, Fault> {
        let beats = self.store.keys.own("beats");
        let mut both = Pipeline::new();
        both.cmd("HINCRBY").arg(&beats).arg(&self.store.process).arg(1).cmd("HGETALL").arg(&beats);
        let mut answers = self.store.link.send(&both).await?;
        let (counters, raised) = (answers.pop(), answers.pop());
        raised.unwrap_or(Ok(Value::Nil))?;
        let counters = reply::pairs(counters.unwrap_or(Ok(Value::Nil))?)?;
        let parsed = counters.into_iter().filter_map(|(process, beat)| {
            let beat = std::str::from_utf8(&beat).ok()?.parse().ok()?;
            Some((String::from_utf8(process.into()).ok()?, beat))
        });
        Ok(parsed.collect())
    }

    /// A look after one that came too late counts as one in time: whatever held us up may have held up the others.
    fn take_up(&self, counters: &HashMap<String, i64>) -> bool {
        let mut watched = self.watched.lock();
        let now = Instant::now();
        let passed = watched.looked.map_or(Duration::ZERO, |looked| (now - looked).min(2 * self.period()));
        watched.looked = Some(now);
        watched.peers.look(counters, passed, self.store.options.recovery_time)
    }

    async fn place_new_ones(&self) -> Result<(), Fault> {
        let unplaced = self.watched.lock().peers.unplaced();
        if unplaced.is_empty() {
            return Ok(());
        }
        let mut read = redis::cmd("HMGET");
        read.arg(self.store.keys.own("processes")).arg(&unplaced);
        let records = reply::list(self.store.link.call(&read).await?)?;
        let mut watched = self.watched.lock();
        for (process, record) in unplaced.iter().zip(records) {
            let record = reply::bytes(record)?;
            let known = record.and_then(|record| serde_json::from_slice::<Registration>(&record).ok());
            watched.peers.place(process, known.and_then(|known| known.place));
        }
        Ok(())
    }

    fn has_neighbours(&self) -> bool {
        self.lifeline.lock().as_ref().is_some_and(|lifeline| self.watched.lock().peers.has_neighbours(lifeline))
    }

    fn ask_the_kernel(&self) -> bool {
        let lifeline = self.lifeline.lock();
        let died = lifeline.as_ref().is_some_and(|lifeline| self.watched.lock().peers.ask_the_kernel(lifeline));
        if died {
            self.deaths.send_modify(|deaths| *deaths += 1);
        }
        died
    }

    /// Removes what is kept of processes that are gone. Who is not there any more is dead to everybody.
    async fn bury(&self) -> Result<(), Fault> {
        let (times, least) = BURIED_AFTER;
        let silent = (self.store.options.recovery_time * times).max(least);
        let gone = self.watched.lock().peers.to_bury(silent);
        bury(&self.store, gone).await
    }
}

/// Removes what is kept of processes, each with the counter at which it is dead. Whose has moved since then lives.
pub(super) async fn bury(store: &Store, gone: Vec<(String, i64)>) -> Result<(), Fault> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut call = BURY.call();
    call.arg(store.keys.prefix());
    for (process, beat) in gone {
        call.arg(process).arg(beat);
    }
    BURY.run(&store.link, &call).await.map(drop)
}
