//! Histories keep the promises, a seed is a history, and the checker sees a store that breaks them.

use moontide_simulation::{Flaw, happen, run, run_with};

/// Elsewhere than where a full run begins.
const FIRST: u64 = 1 << 40;

#[test]
fn histories_keep_every_promise() {
    let summary = run(FIRST, 1500, 0);
    assert!(summary.broken.is_empty(), "{summary}");
    assert_eq!(summary.histories, 1500);
    let missing: Vec<_> = FAULTS.iter().filter(|fault| !summary.faults.contains_key(*fault)).collect();
    assert!(missing.is_empty(), "these faults were not in any history: {missing:?}");
}

/// What all of them together must contain.
const FAULTS: [&str; 20] = [
    "call cut off",
    "conflict",
    "dead letters refused",
    "duplicate published",
    "event that is stuck",
    "event that kills",
    "event that takes all memory",
    "handlers reloaded",
    "process clock stepped",
    "process cut off",
    "process killed",
    "process stalled",
    "process stopped",
    "reply lost",
    "settle after reset",
    "settle delayed",
    "settle repeated",
    "store clock stepped",
    "store reset",
    "zombie fenced",
];

#[test]
fn the_same_seed_is_the_same_history() {
    let seeds = FIRST..FIRST + 150;
    let once: Vec<_> = seeds.clone().map(|seed| happen(seed, None).trace).collect();
    // On another thread, whose metrics and allocations are others.
    let again = std::thread::spawn(move || seeds.map(|seed| happen(seed, None).trace).collect::<Vec<_>>());
    let again = again.join().expect("it does not panic");
    for (at, (once, again)) in once.iter().zip(&again).enumerate() {
        assert!(
            once == again,
            "seed {} is two histories:\n{}\nand\n{}",
            FIRST + at as u64,
            once.end(40),
            again.end(40)
        );
    }
    assert!(once.windows(2).all(|two| two[0] != two[1]), "different seeds are different histories");
}

#[test]
fn every_bug_of_the_store_is_seen() {
    let unseen = |flaw: &&Flaw| run_with(FIRST, 600, 0, Some(**flaw)).broken.is_empty();
    let unseen: Vec<_> = Flaw::ALL.iter().filter(unseen).collect();
    assert!(unseen.is_empty(), "nobody sees {unseen:?}");
}
