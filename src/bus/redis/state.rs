//! State for operators: keys in order, and writes, all or none.
//!
//! Keys hold plain JSON text under the prefix of state, where other services may read and write them. What handlers read and
//! write goes through the ledger and the settle; adding to a number is the same script there (`scripts/number.lua`).

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, Value};

use super::procedure::Procedure;
use super::{RedisBus, discovery, reply};
use crate::bus::{BusError, StateAdmin, StateEntry};
use crate::clock::Millis;
use crate::outcome::{Change, Write};

/// Keys that the server looks at in one step of a scan.
const SCAN_STEP: usize = 1000;
/// The longest time to live that the server can be given: about 3,000 years.
const TTL_MAX: u128 = 100_000_000_000_000;

/// The script that does an operator's writes.
const WRITE: &str = concat!("#!lua\n", include_str!("scripts/number.lua"), include_str!("scripts/write.lua"));

#[async_trait]
impl StateAdmin for RedisBus {
    /// The server keeps no order: every page walks over all its keys once, and holds the page's keys meanwhile.
    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<StateEntry>, BusError> {
        let keys = self.state_keys(prefix, after, limit).await?;
        let mut entries = Vec::with_capacity(keys.len());
        for some in keys.into_iter().collect::<Vec<_>>().chunks(SCAN_STEP) {
            entries.extend(self.state_entries(some).await?);
        }
        Ok(entries)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<bool>, BusError> {
        let script = Procedure::new(WRITE);
        let mut call = script.call();
        for write in &writes {
            let key = self.store.keys.state(&write.key);
            if self.store.keys.is_own(&key) {
                return Err(BusError::Refused(format!(
                    "state key {:?} belongs to the host; choose another",
                    write.key
                )));
            }
            change(&mut call, &key, &write.change);
        }
        let answer = self.store.run(&script, &call).await?;
        existed(answer, &writes).map_err(|fault| self.store.told(fault))?
    }
}

fn change(call: &mut Cmd, key: &str, change: &Change) {
    match change {
        Change::Set { value, ttl } => {
            let ttl = ttl.map(|ttl: Duration| ttl.as_millis().clamp(1, TTL_MAX).to_string()).unwrap_or_default();
            call.arg("set").arg(key).arg(&value.bytes()[..]).arg(ttl)
        }
        Change::Delete => call.arg("delete").arg(key).arg("").arg(""),
        Change::Add(n) => call.arg("add").arg(key).arg(ryu::Buffer::new().format(*n)).arg(""),
    };
}

fn existed(answer: Value, writes: &[Write]) -> Result<Result<Vec<bool>, BusError>, super::fault::Fault> {
    let mut answer = reply::list(answer)?.into_iter();
    if reply::int(&answer.next().unwrap_or_default())? == 1 {
        return answer.map(|existed| Ok(reply::int(&existed)? == 1)).collect::<Result<_, _>>().map(Ok);
    }
    let at = usize::try_from(reply::int(&answer.next().unwrap_or_default())?).unwrap_or_default();
    let why = reply::text(answer.next().unwrap_or_default())?;
    let refused = writes.get(at).map_or(why.clone(), |write| match write.change {
        Change::Add(_) => format!("add to state key {:?}: {why}", write.key),
        _ => format!("write state key {:?}: {why}", write.key),
    });
    Ok(Err(BusError::Refused(refused)))
}

impl RedisBus {
    /// The first `limit` keys of state, as scripts name them, that begin with `prefix` and lie after `after`.
    async fn state_keys(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<BTreeSet<String>, BusError> {
        let own = &self.store.keys;
        let pattern = format!("{}*", literal(&own.state(prefix)));
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = self.scan_step(&cursor, &pattern).await?;
            for key in keys {
                let Some(name) = key.strip_prefix(own.state_prefix()).filter(|_| !own.is_own(&key)) else { continue };
                if after.is_none_or(|after| name > after) {
                    found.insert(name.to_owned());
                }
                if found.len() > limit {
                    found.pop_last();
                }
            }
            if next == "0" {
                return Ok(found);
            }
            cursor = next;
        }
    }

