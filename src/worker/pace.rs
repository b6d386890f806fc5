//! How much a handler receives ahead.
//!
//! What it can start within a fraction of the recovery time: a fast handler buffers a lot so that batches stay large, a
//! slow one almost nothing so that other processes get the rest.

use std::time::Duration;

use tokio::time::Instant;

/// Received ahead: what was handled in this time lately.
const AHEAD: Duration = Duration::from_millis(250);
const BUFFER_MAX: usize = 2048;
/// Set aside before nothing more is received: they hold no slot, so that others go past them, but memory.
const ASIDE_MAX: usize = 1024;

/// Measures the rate at which a handler's runs end.
pub(super) struct Pace {
    since: Instant,
    settled: usize,
    per_second: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), settled: 0, per_second: 0.0 }
    }
}

impl Pace {
    /// `count` runs were settled.
    pub fn settled(&mut self, count: usize) {
        self.settled += count;
        let elapsed = self.since.elapsed();
        if elapsed < AHEAD / 5 {
            return;
        }
        let now = self.settled as f64 / elapsed.as_secs_f64();
        self.per_second = if self.per_second == 0.0 { now } else { 0.7 * self.per_second + 0.3 * now };
        self.settled = 0;
        self.since = Instant::now();
    }

    /// How many more to receive where so many are `ready` to be started, and so many are set `aside`, to be run when it is
    /// their turn.
    pub fn room(&self, concurrency: usize, ready: usize, aside: usize) -> usize {
        self.buffer(concurrency).saturating_sub(ready).min(ASIDE_MAX.saturating_sub(aside))
    }

    /// Deliveries to hold ready, started ones not counted.
    fn buffer(&self, concurrency: usize) -> usize {
        let ahead = (self.per_second * AHEAD.as_secs_f64()) as usize;
        ahead.clamp(concurrency, BUFFER_MAX.max(concurrency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_handler_buffers_no_more_than_it_can_start() {
        let slow = Pace { per_second: 3.0, ..Pace::default() };
        assert_eq!(slow.buffer(64), 64);
        assert_eq!(slow.buffer(1), 1);
    }

    #[test]
    fn what_is_set_aside_takes_no_room_until_it_is_a_lot() {
        let pace = Pace::default();
        assert_eq!((pace.room(4, 1, 0), pace.room(4, 1, 100), pace.room(4, 9, 0)), (3, 3, 0));
        assert_eq!((pace.room(4, 1, ASIDE_MAX - 1), pace.room(4, 1, ASIDE_MAX + 1)), (1, 0));
    }

    #[test]
    fn a_fast_handler_buffers_a_quarter_second_up_to_the_ceiling() {
        let fast = |per_second| Pace { per_second, ..Pace::default() }.buffer(64);
        assert_eq!(fast(4000.0), 1000);
        assert_eq!(fast(1e6), BUFFER_MAX);
    }
}
