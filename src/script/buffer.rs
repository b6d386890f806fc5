//! What a run wants done and what it has seen, while it runs.
//!
//! Owns the collapse of writes to one per key (in call order), what a run sees of its own writes, and the limits, which
//! are checked when something is asked for. Does nothing in the store.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use super::Limits;
use crate::event::Json;
use crate::outcome::{Change, Effects, Emit, Measure, Read, Seen, Write};

/// Most keys that one run can read.
const READS_MAX: usize = 10_000;
/// Most metrics that one run can take.
const MEASURES_MAX: usize = 1000;

/// What a run may not do, and how it ends.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("more than {name} = {max}; split the work into several events, or raise the limit in the configuration")]
pub(super) struct OverLimit {
    pub name: &'static str,
    pub max: usize,
}

impl OverLimit {
    /// Refuses one more where there are `max` already.
    pub fn check(have: usize, name: &'static str, max: usize) -> Result<(), Self> {
        if have < max { Ok(()) } else { Err(Self { name, max }) }
    }
}

/// `kv:add` on a value of this run's own that is no number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

#[derive(Default)]
pub(super) struct Buffer {
    effects: Effects,
    bytes: usize,
    /// Index into `effects.writes`, by key.
    written: HashMap<String, usize>,
    /// As read, by key.
    seen: HashMap<String, Option<Bytes>>,
    bytes_seen: usize,
}

/// What a run sees of a key without asking the store.
pub(super) enum Known {
    /// Its own write, or what it read before, with what it added since.
    Value(Option<Bytes>, f64),
    /// Only the store knows; add this to it.
    Unknown,
}

impl Buffer {
    /// Takes in an event to emit.
    pub fn emit(&mut self, emit: Emit, limits: &Limits) -> Result<(), OverLimit> {
        OverLimit::check(self.emits(), "limits.emits", limits.emits_max)?;
        let data = emit.event.data.as_ref().map_or(0, |data| data.bytes().len());
        self.grow(data + emit.event.kind.len() + emit.stream.len(), limits)?;
        self.effects.events.push(emit);
        Ok(())
    }

    /// Takes a delayed event back: from this run's own, and, where there is one, from the store.
    pub fn cancel(&mut self, id: &str, limits: &Limits) -> Result<(), OverLimit> {
        self.effects.events.retain(|emit| emit.delay.is_none() || emit.event.id != id);
        if self.effects.cancels.iter().any(|other| other == id) {
            return Ok(());
        }
        OverLimit::check(self.emits(), "limits.emits", limits.emits_max)?;
        self.grow(id.len(), limits)?;
        self.effects.cancels.push(id.to_owned());
        Ok(())
    }

    /// What counts as one: to emit, or to take back.
    fn emits(&self) -> usize {
        self.effects.events.len() + self.effects.cancels.len()
    }

    /// Takes in a metric.
    pub fn measure(&mut self, measure: Measure) -> Result<(), OverLimit> {
        OverLimit::check(self.effects.measures.len(), "metrics of one run", MEASURES_MAX)?;
        self.effects.measures.push(measure);
        Ok(())
    }

    /// The key gets `value`.
    pub fn set(&mut self, key: &str, value: Json, ttl: Option<Duration>, limits: &Limits) -> Result<(), OverLimit> {
        self.grow(value.bytes().len(), limits)?;
        *self.change(key, limits)? = Change::Set { value, ttl };
        Ok(())
    }

    /// The key goes.
    pub fn delete(&mut self, key: &str, limits: &Limits) -> Result<(), OverLimit> {
        *self.change(key, limits)? = Change::Delete;
        Ok(())
    }

    /// Adds to a number, without reading it.
    pub fn add(&mut self, key: &str, n: f64, limits: &Limits) -> Result<Result<(), NotANumber>, OverLimit> {
        let change = self.change(key, limits)?;
        *change = match change {
            Change::Add(before) => Change::Add(*before + n),
            Change::Delete => Change::Set { value: number(n), ttl: None },
            Change::Set { value, ttl } => match parse_number(value.bytes()) {
                Some(before) => Change::Set { value: number(before + n), ttl: *ttl },
                None => return Ok(Err(NotANumber)),
            },
        };
        Ok(Ok(()))
    }

    /// The change of `key`: the one there is, or a new one that adds nothing.
    fn change(&mut self, key: &str, limits: &Limits) -> Result<&mut Change, OverLimit> {
        let at = match self.written.get(key) {
            Some(&at) => at,
            None => {
                let at = self.effects.writes.len();
                OverLimit::check(at, "limits.writes", limits.writes_max)?;
                self.grow(key.len(), limits)?;
                self.effects.writes.push(Write { key: key.to_owned(), change: Change::Add(0.0) });
                self.written.insert(key.to_owned(), at);
                at
            }
        };
        Ok(&mut self.effects.writes[at].change)
    }

    fn grow(&mut self, bytes: usize, limits: &Limits) -> Result<(), OverLimit> {
        self.bytes += bytes;
        match self.bytes > limits.effects_bytes_max {
            true => Err(OverLimit { name: "limits.effects_bytes", max: limits.effects_bytes_max }),
            false => Ok(()),
        }
    }

    /// What the run can know of `key` by itself.
    pub fn known(&self, key: &str) -> Known {
        let change = self.written.get(key).map(|&at| &self.effects.writes[at].change);
        match (change, self.seen.get(key)) {
            (Some(Change::Set { value, .. }), _) => Known::Value(Some(value.bytes().clone()), 0.0),
            (Some(Change::Delete), _) => Known::Value(None, 0.0),
            (Some(Change::Add(n)), Some(seen)) => Known::Value(seen.clone(), *n),
            (None, Some(seen)) => Known::Value(seen.clone(), 0.0),
            (_, None) => Known::Unknown,
        }
    }

