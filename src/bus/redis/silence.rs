//! Which consumers of others are silent, by what was seen of them.
//!
//! They have no heartbeat; but the server says when each last asked for entries, and how many it holds. One for which neither
//! changes while we look, for a time on our own monotonic clock, is silent. Time in which we could not look does not count.
//! Talks to nobody.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Millis;

/// Two times that differ by less are one: a server tells its time a little later than it says how long ago something was.
pub(super) const SAME: Millis = 100;

/// What changes while a consumer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sign {
    /// When it last asked for entries, by the server's clock; before Redis 7.2, when it last got some.
    pub asked: Millis,
    /// Entries that it holds, and those that were adopted from it meanwhile: what it acknowledges is missing.
    pub held: u64,
}

impl Sign {
    fn is_as(self, other: Self) -> bool {
        self.held == other.held && (self.asked - other.asked).abs() <= SAME
    }
}

/// Watches the consumers of others in one group on one stream.
#[derive(Default)]
pub(super) struct Silence {
    consumers: HashMap<Bytes, Still>,
}

struct Still {
    sign: Sign,
    pending: u64,
    since: Duration,
}

impl Silence {
    /// Takes up the consumers as they are, `passed` after the last look: name, sign of life, and how much is pending for each.
    pub fn look(&mut self, consumers: Vec<(Bytes, Sign, u64)>, passed: Duration) {
        let there: HashSet<Bytes> = consumers.iter().map(|(name, ..)| name.clone()).collect();
        self.consumers.retain(|name, _| there.contains(name));
        for (name, sign, pending) in consumers {
            match self.consumers.get_mut(&name) {
                // The sign that was seen first stays, so that small differences do not add up unseen.
                Some(still) if still.sign.is_as(sign) => (still.pending, still.since) = (pending, still.since + passed),
                _ => drop(self.consumers.insert(name, Still { sign, pending, since: Duration::ZERO })),
            }
        }
    }

    /// Those that hold something and have been silent for `idle`, and the signs that were seen of them last.
    pub fn silent(&self, idle: Duration) -> Vec<(Bytes, Sign)> {
        let silent = self.consumers.iter().filter(|(_, still)| still.pending > 0 && still.since >= idle);
        silent.map(|(name, still)| (name.clone(), still.sign)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(5);

    /// Looks once a second at one consumer; how long it was silent at the end: long enough, or not.
    fn is_silent(looks: impl IntoIterator<Item = (Millis, u64, u64)>) -> bool {
        let mut silence = Silence::default();
        for (asked, held, pending) in looks {
            silence.look(vec![("worker".into(), Sign { asked, held }, pending)], SECOND);
        }
        !silence.silent(IDLE).is_empty()
    }

    #[test]
    fn who_neither_asks_nor_acknowledges_is_silent() {
        assert!(!is_silent([(1000, 3, 3); 5]), "the first look is the beginning");
        assert!(is_silent([(1000, 3, 3); 6]));
        assert!(!is_silent([(1000, 0, 0); 100]), "it has nothing");
        assert!(!is_silent((0..100).map(|n| (n * 1000, 3, 3))), "it asks");
        assert!(!is_silent((0..100).map(|n| (1000, 200 - n, 200 - n))), "it acknowledges");
        assert!(is_silent((0..100).map(|n| (1000 + n % 2, 3, 3))), "a millisecond is not life");
        assert!(is_silent((0..100).map(|n| (1000, 200, 200 - n))), "what was adopted from it is not life");
        assert!(!is_silent((0..100).map(|n| (1000 + n * 30, 3, 3))), "small steps are life in the end");
    }

    #[test]
    fn who_was_away_and_time_without_a_look_begin_anew() {
        let mut silence = Silence::default();
        let here = || vec![(Bytes::from("worker"), Sign { asked: 1000, held: 3 }, 3)];
        for _ in 0..100 {
            silence.look(here(), Duration::ZERO);
        }
        assert_eq!(silence.silent(IDLE), []);
        silence.look(here(), IDLE);
        assert_eq!(silence.silent(IDLE).len(), 1);
        silence.look(Vec::new(), SECOND);
        silence.look(here(), SECOND);
        assert_eq!(silence.silent(IDLE), []);
    }
}
