//! What a store holds at one moment, as far as it tells of numbered events: the rule that holds in the midst of work.
//!
//! [`crate::truth`] says what must be there at the end. Here nothing has come to an end: for each event, either all of its
//! effects are there and one of its copies is acknowledged, or none are and every copy is still to be handled. Pure but for
//! the two ways to look ([`server`], [`mod@file`]).

pub mod file;
pub mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// The handlers of numbered events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Tick,
    Tock,
    Doom,
    Order,
    Step,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Tick, Self::Tock, Self::Doom, Self::Order, Self::Step];

    /// Of its events, its handler and its handler's group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Tock => "tock",
            Self::Doom => "doom",
            Self::Order => "order",
            Self::Step => "step",
        }
    }

    /// The stream of its events.
    pub fn stream(self) -> String {
        format!("events:{}", self.name())
    }
}

/// What happens once: a number at a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    pub kind: Kind,
    pub n: i64,
}

impl Unit {
    /// Of an event of the type or group `kind` that carries `data`. Nothing else is ever published.
    fn of(kind: &str, data: &str) -> Self {
        Self::read(kind, data).unwrap_or_else(|| panic!("{data} is no numbered event of {kind}"))
    }

    fn read(kind: &str, data: &str) -> Option<Self> {
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let data: Value = serde_json::from_str(data).ok()?;
        let n = match kind {
            Kind::Order => data["key"].as_str()?.parse().ok()?,
            _ => data["n"].as_i64()?,
        };
        Some(Self { kind, n })
    }

    /// The handler of ticks refuses it.
    pub fn is_rejected(self) -> bool {
        self.kind == Kind::Tick && self.n % 50 == 7
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.n)
    }
}

/// How an event stands with its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not received yet.
    Unread,
    /// In the hands of a process.
    Pending,
    /// Acknowledged.
    Settled,
    /// Not in a stream yet: a retry, or delayed.
    Later,
}

/// One event in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub unit: Unit,
    /// It was tried before, and lies where retries do.
    pub retry: bool,
    pub standing: Standing,
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub state: BTreeMap<String, Value>,
    pub copies: Vec<Copy>,
    pub dead: Vec<Unit>,
    /// Idempotency records.
    pub records: u64,
    /// Events that a group counts as lost.
    pub lost: BTreeMap<String, u64>,
    /// In the hands of a process, though no longer in their stream.
    pub ghosts: u64,
}

/// Of one unit: copies that were published, copies that are still to be handled, and how often it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub copies: u64,
    pub live: u64,
    pub done: u64,
}

impl Account {
    /// All of it happened and a copy is acknowledged, or nothing and all of them wait.
    fn is_whole(self) -> bool {
        match self.done {
            0 => self.live == self.copies,
            1 => self.live < self.copies,
            _ => false,
        }
    }
}

impl Seen {
    /// How everything stands that was published and is known of.
    pub fn accounts(&self) -> BTreeMap<Unit, Account> {
        let mut accounts = BTreeMap::<Unit, Account>::new();
        for copy in &self.copies {
            let account = accounts.entry(copy.unit).or_default();
            account.copies += u64::from(!copy.retry);
            account.live += u64::from(copy.standing != Standing::Settled);
        }
        for unit in &self.dead {
            accounts.entry(*unit).or_default().done += 1;
        }
        for (key, value) in &self.state {
            let (kind, n) = match key.split_once('/') {
                Some(("ticks", n)) => (Kind::Tick, n),
                Some(("tocks", n)) => (Kind::Tock, n),
                Some(("orders", n)) => (Kind::Order, n),
                Some(("steps", n)) => (Kind::Step, n),
                _ => continue,
            };
            if let Ok(n) = n.parse() {
                accounts.entry(Unit { kind, n }).or_default().done += value.as_u64().unwrap_or(u64::MAX >> 1);
            }
        }
        accounts
    }

    /// The last number whose tick is there.
    pub fn last(&self) -> u64 {
        let ticks = self.copies.iter().filter(|copy| copy.unit.kind == Kind::Tick);
        ticks.map(|copy| copy.unit.n.unsigned_abs()).max().unwrap_or(0)
    }

    /// What is neither whole nor absent, in words.
    pub fn torn(&self) -> Vec<String> {
        let accounts = self.accounts();
        let torn = accounts.iter().filter(|(_, account)| !account.is_whole());
        let mut wrong: Vec<String> = torn.map(|(unit, account)| format!("{unit} has {account:?}")).collect();
        let done: BTreeSet<Unit> = accounts.iter().filter(|(_, one)| one.done > 0).map(|(unit, _)| *unit).collect();
        if self.records != done.len() as u64 {
            wrong.push(format!("there are {} idempotency records of {} that are done", self.records, done.len()));
        }
        let effective = |unit: &&Unit| unit.kind == Kind::Tick && !unit.is_rejected();
        let ticks: BTreeSet<i64> = done.iter().filter(effective).map(|unit| unit.n).collect();
        wrong.extend(self.torn_lists(&ticks));
        wrong.extend(torn_emits(&accounts, &ticks));
        wrong
    }

