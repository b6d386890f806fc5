//! Events that never stop coming while a test saves files, and the proof that each had its effects once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moontide::bus::Bus;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Desk, event};

/// Events per second.
const RATE: u64 = 1000;
const BEAT: Duration = Duration::from_millis(20);

/// A handler that says which version of it handled what. Its group has a name of its own, so that it survives renames.
pub fn script(version: &str) -> String {
    format!(
        "return {{ on = 'tick', group = 'ticks', handle = function(event, ctx)\n    ctx.kv:add('n/' .. event.id, 1)\n    \
         ctx.kv:add('v/{version}', 1)\nend }}\n"
    )
}

/// Publishes until it is told to stop.
pub struct Load {
    stop: CancellationToken,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts publishing events of type `tick`.
    pub fn start(desk: &Desk) -> Self {
        let (stop, sent) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let bus = desk.host().backend().bus.clone();
        let task = tokio::spawn(publish(bus, stop.clone(), sent.clone()));
        Self { stop, sent, task }
    }

    /// Waits until `more` further events were published.
    pub async fn flow(&self, more: u64) {
        let until = self.sent.load(Ordering::Relaxed) + more;
        while self.sent.load(Ordering::Relaxed) < until {
            tokio::time::sleep(BEAT / 4).await;
        }
    }

    /// Stops, waits until everything is settled, and checks that every event had its effects once, on one of `versions`.
    /// Answers how many each version handled.
    pub async fn check(self, desk: &Desk, versions: &BTreeSet<String>) -> BTreeMap<String, u64> {
        self.stop.cancel();
        self.task.await.expect("the publisher ends");
        desk.quiet().await;
        let sent = self.sent.load(Ordering::Relaxed);
        let each = numbers(desk, "n/").await;
        assert_eq!(each.len() as u64, sent, "every event had its effects");
        assert!(each.values().all(|times| *times == 1), "no event had them twice");
        assert!(desk.dead().await.iter().all(|letter| letter.group != "ticks"), "no event was given up");
        let by = numbers(desk, "v/").await;
        let strange: Vec<_> = by.keys().filter(|version| !versions.contains(*version)).collect();
        assert!(strange.is_empty(), "events ran on what was never saved as a whole: {strange:?}");
        assert_eq!(by.values().sum::<u64>(), sent);
        by
    }
}

async fn publish(bus: Arc<dyn Bus>, stop: CancellationToken, sent: Arc<AtomicU64>) {
    let mut beat = tokio::time::interval(BEAT);
    let batch = RATE * BEAT.as_millis() as u64 / 1000;
    while stop.run_until_cancelled(beat.tick()).await.is_some() {
        let from = sent.load(Ordering::Relaxed);
        let emits = (from..from + batch).map(|n| event("tick", n, "{}")).collect();
        bus.publish(emits).await.expect("the store takes events");
        sent.fetch_add(batch, Ordering::Relaxed);
    }
}

/// Numbers in state, by their keys without `prefix`.
pub async fn numbers(desk: &Desk, prefix: &str) -> BTreeMap<String, u64> {
    let entries = desk.host().backend().state.scan(prefix, None, usize::MAX).await.expect("the store answers");
    let number = |value: &[u8]| String::from_utf8_lossy(value).parse().expect("a number");
    entries.iter().map(|entry| (entry.key.replacen(prefix, "", 1), number(&entry.value))).collect()
}
