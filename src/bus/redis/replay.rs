//! Dead letters, for operators: looked at, given to their handlers once more, discarded.
//!
//! A replay is a new entry in the group's own stream that names its letter. The letter stays until the replay has ended; the
//! settle that ends it removes the letter. A foreign letter has no group: its event goes back to its stream, and the letter
//! goes in the same step.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::args::Args;
use super::dead::Found;
use super::entry::{self, Fields};
use super::procedure::Procedure;
use super::store::Store;
use super::{RedisBus, foreign, keys, letters, reply};
use crate::bus::{BusError, DeadFilter, DeadId, DeadLetter, DeadLetters, Past, Replayed};
use crate::event::EntryId;
use crate::outcome::RecordKey;

/// Letters that are read at once.
const PAGE: usize = 200;

static REPLAY: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/letters.lua"),
        include_str!("scripts/replay.lua")
    ))
});
static PUT_BACK: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/letters.lua"),
        include_str!("scripts/put_back.lua")
    ))
});
static DISCARD: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/letters.lua"),
        include_str!("scripts/discard.lua")
    ))
});

#[async_trait]
impl DeadLetters for RedisBus {
    async fn list(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, BusError> {
        let fits = |letter: &DeadLetter| {
            filter.handler.as_ref().is_none_or(|handler| *handler == letter.handler)
                && filter.reason.is_none_or(|reason| reason == letter.reason)
        };
        let mut after = filter.after.map(DeadId::entry);
        let mut letters = Vec::new();
        while letters.len() < filter.limit {
            let from = after.map_or_else(|| "-".into(), |entry| format!("({entry}"));
            let page = letters::between(&self.store, &from, "+", page_of(&filter, letters.len())).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.at);
            letters.extend(page.into_iter().filter_map(|one| Some(one.found?.letter)).filter(fits));
        }
        letters.truncate(filter.limit);
        Ok(letters)
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>, BusError> {
        Ok(letters::get(&self.store, id).await?.map(|found| found.letter))
    }

    async fn replay(&self, id: DeadId) -> Result<Replayed, BusError> {
        match letters::get(&self.store, id).await? {
            None => Ok(Replayed::Missing),
            Some(Found { letter, foreign: Some(fields), .. }) => put_back(&self.store, &letter, &fields).await,
            Some(found) => replay(&self.store, found).await,
        }
    }

    async fn discard(&self, ids: &[DeadId]) -> Result<u64, BusError> {
        let mut discarded = 0;
        for some in ids.chunks(PAGE) {
            let places = some.iter().map(|id| id.entry()).collect();
            discarded += discard(&self.store, &letters::with_groups(&self.store, places).await?).await?;
        }
        Ok(discarded)
    }
}

/// How many entries to look at next, when `have` were found.
fn page_of(filter: &DeadFilter, have: usize) -> usize {
    let takes_all = filter.handler.is_none() && filter.reason.is_none();
    if takes_all { PAGE.min(filter.limit - have) } else { PAGE }
}

/// Gives the event of a letter of ours to its group.
async fn replay(store: &Store, Found { letter, lay, .. }: Found) -> Result<Replayed, BusError> {
    let id = letter.id;
    if letter.group.is_empty() && store.keys.is_channel(&letter.stream) {
        return Err(BusError::Refused(format!(
            "dead letter {id}: it came by {} to nobody; publish it again",
            letter.handler
        )));
    }
    let now = reply::time(store.call(&redis::cmd("TIME")).await?).map_err(|fault| store.told(fault))?;
    let past = Past {
        attempts: 0,
        snoozes: 0,
        entry: letter.origin(),
        stream: letter.stream.into(),
        first_received: now,
        failures: letter.failures,
        replay_of: Some(id),
        steps: steps(store, id).await?,
    };
    let mut args = call(store, &REPLAY);
    args.entry(id.entry());
    args.push(&letter.group);
    args.fields(&entry::fields_with_past(&letter.event, lay.as_deref(), &past));
    let answer = store.run(&REPLAY, &args.done()).await?;
    match reply::int(&answer).map_err(|fault| store.told(fault))? {
        0 => Ok(Replayed::Missing),
        1 => Ok(Replayed::Queued),
        -1 => Err(BusError::Refused(format!("dead letter {id}: its group no longer exists; start its handler first"))),
        since => Ok(Replayed::Underway(since)),
    }
}

/// Where the steps of a letter's event are recorded.
async fn steps(store: &Store, id: DeadId) -> Result<Option<RecordKey>, BusError> {
    let mut ask = redis::cmd("HGET");
    ask.arg(store.keys.own("dead:steps")).arg(id.entry().to_string());
    let key = reply::bytes(store.call(&ask).await?).map_err(|fault| store.told(fault))?;
    Ok(key.and_then(|key| keys::steps_of(&key)))
}

/// Puts the event of a foreign letter back where it came from.
async fn put_back(store: &Store, letter: &DeadLetter, fields: &Fields) -> Result<Replayed, BusError> {
    let way = foreign::way_back(&store.shelf(), letter, fields);
    let named = way.named.iter().filter(|name| !store.keys.is_own(name));
    let mut args = call(store, &PUT_BACK);
    args.entry(letter.id.entry());
    args.int(named.clone().count() as u64);
    named.for_each(|name| args.push(name));
    args.push(way.of_its_type.unwrap_or_default());
    args.fields(&way.fields);
    let stream = reply::bytes(store.run(&PUT_BACK, &args.done()).await?).map_err(|fault| store.told(fault))?;
    match stream.map(|stream| String::from_utf8_lossy(&stream).into_owned()) {
        None => Ok(Replayed::Missing),
        Some(stream) if stream.is_empty() => Err(BusError::Refused(format!(
            "dead letter {}: nobody knows where it came from: it names no stream that is there, and has no type",
            letter.id
        ))),
        Some(stream) => Ok(Replayed::PutBack { stream }),
    }
}

fn call(store: &Store, procedure: &Procedure) -> Args {
    let mut args = Args::of(procedure);
    args.push(store.keys.prefix());
    args.push(store.keys.dead());
    args
}

/// Removes letters, each with its group as it is called now; answers how many there were.
pub(super) async fn discard(store: &Store, letters: &[(EntryId, String)]) -> Result<u64, BusError> {
    if letters.is_empty() {
        return Ok(0);
    }
    let mut args = call(store, &DISCARD);
    for (at, group) in letters {
        args.entry(*at);
        args.push(group);
    }
    let answer = store.run(&DISCARD, &args.done()).await?;
    reply::int(&answer).map(i64::unsigned_abs).map_err(|fault| store.told(fault))
}
