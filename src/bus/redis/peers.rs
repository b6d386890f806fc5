//! Which of the other processes are dead, by what was seen of them.
//!
//! A process is dead when its counter stood still while we looked, for the recovery time on our own monotonic clock, or at
//! once when the kernel says so (`machine`). Time in which nobody could raise a counter, or we could not look, does not
//! count. Talks to nobody.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::machine::{Lifeline, Place};

/// Names that are remembered of processes that the kernel called dead.
const BURIED_MAX: usize = 64;
/// A counter that is raised so often after that is not a last command that was still on its way.
const BEATS_OF_THE_LIVING: i64 = 2;

/// Watches the others.
pub(super) struct Peers {
    peers: HashMap<String, Peer>,
    /// What the kernel called dead, and the counter that was seen next (0: none any more).
    buried: VecDeque<(String, Option<i64>)>,
    /// A process that the kernel called dead went on: there is more than one machine of our name, as with copies of a
    /// virtual machine.
    misled: bool,
}

struct Peer {
    beat: i64,
    still: Duration,
    /// `None`: elsewhere, or unknown.
    place: Option<Place>,
    /// Whether its place was asked for.
    asked: bool,
    death: Option<Death>,
}

/// How we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// Its counter stands still; it may be stopped, and come back.
    Silent,
    /// The kernel says so.
    Certain,
}

impl Peers {
    pub fn new() -> Self {
        Self { peers: HashMap::new(), buried: VecDeque::new(), misled: false }
    }

    /// Takes up the counters as they stand, `passed` after the last look; true: somebody died, or went away.
    pub fn look(&mut self, counters: &HashMap<String, i64>, passed: Duration, recovery_time: Duration) -> bool {
        let before = self.peers.len();
        self.peers.retain(|process, _| counters.contains_key(process));
        let mut died = self.peers.len() < before;
        self.misled |= self.buried.iter_mut().any(|(process, after)| goes_on(counters.get(process).copied(), after));
        for (process, beat) in counters {
            match self.peers.get_mut(process) {
                None => drop(self.peers.insert(process.clone(), Peer::new(*beat))),
                Some(peer) => died |= peer.look(*beat, passed, recovery_time),
            }
        }
        died
    }

    /// Processes of which nobody has asked yet where they are.
    pub fn unplaced(&self) -> Vec<String> {
        self.peers.iter().filter(|(_, peer)| !peer.asked).map(|(process, _)| process.clone()).collect()
    }

    pub fn place(&mut self, process: &str, place: Option<Place>) {
        if let Some(peer) = self.peers.get_mut(process) {
            (peer.place, peer.asked) = (place, true);
        }
    }

    /// Asks the kernel about those on this machine; true: somebody died.
    pub fn ask_the_kernel(&mut self, lifeline: &Lifeline) -> bool {
        let mut died = false;
        for (process, peer) in &mut self.peers {
            let known = self.misled || peer.death == Some(Death::Certain);
            if !known && peer.place.as_ref().is_some_and(|place| lifeline.misses(place)) {
                peer.death = Some(Death::Certain);
                self.buried.push_back((process.clone(), None));
                died = true;
            }
        }
        self.buried.drain(..self.buried.len().saturating_sub(BURIED_MAX));
        died
    }

    /// Whether the kernel has anybody to be asked about.
    pub fn has_neighbours(&self, lifeline: &Lifeline) -> bool {
        !self.misled && self.peers.values().any(|peer| peer.place.as_ref().is_some_and(|place| lifeline.is_near(place)))
    }

    /// The counter at which `process` is dead, and how we know.
    pub fn death(&self, process: &str) -> Option<(i64, Death)> {
        let peer = self.peers.get(process)?;
        peer.death.map(|death| (peer.beat, death))
    }

    /// Processes of which nothing need be kept, and their counters: gone for certain, or silent for `silent`.
    pub fn to_bury(&self, silent: Duration) -> Vec<(String, i64)> {
        let is_over = |peer: &Peer| peer.death == Some(Death::Certain) || peer.still >= silent;
        self.peers.iter().filter(|(_, peer)| is_over(peer)).map(|(name, peer)| (name.clone(), peer.beat)).collect()
    }
}

