//! Labels that events choose: stream and type, bounded.
//!
//! The first pairs that come are counted apart, in the whole process; everything after them is counted as `other`. A pair
//! that is known is looked up without an allocation.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter};

/// Pairs of stream and type that are counted apart.
const PAIRS_MAX: usize = 256;
/// What all others are called.
const OTHER: &str = "other";

/// What a handler counts of one pair.
pub(super) struct Series {
    pub consumed: IntCounter,
    pub latency: Histogram,
}

/// Which pairs are counted apart.
#[derive(Default)]
pub(super) struct Admission(Mutex<Admitted>);

#[derive(Default)]
struct Admitted {
    pairs: HashMap<String, HashSet<String>>,
    count: usize,
}

impl Admission {
    fn admits(&self, topic: &str, kind: &str) -> bool {
        let mut admitted = self.0.lock();
        if admitted.pairs.get(topic).is_some_and(|kinds| kinds.contains(kind)) {
            return true;
        }
        if admitted.count >= PAIRS_MAX {
            return false;
        }
        admitted.count += 1;
        admitted.pairs.entry(topic.to_owned()).or_default().insert(kind.to_owned())
    }
}

/// Something for every pair that is counted apart, and one for the rest.
pub(super) struct Pairs<T> {
    known: HashMap<String, HashMap<String, T>>,
    other: Option<T>,
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), other: None }
    }
}

impl<T> Pairs<T> {
    /// What belongs to this pair.
    pub fn of(&mut self, admission: &Admission, topic: &str, kind: &str, make: impl Fn(&str, &str) -> T) -> &T {
        let known = self.known.get(topic).is_some_and(|kinds| kinds.contains_key(kind));
        if !known && !admission.admits(topic, kind) {
            return self.other.get_or_insert_with(|| make(OTHER, OTHER));
        }
        if !known {
            self.known.entry(topic.to_owned()).or_default().insert(kind.to_owned(), make(topic, kind));
        }
        &self.known[topic][kind]
    }
}
