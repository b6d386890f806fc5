//! Dead letters, for operators: looked at, given to their handlers once more, discarded.
//!
//! A replay is a new entry in the group's own stream that names its letter. The letter stays until the replay has ended; the
//! settle that ends it removes the letter. A letter says whose it was; where that group was handed over, `moved` says to whom.

use std::collections::HashMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use redis::Pipeline;

use super::args::Args;
use super::dead;
use super::entry;
use super::fault::Fault;
use super::procedure::Procedure;
use super::store::Store;
use super::{RedisBus, reply};
use crate::bus::{BusError, DeadFilter, DeadId, DeadLetter, DeadLetters, Past, Replayed};
use crate::clock::Millis;
use crate::event::EntryId;

/// Letters that are read at once.
const PAGE: usize = 200;

static REPLAY: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/effects.lua"), include_str!("scripts/replay.lua"))));
static DISCARD: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/effects.lua"), include_str!("scripts/discard.lua"))));

#[async_trait]
impl DeadLetters for RedisBus {
    async fn list(&self, filter: DeadFilter) -> Result<Vec<DeadLetter>, BusError> {
        let fits = |letter: &DeadLetter| {
            filter.handler.as_ref().is_none_or(|handler| *handler == letter.handler)
                && filter.reason.is_none_or(|reason| reason == letter.reason)
        };
        let mut after = filter.after.map(dead::place);
        let mut letters = Vec::new();
        while letters.len() < filter.limit {
            let from = after.map_or_else(|| "-".into(), |entry| format!("({entry}"));
            let page = letters_in(&self.store, &from, "+", PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(dead::place(last.letter.id));
            letters.extend(page.into_iter().map(|found| found.letter).filter(fits));
        }
        letters.truncate(filter.limit);
        Ok(letters)
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>, BusError> {
        Ok(letter(&self.store, id).await?.map(|found| found.letter))
    }

    async fn replay(&self, id: DeadId) -> Result<Replayed, BusError> {
        let store = &self.store;
        let Some(dead::Found { letter, lay }) = letter(store, id).await? else { return Ok(Replayed::Missing) };
        let now = reply::time(store.call(&redis::cmd("TIME")).await?).map_err(|fault| store.told(fault))?;
        let past = Past {
            attempts: 0,
            snoozes: 0,
            stream: letter.stream.into(),
            entry: letter.entry,
            first_received: now,
            failures: letter.failures,
            replay_of: Some(id),
        };
        let mut args = Args::of(&REPLAY);
        args.push(store.keys.prefix());
        args.entry(dead::place(id));
        args.push(&letter.group);
        args.fields(&entry::fields_with_past(&letter.event, lay.as_deref(), &past));
        let answer = store.run(&REPLAY, &args.done()).await?;
        match reply::int(&answer).map_err(|fault| store.told(fault))? {
            0 => Ok(Replayed::Missing),
            1 => Ok(Replayed::Queued),
            -1 => {
                Err(BusError::Refused(format!("dead letter {id}: its group no longer exists; start its handler first")))
            }
            since => Ok(Replayed::Underway(since)),
        }
    }

    async fn discard(&self, ids: &[DeadId]) -> Result<u64, BusError> {
        discard(&self.store, ids).await
    }
}

/// Removes letters; answers how many there were.
pub(super) async fn discard(store: &Store, ids: &[DeadId]) -> Result<u64, BusError> {
    let mut discarded = 0;
    for some in ids.chunks(PAGE) {
        let mut args = Args::of(&DISCARD);
        args.push(store.keys.prefix());
        for id in some {
            let found = letter(store, *id).await?;
            args.entry(dead::place(*id));
            args.push(found.map(|found| found.letter.group).unwrap_or_default());
        }
        let answer = store.run(&DISCARD, &args.done()).await?;
        discarded += reply::int(&answer).map_err(|fault| store.told(fault))?.unsigned_abs();
    }
    Ok(discarded)
}

/// The letter with this number.
async fn letter(store: &Store, id: DeadId) -> Result<Option<dead::Found>, BusError> {
    let place = dead::place(id).to_string();
    Ok(letters_in(store, &place, &place, 1).await?.pop())
}

/// The letters from `from` to `to`, at most `count`.
pub(super) async fn letters_in(
    store: &Store,
    from: &str,
    to: &str,
    count: usize,
) -> Result<Vec<dead::Found>, BusError> {
    let dead = store.keys.own("dead");
    let mut ask = Pipeline::new();
    ask.cmd("XRANGE").arg(&dead).arg(from).arg(to).arg("COUNT").arg(count);
    ask.cmd("HGETALL").arg(store.keys.own("dead:replayed"));
    ask.cmd("HGETALL").arg(store.keys.own("moved"));
    store.check_open()?;
    let answers = store.link.send(&ask).await.map_err(|fault| store.told(fault))?;
    let read = || -> Result<Vec<dead::Found>, Fault> {
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(redis::Value::Nil));
        let entries = reply::list(next()?)?;
        let (replayed, moved) = (reply::pairs(next()?)?, Moved::read(reply::pairs(next()?)?));
        let replayed: HashMap<_, _> = replayed.into_iter().collect();
        let letter = |value| {
            let (at, fields) = reply::entry(value)?;
            let since = replayed.get(at.to_string().as_bytes());
            let since = since.and_then(|since| std::str::from_utf8(since).ok()?.parse::<Millis>().ok());
            let mut found = dead::read(&store.options.streams, at, fields.unwrap_or_default(), since)?;
            found.letter.group = moved.now(found.letter.group, at);
            Ok(found)
        };
        entries.into_iter().map(letter).collect()
    };
    read().map_err(|fault| store.told(fault))
}

/// Whose the letters are of groups that were handed over or forgotten: up to which letter, and to whom (nobody: empty).
struct Moved(HashMap<String, Vec<(EntryId, String)>>);

impl Moved {
    fn read(pairs: Vec<(bytes::Bytes, bytes::Bytes)>) -> Self {
        let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let step = |line: &str| {
            let (upto, to) = line.split_once(' ')?;
            Some((reply::parse_id(upto)?, to.to_owned()))
        };
        let steps = |lines: String| lines.lines().filter_map(step).collect();
        Self(pairs.into_iter().map(|(from, lines)| (text(from), steps(text(lines)))).collect())
    }

    /// Whose the letter at `at` is that was `group`'s.
    fn now(&self, mut group: String, at: EntryId) -> String {
        let mut after = None;
        // Groups can be handed back and forth; each step lies after the one before.
        while let Some((upto, to)) =
            self.0.get(&group).and_then(|steps| steps.iter().find(|(upto, _)| *upto >= at && Some(*upto) > after))
        {
            (after, group) = (Some(*upto), to.clone());
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_follows_its_group() {
        let pair = |from: &'static str, lines: &'static str| (from.into(), lines.into());
        let moved = Moved::read(vec![pair("a", "10-0 b\n30-0 c"), pair("b", "20-0 a"), pair("c", "40-0 ")]);
        for (at, group, now) in [
            (5, "a", ""),
            (15, "a", ""),
            (15, "b", ""),
            (25, "b", "b"),
            (35, "a", "a"),
            (35, "c", ""),
            (45, "c", "c"),
            (5, "other", "other"),
        ] {
            assert_eq!(moved.now(group.into(), EntryId(at, 0)), now, "{group} at {at}");
        }
    }
}
