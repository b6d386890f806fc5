//! What a store must hold after a storm: every number once, by a version that was saved as a whole.

use std::collections::BTreeMap;

use moontide::bus::DeadLetter;
use serde_json::Value;

use super::feed::handler_of;
use super::folder::Folder;
use super::scripts::is_rejected;
use crate::findings::Findings;
use crate::truth::Held;

/// Compares what is held with what numbers below `end` must have come to.
pub fn compare(folder: &Folder, end: u64, held: &Held) -> Findings {
    let mut check = Check { folder, found: Findings { events: end, ..Findings::default() }, known: BTreeMap::new() };
    let mut dead: BTreeMap<String, Vec<&DeadLetter>> = BTreeMap::new();
    for letter in &held.dead {
        let id = letter.event.as_ref().map(|event| event.id.clone()).unwrap_or_default();
        dead.entry(id).or_default().push(letter);
    }
    for n in 0..end {
        let letters = dead.remove(&n.to_string()).unwrap_or_default();
        match is_rejected(n) {
            true => check.rejected(n, &letters),
            false => check.handled(n, held, &letters),
        }
    }
    check.found.doubled += dead.len() as u64;
    dead.values().for_each(|letters| check.found.wrong(format!("dead letters of nobody: {letters:?}")));
    check.found
}

struct Check<'a> {
    folder: &'a Folder,
    found: Findings,
    /// The version that a handler's generation and its module's make.
    known: BTreeMap<(usize, String), Option<String>>,
}

impl Check<'_> {
    fn handled(&mut self, n: u64, held: &Held, letters: &[&DeadLetter]) {
        let times = held.state.get(&format!("times/{n}")).and_then(Value::as_u64).unwrap_or(0);
        self.found.lost += u64::from(times == 0);
        self.found.doubled += times.saturating_sub(1) + letters.len() as u64;
        if times != 1 || !letters.is_empty() {
            self.found.wrong(format!("number {n} was handled {times} times and has letters {letters:?}"));
        }
        let by = held.state.get(&format!("by/{n}")).and_then(Value::as_str).unwrap_or_default();
        self.version(n, by);
    }

    fn rejected(&mut self, n: u64, letters: &[&DeadLetter]) {
        self.found.lost += u64::from(letters.is_empty());
        self.found.doubled += (letters.len() as u64).saturating_sub(1);
        let [letter] = letters else {
            return self.found.wrong(format!("number {n} has {} dead letters", letters.len()));
        };
        let by = letter.error().unwrap_or_default();
        if letter.reason.as_str() != "rejected" || by.split(' ').next() != Some(letter.version.as_str()) {
            self.found.wrong(format!(
                "number {n} is dead ({}) by {}, it says {by:?}",
                letter.reason.as_str(),
                letter.version
            ));
        }
        self.version(n, by);
    }

    /// `by`: the version that says that it was at work, the generation of its file, and that of its module.
    fn version(&mut self, n: u64, by: &str) {
        let handler = handler_of(n);
        let Some((version, generations)) = by.split_once(' ') else {
            return self.found.wrong(format!("number {n} was handled by {by:?}"));
        };
        if generations.starts_with("half ") && self.folder.half_allowed {
            return;
        }
        let made = self.known.entry((handler, generations.to_owned())).or_insert_with(|| {
            let (generation, module) = generations.split_once(' ')?;
            self.folder.version(handler, generation, module)
        });
        if made.as_deref() != Some(version) {
            let text =
                format!("number {n} was handled by {version}, which says {generations}, and that makes {made:?}");
            self.found.lost += 1;
            self.found.wrong(text);
        }
    }
}
