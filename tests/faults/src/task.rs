//! What a part is asked to do: on which bus, from which seed, and how much of it.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::place::Bus;

/// A part on a bus, from a seed.
#[derive(Clone, Debug)]
pub struct Task {
    pub part: &'static str,
    pub bus: Bus,
    /// Of the first round; the next one has the next number.
    pub seed: u64,
    /// 1: as much as the report asks for; 0.01: a hundredth of it.
    pub share: f64,
}

impl Task {
    /// How many rounds are played of those that the report asks for; at least one.
    pub fn rounds(&self, full: u64) -> u64 {
        ((full as f64 * self.share).ceil() as u64).max(1)
    }

    /// The seeds of the rounds.
    pub fn seeds(&self, full: u64) -> impl Iterator<Item = u64> + use<> {
        let first = self.seed;
        (0..self.rounds(full)).map(move |round| first.wrapping_add(round))
    }

    /// How to play one round again.
    pub fn again(&self, seed: u64) -> String {
        format!("scripts/faults run {} --bus {} --seed {seed} --share 0", self.part, self.bus)
    }
}

/// Everything random of a round.
pub fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
