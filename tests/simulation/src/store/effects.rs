//! State and records, as a settle checks and writes them.

use bytes::Bytes;
use moontide::bus::{DeadId, Delivery, Recorded, Run};
use moontide::clock::Millis;
use moontide::event::Json;
use moontide::outcome::{Change, Effects, Record, Write};

use super::{Held, Store};
use crate::flaw::Flaw;

impl Store {
    /// The first key that is not as the run read it.
    pub(super) fn changed(&self, run: &Run) -> Option<String> {
        let stale = run.reads.iter().find(|read| !read.seen.is_still(self.state.get(&read.key).map(|value| &**value)));
        stale.filter(|_| self.flaw != Some(Flaw::NoReadCheck)).map(|read| read.key.clone())
    }

    /// Why the writes cannot be applied, now or ever.
    pub(super) fn unwritable(&self, effects: &Effects) -> Option<String> {
        let is_text = |write: &&Write| matches!(write.change, Change::Add(_)) && self.number(&write.key).is_none();
        let found = effects.writes.iter().find(is_text);
        found.map(|write| format!("{} is no number", write.key))
    }

    /// Puts a value, as somebody outside.
    pub fn set(&mut self, key: &str, value: &Json) {
        self.state.insert(key.to_owned(), value.bytes().clone());
    }

    /// An absent key counts as 0; `None`: it is no number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.state.get(key).map_or(Some(0.0), |value| std::str::from_utf8(value).ok()?.parse().ok())
    }

    pub(super) fn write(&mut self, writes: &[Write]) {
        for write in writes {
            match &write.change {
                Change::Set { value, .. } => drop(self.state.insert(write.key.clone(), value.bytes().clone())),
                Change::Delete => drop(self.state.remove(&write.key)),
                Change::Add(n) => {
                    let sum = self.number(&write.key).unwrap_or(0.0) + n;
                    self.state.insert(write.key.clone(), Bytes::from(sum.to_string()));
                }
            }
        }
    }

    pub(super) fn write_record(&mut self, record: &Record, delivery: &Delivery, dead: Option<DeadId>, now: Millis) {
        let contested = dead.is_some() && self.shared_letters;
        let by = Recorded { by: delivery.token(), dead, contested };
        self.records.insert(record.key.0, Held { by, until: now + record.window.as_millis() as Millis });
    }
}