    /// Sums and lists that are not those of `ticks`.
    fn torn_lists(&self, ticks: &BTreeSet<i64>) -> Vec<String> {
        let mut sums = BTreeMap::<String, i64>::new();
        let mut lists = BTreeMap::<String, Vec<i64>>::new();
        for n in ticks {
            *sums.entry(format!("sum/{}", n % 64)).or_default() += n;
            lists.entry(format!("list/{}", n / 20)).or_default().push(*n);
        }
        let sorted = |value: &Value| {
            let mut numbers: Vec<i64> = value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
            numbers.sort_unstable();
            numbers
        };
        let mut wrong = Vec::new();
        for (key, value) in &self.state {
            let right = match key.split_once('/').map(|(kind, _)| kind) {
                Some("sum") => sums.remove(key) == value.as_i64(),
                Some("list") => lists.remove(key).unwrap_or_default() == sorted(value),
                _ => true,
            };
            if !right {
                wrong.push(format!("{key} is {value}, of the ticks that are done something else"));
            }
        }
        wrong.extend(sums.into_keys().chain(lists.into_keys()).map(|key| format!("{key} is missing")));
        wrong
    }
}

/// What the ticks that are done passed on, and nothing else, is there once.
fn torn_emits(accounts: &BTreeMap<Unit, Account>, ticks: &BTreeSet<i64>) -> Vec<String> {
    let late = ticks.iter().filter(|n| *n % 4 == 0).map(|n| -n);
    let mut emitted: BTreeSet<i64> = ticks.iter().copied().chain(late).collect();
    let mut wrong = Vec::new();
    for (unit, account) in accounts.iter().filter(|(unit, _)| unit.kind == Kind::Tock) {
        if !emitted.remove(&unit.n) || account.copies != 1 {
            wrong.push(format!("{unit} was emitted {} times", account.copies));
        }
    }
    wrong.extend(emitted.into_iter().map(|n| format!("tock {n} was not emitted")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn copy(kind: Kind, n: i64, standing: Standing) -> Copy {
        Copy { unit: Unit { kind, n }, retry: false, standing }
    }

    /// Tick 4 is done, with all it passed on; tick 5 waits.
    fn whole() -> Seen {
        let state = [("ticks/4", json!(1)), ("sum/4", json!(4)), ("list/0", json!([4]))];
        Seen {
            state: state.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            copies: vec![
                copy(Kind::Tick, 4, Standing::Settled),
                copy(Kind::Tick, 5, Standing::Pending),
                copy(Kind::Tock, 4, Standing::Unread),
                copy(Kind::Tock, -4, Standing::Later),
            ],
            records: 1,
            ..Seen::default()
        }
    }

    #[test]
    fn what_is_whole_is_not_torn() {
        assert_eq!(whole().torn(), Vec::<String>::new());
        assert_eq!(whole().last(), 5);
    }

    #[test]
    fn each_thing_that_is_missing_or_too_much_shows() {
        let torn = |change: fn(&mut Seen)| {
            let mut seen = whole();
            change(&mut seen);
            !seen.torn().is_empty()
        };
        assert!(torn(|seen| seen.copies[0].standing = Standing::Pending), "it would run again");
        assert!(torn(|seen| seen.copies[1].standing = Standing::Settled), "it vanished");
        assert!(torn(|seen| seen.copies.truncate(3)), "an event is missing");
        assert!(torn(|seen| seen.copies.push(seen.copies[2])), "an event is there twice");
        assert!(torn(|seen| drop(seen.state.remove("ticks/4"))));
        assert!(torn(|seen| drop(seen.state.remove("sum/4"))));
        assert!(torn(|seen| drop(seen.state.insert("ticks/4".into(), json!(2)))));
        assert!(torn(|seen| drop(seen.state.insert("list/0".into(), json!([4, 4])))));
        assert!(torn(|seen| seen.records = 0));
        assert!(torn(|seen| seen.dead.push(Unit { kind: Kind::Doom, n: 25 })), "a letter of no event");
    }

    #[test]
    fn a_duplicate_is_dropped_and_a_retry_is_the_same_copy() {
        let mut seen = whole();
        seen.copies.push(copy(Kind::Tick, 4, Standing::Unread));
        assert_eq!(seen.torn(), Vec::<String>::new());
        seen.copies[1].standing = Standing::Settled;
        seen.copies.push(Copy { retry: true, ..copy(Kind::Tick, 5, Standing::Later) });
        assert_eq!(seen.torn(), Vec::<String>::new());
    }
}
