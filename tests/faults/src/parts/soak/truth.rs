//! The truth about pulses: sums and counts in drawers.

use std::collections::BTreeMap;

use moontide::outcome::Emit;
use serde_json::json;

use crate::findings::Findings;
use crate::truth::{Held, event};

const DRAWERS: u64 = 64;

/// What was published so far.
#[derive(Default)]
pub struct Pulses {
    last: u64,
    events: u64,
    wanted: BTreeMap<String, u64>,
}

impl Pulses {
    /// The events of the next `count` numbers; every seventh comes twice.
    pub fn next(&mut self, count: u64) -> Vec<Emit> {
        let numbers = self.last + 1..=self.last + count;
        self.last += count;
        let mut emits = Vec::new();
        for n in numbers {
            let pulse = event("pulse", n.to_string(), json!({ "n": n }));
            if n.is_multiple_of(7) {
                emits.push(pulse.clone());
            }
            emits.push(pulse);
            self.note(n);
        }
        self.events += emits.len() as u64;
        emits
    }

    fn note(&mut self, n: u64) {
        if n % 50 == 7 {
            return;
        }
        let drawer = n % DRAWERS;
        let echoes = if n.is_multiple_of(4) { 2 } else { 1 };
        *self.wanted.entry(format!("sum/{drawer}")).or_default() += n;
        *self.wanted.entry(format!("count/{drawer}")).or_default() += 1;
        *self.wanted.entry(format!("echo/{drawer}")).or_default() += echoes;
        self.events += echoes;
    }

    /// What is missing and what is too much.
    pub fn compare(&self, held: &Held, found: &mut Findings) {
        found.events += self.events;
        for (key, wanted) in &self.wanted {
            let is = held.state.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
            match is.cmp(wanted) {
                std::cmp::Ordering::Less => found.lost += 1,
                std::cmp::Ordering::Greater => found.doubled += 1,
                std::cmp::Ordering::Equal => continue,
            }
            found.wrong(format!("{key} is {is}; it should be {wanted}"));
        }
    }
}
