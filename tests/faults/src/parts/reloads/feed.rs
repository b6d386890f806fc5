//! Numbered events that never stop coming, while files are saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use moontide::bus::Bus;
use serde_json::json;
use tokio::task::JoinHandle;

use super::folder::HANDLERS;
use crate::truth::event;

/// How many are published at a time, and how often.
const BATCH: u64 = HANDLERS as u64 / 2;
const BEAT: Duration = Duration::from_millis(50);

pub struct Feed {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Publishes numbers from 0 on, each to the next handler.
    pub fn start(bus: Arc<dyn Bus>) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let task = tokio::spawn(publish(bus, stop.clone(), sent.clone()));
        Self { stop, sent, task }
    }

    /// The first number that was not published yet.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Stops, and answers the first number that was not published.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.task.await.expect("the store takes events");
        self.sent.load(Ordering::Acquire)
    }
}

async fn publish(bus: Arc<dyn Bus>, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let mut beat = tokio::time::interval(BEAT);
    while !stop.load(Ordering::Acquire) {
        beat.tick().await;
        let numbers = sent.load(Ordering::Relaxed)..;
        let emits = numbers.take(BATCH as usize).map(|n| event(&kind(n), n.to_string(), json!({ "n": n })));
        bus.publish(emits.collect()).await.expect("the store takes events");
        sent.fetch_add(BATCH, Ordering::Release);
    }
}

fn kind(n: u64) -> String {
    format!("n{}", handler_of(n))
}

/// Which handler number `n` goes to.
pub fn handler_of(n: u64) -> usize {
    (n % HANDLERS as u64) as usize
}
