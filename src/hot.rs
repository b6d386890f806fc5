//! State keys on which runs of one handler collided.
//!
//! After a first conflict on a key, runs of that handler that read it queue up here instead of being repeated against
//! each other: a popular key costs one run per event, not a storm. Correctness never rests on it; the settle's check of
//! what was read does that. So a run that already holds a key waits only briefly for a second one: no deadlock lasts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};
use tokio::time::Instant;

/// A key is forgotten when nothing collided on it for this long.
const COOL_AFTER: Duration = Duration::from_secs(2);
/// How long a run that holds one key waits for another.
const SECOND_KEY_WAIT: Duration = Duration::from_millis(50);

/// The hot keys of one handler in this process.
#[derive(Default)]
pub struct HotKeys {
    keys: Mutex<HashMap<String, Hot>>,
    /// Number of hot keys, readable without the lock: nearly always 0.
    count: AtomicUsize,
}

struct Hot {
    queue: Arc<Queue<()>>,
    last_conflict: Instant,
}

/// A run's turn on a hot key; held until its settle is answered.
pub struct HotGuard {
    key: String,
    _turn: OwnedMutexGuard<()>,
}

impl HotKeys {
    /// Runs collided on `key`.
    pub fn mark(&self, key: &str) {
        let mut keys = self.keys.lock();
        let now = Instant::now();
        keys.retain(|_, hot| now.duration_since(hot.last_conflict) < COOL_AFTER || Arc::strong_count(&hot.queue) > 1);
        let hot = keys.entry(key.to_owned()).or_insert_with(|| Hot { queue: Arc::default(), last_conflict: now });
        hot.last_conflict = now;
        self.count.store(keys.len(), Ordering::Release);
    }

    /// Waits for a turn on `key`, if it is hot. `held` are the turns that the run has already; they decide how long it
    /// may wait, and a key is not entered twice.
    pub async fn enter(&self, key: &str, held: &[HotGuard]) -> Option<HotGuard> {
        if self.count.load(Ordering::Acquire) == 0 || held.iter().any(|guard| guard.key == key) {
            return None;
        }
        let queue = self.queue(key)?;
        let turn = if held.is_empty() {
            queue.lock_owned().await
        } else {
            tokio::time::timeout(SECOND_KEY_WAIT, queue.lock_owned()).await.ok()?
        };
        Some(HotGuard { key: key.to_owned(), _turn: turn })
    }

    fn queue(&self, key: &str) -> Option<Arc<Queue<()>>> {
        let mut keys = self.keys.lock();
        let hot = keys.get(key)?;
        if hot.last_conflict.elapsed() > COOL_AFTER && Arc::strong_count(&hot.queue) == 1 {
            keys.remove(key);
            self.count.store(keys.len(), Ordering::Release);
            return None;
        }
        Some(hot.queue.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_hot_keys_queue_and_a_second_key_never_deadlocks() {
        let hot = Arc::new(HotKeys::default());
        assert!(hot.enter("stock/1", &[]).await.is_none(), "a cool key costs nothing");
        hot.mark("stock/1");
        hot.mark("stock/2");
        let one = vec![hot.enter("stock/1", &[]).await.expect("the key is hot")];
        let two = vec![hot.enter("stock/2", &[]).await.expect("the key is hot")];
        assert!(hot.enter("stock/2", &one).await.is_none(), "waits a moment, then goes on without");
        assert!(hot.enter("stock/2", &two).await.is_none(), "a key is not entered twice");
        drop(two);
        assert!(hot.enter("stock/2", &one).await.is_some());
    }
}