/// Whether the counter of one that the kernel called dead is raised all the same; `after`: as it was seen after that.
fn goes_on(beat: Option<i64>, after: &mut Option<i64>) -> bool {
    let beat = beat.unwrap_or(0);
    let least = after.map_or(beat, |after| after.min(beat));
    *after = Some(least);
    beat >= least + BEATS_OF_THE_LIVING
}

impl Peer {
    fn new(beat: i64) -> Self {
        Self { beat, still: Duration::ZERO, place: None, asked: false, death: None }
    }

    /// True: it died now.
    fn look(&mut self, beat: i64, passed: Duration, recovery_time: Duration) -> bool {
        if beat != self.beat {
            (self.beat, self.still, self.death) = (beat, Duration::ZERO, None);
            return false;
        }
        self.still += passed;
        if self.death.is_some() || self.still < recovery_time {
            return false;
        }
        self.death = Some(Death::Silent);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECOVERY: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn counters(beat: i64) -> HashMap<String, i64> {
        HashMap::from([("a".to_owned(), beat)])
    }

    #[test]
    fn a_counter_that_stands_still_for_the_recovery_time_is_a_death() {
        let mut peers = Peers::new();
        for beat in 1..30 {
            assert!(!peers.look(&counters(beat), SECOND, RECOVERY));
        }
        for _ in 0..9 {
            assert!(!peers.look(&counters(29), SECOND, RECOVERY) && peers.death("a").is_none());
        }
        assert!(peers.look(&counters(29), SECOND, RECOVERY));
        assert_eq!(peers.death("a"), Some((29, Death::Silent)));
        assert!(!peers.look(&counters(29), SECOND, RECOVERY), "it is told once");
        assert!(!peers.look(&counters(30), SECOND, RECOVERY) && peers.death("a").is_none(), "it came back");
        assert_eq!(peers.to_bury(RECOVERY), []);
        for _ in 0..12 {
            peers.look(&counters(30), SECOND, RECOVERY);
        }
        assert_eq!(peers.to_bury(12 * SECOND), [("a".to_owned(), 30)]);
        assert!(peers.look(&HashMap::new(), SECOND, RECOVERY), "who has gone away may have left something");
    }

    #[test]
    fn time_in_which_nobody_could_look_does_not_count() {
        let mut peers = Peers::new();
        for _ in 0..100 {
            peers.look(&counters(1), Duration::ZERO, RECOVERY);
        }
        assert_eq!(peers.death("a"), None);
    }

    #[test]
    fn the_kernel_is_believed_until_it_is_wrong() {
        let ours = Lifeline::show().expect("it is Linux");
        let mut peers = Peers::new();
        for (round, believed) in [true, true, false].into_iter().enumerate() {
            let theirs = Lifeline::show().expect("it is Linux");
            peers.look(&HashMap::new(), SECOND, RECOVERY);
            // In the second round its last command comes after its death; in the third it goes on.
            peers.look(&counters(1 + (round as i64) / 2), SECOND, RECOVERY);
            peers.place("a", Some(theirs.place.clone()));
            assert!(!peers.ask_the_kernel(&ours));
            drop(theirs);
            assert_eq!(peers.ask_the_kernel(&ours), believed, "round {round}");
            assert_eq!(peers.death("a").is_some(), believed, "round {round}");
        }
        assert!(!peers.has_neighbours(&ours));
    }

    #[test]
    fn who_died_after_a_heartbeat_that_we_had_not_seen_is_dead() {
        let (ours, theirs) = (Lifeline::show().expect("it is Linux"), Lifeline::show().expect("it is Linux"));
        let mut peers = Peers::new();
        peers.look(&counters(5), SECOND, RECOVERY);
        peers.place("a", Some(theirs.place.clone()));
        drop(theirs);
        assert!(peers.ask_the_kernel(&ours));
        peers.look(&counters(9), SECOND, RECOVERY);
        assert!(peers.ask_the_kernel(&ours));
        assert_eq!(peers.death("a"), Some((9, Death::Certain)));
        peers.look(&counters(11), SECOND, RECOVERY);
        assert!(!peers.ask_the_kernel(&ours) && peers.death("a").is_none(), "it goes on");
    }
}
