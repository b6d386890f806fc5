//! The truth about numbered events: what a store must hold once everything has come to rest.
//!
//! Pure: knows the handlers in `handlers/`, and neither stores nor processes.

use std::collections::{BTreeMap, BTreeSet};

use moontide::bus::DeadLetter;
use moontide::event::{Event, Json};
use moontide::outcome::Emit;
use serde_json::{Value, json};

use crate::findings::Findings;
use crate::seen::{Kind, Unit};

/// Attempts that `doom.luau` has.
const DOOMED_ATTEMPTS: u32 = 3;
/// Attempts that `tick.luau` has.
const TICK_ATTEMPTS: u32 = 20;

/// The events of number `n`, some of them twice.
pub fn events(n: u64) -> Vec<Emit> {
    let mut events = vec![event("tick", n.to_string(), json!({ "n": n }))];
    if n.is_multiple_of(7) {
        events.push(events[0].clone());
    }
    if n.is_multiple_of(25) {
        events.push(event("doom", format!("doom-{n}"), json!({ "n": n })));
    }
    if n.is_multiple_of(5) {
        events.push(event("step", format!("step-{n}"), json!({ "n": n })));
    }
    if n.is_multiple_of(10) {
        let order = |which: &str| event("order", format!("order-{n}-{which}"), json!({ "key": n.to_string() }));
        events.extend([order("a"), order("b")]);
    }
    events
}

/// An event of type `kind` in the stream that the default configuration gives it.
pub fn event(kind: &str, id: String, data: Value) -> Emit {
    let data = Some(Json::trusted(data.to_string()));
    Emit { stream: format!("events:{kind}"), delay: None, event: Event { data, ..Event::new(id, "faults", kind) } }
}

/// Numbers that the handler of ticks refuses.
fn is_rejected(n: u64) -> bool {
    n % 50 == 7
}

/// What a store holds.
pub struct Held {
    pub state: BTreeMap<String, Value>,
    pub dead: Vec<DeadLetter>,
}

/// What must be there after numbers 1 to `last`.
pub struct Truth {
    last: u64,
    gone: BTreeSet<Unit>,
    state: BTreeMap<String, Value>,
}

impl Truth {
    pub fn of(last: u64) -> Self {
        Self::without(last, BTreeSet::new())
    }

    /// As [`Truth::of`], where `gone` did not happen, or is no longer there.
    pub fn without(last: u64, gone: BTreeSet<Unit>) -> Self {
        let is_gone = |kind, n: i64| gone.contains(&Unit { kind, n });
        let mut sums = BTreeMap::<String, u64>::new();
        let mut lists = BTreeMap::<String, Vec<u64>>::new();
        for n in (1..=last).filter(|n| !is_rejected(*n) && !is_gone(Kind::Tick, *n as i64)) {
            *sums.entry(format!("sum/{}", n % 64)).or_default() += n;
            sums.insert(format!("ticks/{n}"), 1);
            let late = n.is_multiple_of(4).then_some(-(n as i64));
            for tock in [Some(n as i64), late].into_iter().flatten().filter(|tock| !is_gone(Kind::Tock, *tock)) {
                sums.insert(format!("tocks/{tock}"), 1);
            }
            lists.entry(format!("list/{}", n / 20)).or_default().push(n);
        }
        for n in (1..=last).filter(|n| n.is_multiple_of(10) && !is_gone(Kind::Order, *n as i64)) {
            sums.insert(format!("orders/{n}"), 1);
        }
        for n in (1..=last).filter(|n| n.is_multiple_of(5) && !is_gone(Kind::Step, *n as i64)) {
            sums.insert(format!("steps/{n}"), 1);
        }
        let sums = sums.into_iter().map(|(key, value)| (key, json!(value)));
        let lists = lists.into_iter().map(|(key, value)| (key, json!(value)));
        Self { last, state: sums.chain(lists).collect(), gone }
    }

    /// Deliveries to handlers that this takes.
    pub fn events(&self) -> u64 {
        let published: usize = (1..=self.last).map(|n| events(n).len()).sum();
        let emitted = self.state.keys().filter(|key| key.starts_with("tocks/")).count();
        (published + emitted) as u64
    }

    /// What is missing, and what is too much.
    pub fn compare(&self, held: &Held) -> Findings {
        let mut found = Findings { events: self.events(), ..Findings::default() };
        for (key, wanted) in &self.state {
            compare_value(&mut found, key, wanted, held.state.get(key));
        }
        for key in held.state.keys().filter(|key| !self.state.contains_key(*key)) {
            found.doubled += 1;
            found.wrong(format!("{key} is {}, and nothing should be there", held.state[key]));
        }
        self.compare_dead(&mut found, &held.dead);
        found
    }

