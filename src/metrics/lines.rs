//! How many log lines of one kind a handler may write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Per handler, kind and second.
const LINES_PER_SECOND: u64 = 20;

/// At most so many lines in a second, counted without a lock.
pub(super) struct Lines {
    began: Instant,
    /// Second since `began` in the upper, lines in it in the lower half.
    state: AtomicU64,
}

impl Default for Lines {
    fn default() -> Self {
        Self { began: Instant::now(), state: AtomicU64::new(0) }
    }
}

impl Lines {
    /// Whether one more is bearable now.
    pub fn may(&self) -> bool {
        let second = self.began.elapsed().as_secs() << 32;
        let before = self.state.load(Ordering::Relaxed);
        let next = if before & !0xffff_ffff == second { before + 1 } else { second + 1 };
        self.state.store(next, Ordering::Relaxed);
        next - second <= LINES_PER_SECOND
    }
}
