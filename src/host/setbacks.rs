//! Workers that ended by a defect of the host: how long each pauses before it starts anew, and which keep ending so.
//!
//! Owns when a worker counts as sound again. Starts nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bus::backoff;

/// A worker that did well for so long is taken for sound.
const SOUND_AFTER: Duration = Duration::from_secs(30);
/// So many defects, one soon after the other, are no accident.
const RED_AFTER: u32 = 3;

/// By handler.
#[derive(Clone, Default)]
pub(super) struct Setbacks(Arc<Mutex<BTreeMap<String, Row>>>);

/// Defects in a row, and when the last one was.
struct Row {
    count: u32,
    last: Instant,
}

impl Row {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= SOUND_AFTER + backoff(self.count)
    }
}

impl Setbacks {
    /// The worker of `handler` ended by a defect just now; answers how long it pauses.
    pub fn note(&self, handler: &str, now: Instant) -> Duration {
        let mut rows = self.0.lock();
        rows.retain(|_, row| !row.is_over(now));
        let row = rows.entry(handler.to_owned()).or_insert(Row { count: 0, last: now });
        (row.count, row.last) = (row.count.saturating_add(1), now);
        backoff(row.count)
    }

    /// Handlers whose workers keep ending so, and how often in a row.
    pub fn red(&self, now: Instant) -> Vec<(String, u32)> {
        let rows = self.0.lock();
        let red = rows.iter().filter(|(_, row)| row.count >= RED_AFTER && !row.is_over(now));
        red.map(|(handler, row)| (handler.clone(), row.count)).collect()
    }

    /// The handler is gone.
    pub fn forget(&self, handler: &str) {
        self.0.lock().remove(handler);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_the_worker_did_well_for_a_while() {
        let (setbacks, start) = (Setbacks::default(), Instant::now());
        let pauses: Vec<_> = (0..9).map(|n| setbacks.note("a", start + Duration::from_secs(n))).collect();
        assert!(pauses.is_sorted() && pauses[0] > Duration::ZERO && pauses[1] > pauses[0], "{pauses:?}");
        assert_eq!(setbacks.note("b", start), pauses[0], "each for itself");
        let later = start + Duration::from_secs(9) + SOUND_AFTER + pauses[8];
        assert_eq!(setbacks.note("a", later), pauses[0]);
    }

    #[test]
    fn a_worker_that_keeps_ending_is_red_until_it_did_well_for_a_while() {
        let (setbacks, start) = (Setbacks::default(), Instant::now());
        (1..RED_AFTER).for_each(|_| {
            setbacks.note("a", start);
        });
        assert_eq!(setbacks.red(start), []);
        let pause = setbacks.note("a", start);
        assert_eq!(setbacks.red(start + pause), [("a".to_owned(), RED_AFTER)]);
        assert_eq!(setbacks.red(start + pause + SOUND_AFTER), []);
        setbacks.note("a", start);
        setbacks.forget("a");
        assert_eq!(setbacks.red(start), []);
    }
}
