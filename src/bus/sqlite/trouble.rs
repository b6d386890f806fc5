//! Trouble that lasts: work that is tried again and again, and fails again and again.
//!
//! Owns what is said of it: the first failure, then one line now and then, and that it is over. Decides nothing about the
//! work but that it is not tried again at once.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines about the same trouble.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Work that failed is let rest so long.
const REST: Duration = Duration::from_millis(250);

/// What is known of one piece of work.
pub(super) struct Trouble {
    /// Fits after "could not".
    what: &'static str,
    lasting: Mutex<Option<Lasting>>,
}

struct Lasting {
    since: Instant,
    last: Instant,
    said: Instant,
    failures: u64,
}

impl Trouble {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, lasting: Mutex::default() }
    }

    /// Whether it failed a moment ago.
    pub(super) fn rests(&self) -> bool {
        self.lasting.lock().as_ref().is_some_and(|lasting| lasting.last.elapsed() < REST)
    }

    /// It failed.
    pub(super) fn failed(&self, error: &dyn Display) {
        if let Some(failures) = self.count(Instant::now()) {
            tracing::warn!(failures, "could not {}: {error}; it is tried again", self.what);
        }
    }

    /// Counts a failure at `now`; answers how many there were, if that is to be said.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut lasting = self.lasting.lock();
        let Some(known) = lasting.as_mut() else {
            *lasting = Some(Lasting { since: now, last: now, said: now, failures: 1 });
            return Some(1);
        };
        (known.last, known.failures) = (now, known.failures + 1);
        if now.duration_since(known.said) < SAY_EVERY {
            return None;
        }
        known.said = now;
        Some(known.failures)
    }

    /// It went well.
    pub(super) fn over(&self) {
        if let Some(Lasting { since, failures, .. }) = self.lasting.lock().take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(failures, "could {} again, after {seconds} s", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_trouble_is_said_at_first_and_then_now_and_then() {
        let (trouble, start) = (Trouble::new("write"), Instant::now());
        let at = |millis| trouble.count(start + Duration::from_millis(millis));
        assert_eq!(at(0), Some(1));
        let said: Vec<u64> = (1..=2500).filter_map(|n| at(n * 10)).collect();
        assert_eq!(said, [1001, 2001], "once in ten seconds");
        trouble.over();
        assert_eq!(at(25_010), Some(1), "the next trouble is news");
    }

    #[test]
    fn what_failed_rests() {
        let trouble = Trouble::new("write");
        assert!(!trouble.rests());
        trouble.failed(&"no");
        assert!(trouble.rests());
        trouble.over();
        assert!(!trouble.rests());
    }
}
