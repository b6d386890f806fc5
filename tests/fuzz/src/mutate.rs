//! Changes of kept inputs, for runs that no coverage guides.

use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;

const INTERESTING: &[u8] = b"\0\n\r\"'\\{}[]:,=.-+/%#*eE019\x7f\x80\xc3\xed\xff";
const CHANGES_MAX: usize = 5;
/// A change makes nothing longer than this many bytes.
const BYTES_MAX: usize = 1 << 16;

/// One of `inputs`, changed in a few places; never none of them.
pub fn change(rng: &mut SmallRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = inputs.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..=CHANGES_MAX) {
        change_once(rng, &mut input, inputs);
    }
    input
}

fn change_once(rng: &mut SmallRng, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
    let at = rng.random_range(0..=input.len());
    let end = rng.random_range(at..=input.len());
    let interesting = *INTERESTING.choose(rng).unwrap_or(&0);
    match rng.random_range(0..8) {
        0 => input.truncate(at),
        1 => input.insert(at, interesting),
        2 if at < input.len() => input[at] = interesting,
        3 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        4 if end - at <= 16 => drop(input.drain(at..end)),
        5 if input.len() < BYTES_MAX => drop(input.splice(at..at, input[at..end].to_vec())),
        6 if input.len() < BYTES_MAX => {
            let other = inputs.choose(rng).cloned().unwrap_or_default();
            let from = rng.random_range(0..=other.len());
            let to = rng.random_range(from..=other.len());
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        _ => drop(input.splice(at..at, std::iter::repeat_n(interesting, rng.random_range(1..200)))),
    }
}