    fn compare_dead(&self, found: &mut Findings, dead: &[DeadLetter]) {
        let mut wanted: BTreeMap<String, &str> = BTreeMap::new();
        let is_gone = |kind, n: u64| self.gone.contains(&Unit { kind, n: n as i64 });
        for n in 1..=self.last {
            if is_rejected(n) && !is_gone(Kind::Tick, n) {
                wanted.insert(n.to_string(), "rejected");
            }
            if n.is_multiple_of(25) && !is_gone(Kind::Doom, n) {
                wanted.insert(format!("doom-{n}"), "exhausted");
            }
        }
        for letter in dead {
            let id = letter.event.as_ref().map(|event| event.id.to_string()).unwrap_or_default();
            match (wanted.remove(&id), letter.reason.as_str()) {
                (Some(wanted), reason) if wanted == reason => {}
                (_, "killer") => {
                    found.overcharged += 1;
                    found.wrong(format!("{id} was given up as a killer, which it is not"));
                }
                (_, reason) => {
                    found.doubled += 1;
                    found.wrong(format!("{id} is a dead letter ({reason}) too many: {:?}", letter.error()));
                }
            }
            let budget = if id.starts_with("doom") { DOOMED_ATTEMPTS } else { TICK_ATTEMPTS };
            let attempts = letter.attempts;
            if attempts > budget || (id.starts_with("doom") && letter.failures.len() != DOOMED_ATTEMPTS as usize) {
                found.overcharged += 1;
                found.wrong(format!("{id} had {attempts} attempts and {} failures", letter.failures.len()));
            }
        }
        for (id, reason) in wanted {
            found.lost += 1;
            found.wrong(format!("{id} has no dead letter ({reason})"));
        }
    }
}

fn compare_value(found: &mut Findings, key: &str, wanted: &Value, is: Option<&Value>) {
    let Some(is) = is else {
        found.lost += 1;
        return found.wrong(format!("{key} is missing; it should be {wanted}"));
    };
    match (wanted, is) {
        (Value::Array(wanted), Value::Array(is)) => compare_list(found, key, wanted, is),
        _ if wanted == is => {}
        _ => {
            let more = is.as_f64() > wanted.as_f64();
            *(if more { &mut found.doubled } else { &mut found.lost }) += 1;
            found.wrong(format!("{key} is {is}; it should be {wanted}"));
        }
    }
}

/// In any order.
fn compare_list(found: &mut Findings, key: &str, wanted: &[Value], is: &[Value]) {
    let times = |list: &[Value], value: &Value| list.iter().filter(|other| *other == value).count();
    let missing = wanted.iter().filter(|value| times(is, value) == 0).count();
    let excess = is.len() + missing - wanted.len().min(is.len() + missing);
    found.lost += missing as u64;
    found.doubled += excess as u64;
    if missing + excess > 0 {
        found.wrong(format!("{key} has {is:?}; it should have {wanted:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(last: u64) -> Held {
        Held { state: Truth::of(last).state, dead: Vec::new() }
    }

    fn compared(change: impl FnOnce(&mut Held)) -> (u64, u64) {
        let mut held = held(6);
        change(&mut held);
        let found = Truth::of(6).compare(&held);
        (found.lost, found.doubled)
    }

    #[test]
    fn what_is_as_it_must_be_is_clean() {
        assert_eq!(compared(|_| ()), (0, 0));
        assert!(Truth::of(6).compare(&held(6)).is_clean());
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_counted() {
        assert_eq!(compared(|held| drop(held.state.remove("ticks/3"))), (1, 0));
        assert_eq!(compared(|held| drop(held.state.insert("ticks/3".into(), json!(2)))), (0, 1));
        assert_eq!(compared(|held| drop(held.state.insert("ticks/9".into(), json!(1)))), (0, 1));
        assert_eq!(compared(|held| drop(held.state.insert("list/0".into(), json!([6, 5, 4, 3, 2, 1])))), (0, 0));
        assert_eq!(compared(|held| drop(held.state.insert("list/0".into(), json!([1, 1, 2, 3, 4, 5])))), (1, 1));
        assert_eq!(compared(|held| drop(held.state.insert("list/0".into(), json!([1, 2, 3, 4, 5, 6, 6])))), (0, 1));
    }

    #[test]
    fn what_is_gone_must_not_be_there() {
        let gone = |kind, n| Truth::without(50, [Unit { kind, n }].into()).state;
        let all = Truth::of(50).state;
        assert_eq!(
            gone(Kind::Tick, 4).get("list/0"),
            Some(&json!([1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]))
        );
        assert_eq!(all.len() - gone(Kind::Tick, 4).len(), 4, "ticks, sum, and both tocks");
        assert_eq!(all.len() - gone(Kind::Tock, -4).len(), 1);
        assert_eq!(all.len() - gone(Kind::Order, 10).len(), 1);
        assert_eq!(all.len() - gone(Kind::Step, 5).len(), 1);
        let held = Held { state: all, dead: Vec::new() };
        assert_eq!(Truth::without(50, [Unit { kind: Kind::Doom, n: 25 }].into()).compare(&held).lost, 2, "7 and 50");
    }

    #[test]
    fn each_refused_and_each_doomed_number_has_a_dead_letter() {
        assert_eq!(Truth::of(25).compare(&held(25)).lost, 2, "7 and 25");
    }
}
