//! Which of the errors of a store are worth a log line.
//!
//! A store that is away is one event in the life of a process, however many handlers meet it and however often they try.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The same cause is said again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Causes that are said within that time; what comes beyond is not said.
const CAUSES_MAX: usize = 16;

/// What was said lately.
#[derive(Default)]
pub struct Outages {
    said: Mutex<HashMap<String, Instant>>,
}

impl Outages {
    /// Whether `cause` is to be said now: nobody has said it lately.
    pub fn may_log(&self, cause: &str) -> bool {
        self.may_log_at(cause, Instant::now())
    }

    fn may_log_at(&self, cause: &str, now: Instant) -> bool {
        let mut said = self.said.lock();
        said.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        let may = said.len() < CAUSES_MAX && !said.contains_key(cause);
        if may {
            said.insert(cause.to_owned(), now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once_in_a_while_and_not_too_many_are() {
        let (outages, now) = (Outages::default(), Instant::now());
        assert!(outages.may_log_at("away", now) && outages.may_log_at("full", now));
        let soon = now + AGAIN_AFTER - Duration::from_millis(1);
        assert!(!outages.may_log_at("away", soon) && !outages.may_log_at("full", soon));
        let later = now + AGAIN_AFTER;
        assert!(outages.may_log_at("away", later), "it is still away");
        let said = (0..1000).filter(|n| outages.may_log_at(&n.to_string(), later)).count();
        assert_eq!(said, CAUSES_MAX - 1);
    }
}
