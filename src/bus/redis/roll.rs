//! Which processes have the store open, as people are told.
//!
//! Each process says now and then when it was last here, by the server's clock; whoever did not for the recovery time is
//! taken for gone. Only for showing: who owns what is never decided by a wall clock (`beat`).

use std::collections::HashMap;

use redis::Pipeline;
use serde::Deserialize;

use super::fault::Fault;
use super::reply;
use super::store::Store;
use crate::bus::{BusError, Process};
use crate::clock::Millis;

#[derive(Deserialize)]
struct Registered {
    instance: String,
    started_at: Millis,
    recovery_ms: i64,
}

/// The processes that were here within the recovery time, by name, and the server's time.
pub(super) async fn alive(store: &Store) -> Result<(HashMap<String, Process>, Millis), BusError> {
    let mut ask = Pipeline::new();
    ask.cmd("TIME").cmd("HGETALL").arg(store.keys.own("processes")).cmd("HGETALL").arg(store.keys.own("seen"));
    store.check_open()?;
    let answers = store.link.send(&ask).await.map_err(|fault| store.told(fault))?;
    read(answers).map_err(|fault| store.told(fault))
}

fn read(answers: Vec<Result<redis::Value, Fault>>) -> Result<(HashMap<String, Process>, Millis), Fault> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(redis::Value::Nil));
    let now = time(next()?)?;
    let (registered, seen) = (reply::pairs(next()?)?, reply::pairs(next()?)?);
    let seen: HashMap<_, Millis> = seen
        .into_iter()
        .filter_map(|(process, at)| Some((process, std::str::from_utf8(&at).ok()?.parse().ok()?)))
        .collect();
    let alive = registered.into_iter().filter_map(|(process, text)| {
        let known: Registered = serde_json::from_slice(&text).ok()?;
        let last = seen.get(&process).copied().unwrap_or(known.started_at);
        let process = String::from_utf8(process.into()).ok()?;
        let Registered { instance, started_at, .. } = known;
        (now - last < known.recovery_ms.max(1)).then_some((process, Process { instance, started_at }))
    });
    Ok((alive.collect(), now))
}

/// The answer of TIME in milliseconds.
pub(super) fn time(answer: redis::Value) -> Result<Millis, Fault> {
    let parts = reply::list(answer)?.iter().map(reply::int).collect::<Result<Vec<_>, _>>()?;
    match parts[..] {
        [seconds, micros] => Ok(seconds * 1000 + micros / 1000),
        _ => Err(Fault::Away("it does not tell the time".into())),
    }
}