    async fn scan_step(&self, cursor: &str, pattern: &str) -> Result<(String, Vec<String>), BusError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_STEP).arg("TYPE").arg("string");
        let answer = self.store.call(&scan).await?;
        // Scripts cannot name a key that is not text.
        discovery::page(answer).map_err(|fault| self.store.told(fault))
    }

    async fn state_entries(&self, keys: &[String]) -> Result<Vec<StateEntry>, BusError> {
        let mut commands = Pipeline::new();
        for key in keys.iter().map(|key| self.store.keys.state(key)) {
            commands.cmd("GET").arg(&key).cmd("PEXPIRETIME").arg(&key);
        }
        let answers = self.store.link.send(&commands).await.map_err(|fault| self.store.told(fault))?;
        let mut answers = answers.into_iter();
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let (Some(Ok(value)), Some(Ok(expires))) = (answers.next(), answers.next()) else { continue };
            // What vanished meanwhile is not there.
            let Ok(Some(value)) = reply::bytes(value) else { continue };
            let expires = reply::int(&expires).ok().filter(|at: &Millis| *at >= 0);
            entries.push(StateEntry { key: key.clone(), value, expires });
        }
        Ok(entries)
    }
}

/// `text` as a pattern that matches nothing else.
fn literal(text: &str) -> String {
    let special = |c: char| if "*?[]\\^".contains(c) { vec!['\\', c] } else { vec![c] };
    text.chars().flat_map(special).collect()
}

#[cfg(test)]
mod tests {
    use crate::bus::sqlite::{Options, Place, SqliteStore};
    use crate::bus::{Ledger, StateAdmin};
    use crate::event::Json;
    use crate::outcome::{Change, Write};

    const CASES: &[(Option<&str>, f64)] = &[
        (None, 2.0),
        (None, f64::NAN),
        (Some("9223372036854775806"), 1.0),
        (Some("9223372036854775807"), 1.0),
        (Some("-9223372036854775808"), 1.0),
        (Some("-9223372036854775808"), -1.0),
        (Some("-9223372036854775807"), -9_007_199_254_740_992.0),
        (Some("9007199254740993"), 1.0),
        (Some("-1000000000"), 1.0),
        (Some("1000000000"), -1.0),
        (Some("999999999"), 1.0),
        (Some("-5"), 3.0),
        (Some("5"), -5.0),
        (Some("3"), -9_007_199_254_740_992.0),
        (Some("1.5"), 0.25),
        (Some("1.5"), 1.5),
        (Some("-0.5"), 0.5),
        (Some("0.1"), 0.2),
        (Some("1e300"), 1.0),
        (Some("-2E-3"), 1.0),
        (Some(" 7 "), 1.0),
        (Some("12"), 1e17),
        (Some("1e308"), 1e308),
        (Some("1e400"), 1.0),
        (Some("0x10"), 1.0),
        (Some("01.5"), 1.0),
        (Some("1."), 1.0),
        (Some("nan"), 1.0),
        (Some("\"7\""), 1.0),
        (Some("null"), 1.0),
        (Some(""), 1.0),
    ];

    async fn with_sqlite(store: &SqliteStore, value: Option<&str>, n: f64) -> Option<String> {
        let write = |change| Write { key: "n".into(), change };
        let before =
            value.map_or(Change::Delete, |text| Change::Set { value: Json::trusted(text.to_owned()), ttl: None });
        store.write(vec![write(before)]).await.expect("it is writable");
        store.write(vec![write(Change::Add(n))]).await.ok()?;
        let values = store.read(&["n".to_owned()]).await.expect("it is readable");
        values[0].as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[tokio::test]
    async fn adding_means_what_it_means_on_sqlite() {
        let store = SqliteStore::open(Options::at(Place::Memory)).expect("memory opens");
        let lua = mlua::Lua::new();
        let script = concat!(include_str!("scripts/number.lua"), "\nreturn add(...)");
        let add: mlua::Function = lua.load(script).into_function().expect("it compiles");
        for (value, n) in CASES {
            let expected = with_sqlite(&store, *value, *n).await;
            let value = value.map_or(mlua::Value::Boolean(false), |text| {
                mlua::Value::String(lua.create_string(text).expect("there is memory"))
            });
            let sum: Option<String> = add.call((value.clone(), *n)).expect("it runs");
            let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<f64>().ok());
            assert_eq!(number(&sum), number(&expected), "{value:?} + {n}: {sum:?}, not {expected:?}");
            let form = |text: &Option<String>| text.as_ref().map(|text| text.contains(['.', 'e']));
            assert_eq!(form(&sum), form(&expected), "{value:?} + {n}: {sum:?}, not {expected:?}");
            if form(&sum) == Some(false) {
                assert_eq!(sum, expected, "whole numbers are exact");
            }
        }
        store.close().await;
    }
}