    /// Remembers what the store said.
    pub fn saw(&mut self, key: String, value: Option<Bytes>, limits: &Limits) -> Result<(), OverLimit> {
        OverLimit::check(self.seen.len(), "keys read in one run", READS_MAX)?;
        self.bytes_seen += key.len() + value.as_ref().map_or(0, Bytes::len);
        if self.bytes_seen > limits.memory_bytes {
            return Err(OverLimit { name: "limits.memory, in state that was read,", max: limits.memory_bytes });
        }
        self.seen.insert(key, value);
        Ok(())
    }

    /// The keys that were read so far.
    pub fn keys_seen(&self) -> Vec<String> {
        self.seen.keys().cloned().collect()
    }

    /// Whether `value` is what the store said of `key`.
    pub fn is_still(&self, key: &str, value: Option<&Bytes>) -> bool {
        self.seen.get(key).is_none_or(|seen| seen.as_ref() == value)
    }

    /// What is to be done, at the end.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// What was read, at the end, by key.
    pub fn take_reads(&mut self) -> Vec<Read> {
        let seen = std::mem::take(&mut self.seen).into_iter();
        let mut reads: Vec<Read> = seen.map(|(key, value)| Read { key, seen: Seen::of(value.as_ref()) }).collect();
        reads.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        reads
    }
}

/// A JSON number as a double; `None` for anything else.
pub(super) fn parse_number(text: &[u8]) -> Option<f64> {
    serde_json::from_slice(text).ok()
}

/// `n` as JSON: whole numbers without a fraction.
pub(super) fn number(n: f64) -> Json {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() <= WHOLE_MAX {
        return Json::trusted(itoa::Buffer::new().format(n as i64).to_owned());
    }
    Json::trusted(ryu::Buffer::new().format(n).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::trusted(text.to_owned())
    }

    #[test]
    fn writes_collapse_to_one_per_key_in_call_order() {
        let (mut buffer, limits) = (Buffer::default(), Limits::default());
        buffer.add("a", 2.0, &limits).expect("within limits").expect("a number");
        buffer.add("a", 0.5, &limits).expect("within limits").expect("a number");
        buffer.set("b", json("10"), Some(Duration::from_secs(5)), &limits).expect("within limits");
        buffer.add("b", 5.0, &limits).expect("within limits").expect("a number");
        buffer.set("c", json("1"), None, &limits).expect("within limits");
        buffer.delete("c", &limits).expect("within limits");
        buffer.add("c", 3.0, &limits).expect("within limits").expect("a number");
        buffer.add("d", 3.0, &limits).expect("within limits").expect("a number");
        buffer.delete("d", &limits).expect("within limits");
        buffer.set("e", json("\"text\""), None, &limits).expect("within limits");
        assert_eq!(buffer.add("e", 1.0, &limits), Ok(Err(NotANumber)));

        let changes: Vec<Change> = buffer.take_effects().writes.into_iter().map(|write| write.change).collect();
        let set = |text, ttl| Change::Set { value: json(text), ttl };
        let expected = [
            Change::Add(2.5),
            set("15", Some(Duration::from_secs(5))),
            set("3", None),
            Change::Delete,
            set("\"text\"", None),
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_cancel_takes_back_what_came_before_it_and_nothing_else() {
        let (mut buffer, limits) = (Buffer::default(), Limits { emits_max: 4, ..Limits::default() });
        let emit = |id: &str, delay: Option<u64>| Emit {
            stream: "s".into(),
            event: crate::event::Event::new(id, "test", "t"),
            delay: delay.map(Duration::from_secs),
        };
        for (id, delay) in [("a", Some(1)), ("a", None), ("b", Some(1)), ("a", Some(2))] {
            buffer.emit(emit(id, delay), &limits).expect("within limits");
        }
        for id in ["a", "a", "c"] {
            buffer.cancel(id, &limits).expect("within limits");
        }
        let error = buffer.cancel("d", &limits).expect_err("two events and two cancels are as many as may be");
        assert!(error.to_string().starts_with("more than limits.emits = 4;"), "{error}");
        let error = buffer.emit(emit("a", Some(3)), &limits).expect_err("the same");
        assert!(error.to_string().starts_with("more than limits.emits = 4;"), "{error}");
        let effects = buffer.take_effects();
        assert_eq!(effects.events, [emit("a", None), emit("b", Some(1))]);
        assert_eq!(effects.cancels, ["a", "c"]);
    }

    #[test]
    fn limits_are_named_when_they_are_hit() {
        let limits = Limits { writes_max: 1, effects_bytes_max: 20, ..Limits::default() };
        let mut buffer = Buffer::default();
        buffer.set("a", json("1"), None, &limits).expect("within limits");
        buffer.set("a", json("2"), None, &limits).expect("the same key is one write");
        let error = buffer.set("b", json("1"), None, &limits).expect_err("a second key is over the limit");
        assert!(error.to_string().starts_with("more than limits.writes = 1;"), "{error}");
        let error = buffer.set("a", json("\"a long text of 30 bytes\""), None, &limits).expect_err("too many bytes");
        assert!(error.to_string().starts_with("more than limits.effects_bytes = 20;"), "{error}");
    }
}
