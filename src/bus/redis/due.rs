//! Moves work whose time has come into its streams.
//!
//! Any process may be the first; one script moves each entry whole. Due times are the server's: here only the time until
//! the next look is measured, and it is never long, since the server's clock may be set. Where it is set back, due times are counted on (`due:clock`). What cannot be moved is put off
//! and holds up nobody.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::fault::Fault;
use super::procedure::Procedure;
use super::reply;
use super::store::Store;
use crate::bus::backoff;
use crate::failpoint;

/// Entries moved by one script.
const MOVED_MAX: usize = 100;
/// The longest sleep.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What cannot be moved is tried again after this time.
const PUT_OFF: Duration = Duration::from_secs(60);
/// Streams of which it is remembered that something could not be moved to them.
const TOLD_MAX: usize = 1000;

static MOVE_DUE: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(include_str!("scripts/effects.lua"), include_str!("scripts/move_due.lua")))
});

/// The task's bell.
pub(super) struct Due {
    store: Arc<Store>,
    /// When the task looks next; `None`: it is looking.
    next: Mutex<Option<Instant>>,
    sooner: Notify,
    told: Mutex<HashSet<String>>,
}

/// What a look found.
struct Looked {
    seen: usize,
    next: Option<Duration>,
    /// Stream and reason.
    stuck: Vec<(String, String)>,
}

impl Due {
    /// Begins to move, until the bus is closed.
    pub fn begin(store: Arc<Store>) -> Arc<Self> {
        let due = Arc::new(Self::idle(store));
        let task = due.clone();
        tokio::spawn(async move { task.store.closed.run_until_cancelled(task.move_for_ever()).await });
        due
    }

    /// As [`Due::begin`], but nothing is moved.
    pub fn idle(store: Arc<Store>) -> Self {
        Self { store, next: Mutex::default(), sooner: Notify::new(), told: Mutex::default() }
    }

    /// Work was stored that is due after `delay`.
    pub fn added(&self, delay: Duration) {
        let Some(at) = Instant::now().checked_add(delay) else { return };
        let mut next = self.next.lock();
        if next.is_none_or(|next| at < next) {
            *next = Some(at);
            self.sooner.notify_one();
        }
    }

    async fn move_for_ever(&self) {
        let mut failures = 0;
        loop {
            self.looking();
            let pause = match self.look().await {
                Ok(looked) => {
                    failures = 0;
                    looked.stuck.into_iter().for_each(|(stream, reason)| self.tell(stream, &reason));
                    if looked.seen == MOVED_MAX { Duration::ZERO } else { self.pause(looked.next) }
                }
                Err(fault) => {
                    tracing::debug!(?fault, "due work waits");
                    failures += 1;
                    backoff(failures)
                }
            };
            self.sleep(pause).await;
        }
    }

    /// From now on, whatever is added counts for the next sleep.
    pub fn looking(&self) {
        self.next.lock().take();
    }

    fn pause(&self, next: Option<Duration>) -> Duration {
        next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY).min(self.store.options.upkeep_every)
    }

    /// Until `pause` is over, or until something is due sooner that was added meanwhile, or during the look before.
    pub async fn sleep(&self, pause: Duration) {
        let mut until = Instant::now() + pause;
        loop {
            let next = {
                let mut next = self.next.lock();
                let sooner = next.map_or(until, |next| next.min(until));
                *next.insert(sooner)
            };
            until = next;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.sooner.notified() => {}
            }
        }
    }

    async fn look(&self) -> Result<Looked, Fault> {
        let mut call = MOVE_DUE.call();
        call.arg(self.store.keys.prefix()).arg(MOVED_MAX).arg(PUT_OFF.as_millis() as u64);
        failpoint::reached("due.before");
        let answer = failpoint::during("due.sent", MOVE_DUE.run(&self.store.link, &call)).await?;
        failpoint::reached("due.after");
        looked(answer)
    }

    /// Says once per stream that something could not be moved.
    fn tell(&self, stream: String, reason: &str) {
        let mut told = self.told.lock();
        if told.len() < TOLD_MAX && !told.contains(&stream) {
            tracing::error!(stream, "delayed work cannot be moved there, trying again every minute: {reason}");
            told.insert(stream);
        }
    }
}

fn looked(answer: Value) -> Result<Looked, Fault> {
    let mut answer = reply::list(answer)?.into_iter();
    let mut next = || answer.next().unwrap_or(Value::Nil);
    let seen = usize::try_from(reply::int(&next())?).unwrap_or(0);
    let wait = u64::try_from(reply::int(&next())?).ok().map(Duration::from_millis);
    let stuck = reply::pairs(next())?.into_iter();
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Looked { seen, next: wait, stuck: stuck.map(|(stream, why)| (text(stream), text(why))).collect() })
}
