//! Which processes have the store open, as people are told.
//!
//! Each process says now and then when it was last here, by the server's clock; whoever did not for the recovery time, or is
//! known to this machine's kernel as gone, is taken for gone. Only for showing: who owns what is never decided by a wall clock (`beat`).

use std::collections::HashMap;

use redis::Pipeline;

use super::beat::Registration;
use super::fault::Fault;
use super::reply;
use super::store::Store;
use crate::bus::{BusError, Process};
use crate::clock::Millis;

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
    let now = reply::time(next()?)?;
    let (registered, seen) = (reply::pairs(next()?)?, reply::pairs(next()?)?);
    let seen: HashMap<_, Millis> = seen
        .into_iter()
        .filter_map(|(process, at)| Some((process, std::str::from_utf8(&at).ok()?.parse().ok()?)))
        .collect();
    let alive = registered.into_iter().filter_map(|(process, text)| {
        let Registration { instance, started_at, recovery_ms, place } = serde_json::from_slice(&text).ok()?;
        let last = seen.get(&process).copied().unwrap_or(started_at);
        let process = String::from_utf8(process.into()).ok()?;
        let recent = now.saturating_sub(last) < i64::try_from(recovery_ms).unwrap_or(i64::MAX).max(1);
        let alive = recent && !place.is_some_and(|place| place.is_deserted());
        alive.then_some((process, Process { instance, started_at }))
    });
    Ok((alive.collect(), now))
}
