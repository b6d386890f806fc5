//! What lies in the stream of dead letters: letters of ours, and what others put there.
//!
//! Beside the stream we keep which of its entries are ours; everything else is foreign, whatever its fields look like: a
//! letter of ours that somebody handled anew and gave up has all of them. A letter says whose it was; where that group was
//! handed over, `moved` says to whom.

use std::collections::HashMap;

use bytes::Bytes;
use redis::{Pipeline, Value};

use super::dead::Found;
use super::entry::Fields;
use super::fault::Fault;
use super::store::Store;
use super::{foreign, reply};
use crate::bus::{BusError, DeadId};
use crate::clock::Millis;
use crate::event::EntryId;

/// The letter with this number.
pub(super) async fn get(store: &Store, id: DeadId) -> Result<Option<Found>, BusError> {
    let place = id.entry().to_string();
    Ok(between(store, &place, &place, 1).await?.pop().and_then(|one| one.found))
}

/// An entry of the stream of dead letters.
pub(super) struct Entry {
    pub at: EntryId,
    /// `None`: there is no number for it.
    pub found: Option<Found>,
}

/// The entries from `from` to `to`, at most `count`.
pub(super) async fn between(store: &Store, from: &str, to: &str, count: usize) -> Result<Vec<Entry>, BusError> {
    let mut ask = Pipeline::new();
    ask.cmd("XRANGE").arg(store.keys.dead()).arg(from).arg(to).arg("COUNT").arg(count);
    let mut entries = Vec::new();
    for answer in send(store, &ask).await? {
        let found: Result<Vec<_>, Fault> =
            answer.and_then(reply::list).and_then(|list| list.into_iter().map(reply::entry).collect());
        entries = found.map_err(|fault| store.told(fault))?;
    }
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<String> = entries.iter().map(|(at, _)| at.to_string()).collect();
    let mut ask = Pipeline::new();
    for name in ["dead:ours", "dead:originals", "dead:replayed"] {
        ask.cmd("HMGET").arg(store.keys.own(name)).arg(&places);
    }
    ask.cmd("HGETALL").arg(store.keys.own("moved"));
    let known = Known::read(send(store, &ask).await?).map_err(|fault| store.told(fault))?;
    let read = |(number, (at, fields)): (usize, (EntryId, Option<Fields>))| Entry {
        at,
        found: DeadId::at(at).map(|id| known.found(store, number, (id, at), fields.unwrap_or_default())),
    };
    Ok(entries.into_iter().enumerate().map(read).collect())
}

/// The letters at `places`, each with its group as it is called now; empty: it has none.
pub(super) async fn with_groups(store: &Store, places: Vec<EntryId>) -> Result<Vec<(EntryId, String)>, BusError> {
    let names: Vec<String> = places.iter().map(EntryId::to_string).collect();
    let ours = store.call(redis::cmd("HMGET").arg(store.keys.own("dead:ours")).arg(names)).await?;
    let ours = reply::list(ours).and_then(|list| list.into_iter().map(reply::bytes).collect::<Result<Vec<_>, _>>());
    let moved = Moved::ask(store).await?;
    let group = |at, ours: Option<Bytes>| moved.now(ours.as_ref().and_then(group).unwrap_or_default(), at);
    let ours = ours.map_err(|fault| store.told(fault))?;
    Ok(places.into_iter().zip(ours).map(|(at, ours)| (at, group(at, ours))).collect())
}

/// The last of what is kept of a letter of ours: stream, record and group.
fn group(ours: &Bytes) -> Option<String> {
    std::str::from_utf8(ours).ok()?.splitn(3, ' ').nth(2).map(str::to_owned)
}

async fn send(store: &Store, ask: &Pipeline) -> Result<Vec<Result<Value, Fault>>, BusError> {
    store.check_open()?;
    store.link.send(ask).await.map_err(|fault| store.told(fault))
}

/// What is known of some entries besides, each list in their order.
struct Known {
    ours: Vec<Option<Bytes>>,
    originals: Vec<Option<Bytes>>,
    replayed: Vec<Option<Bytes>>,
    moved: Moved,
}

impl Known {
    fn read(answers: Vec<Result<Value, Fault>>) -> Result<Self, Fault> {
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
        let mut list = || reply::list(next()?)?.into_iter().map(reply::bytes).collect::<Result<Vec<_>, Fault>>();
        let (ours, originals, replayed) = (list()?, list()?, list()?);
        Ok(Self { ours, originals, replayed, moved: Moved::read(reply::pairs(next()?)?) })
    }

    /// The letter that is entry `number` of them. What is not readable as ours is shown as what others wrote is.
    fn found(&self, store: &Store, number: usize, (id, at): (DeadId, EntryId), fields: Fields) -> Found {
        let shelf = store.shelf();
        let one = |list: &[Option<Bytes>]| list.get(number).cloned().flatten();
        let lies_here = |ours: Bytes| ours.split(|byte| *byte == b' ').next() == Some(shelf.name.as_bytes());
        let since = one(&self.replayed).and_then(|since| std::str::from_utf8(&since).ok()?.parse::<Millis>().ok());
        let ours = one(&self.ours).filter(|ours| lies_here(ours.clone()));
        let ours = ours.and_then(|_| shelf.read((id, at), fields.clone(), one(&self.originals).as_ref(), since));
        match ours {
            Some(mut found) => {
                found.letter.group = self.moved.now(found.letter.group, at);
                found
            }
            None => Found { letter: foreign::read(&shelf, (id, at), fields.clone()), lay: None, foreign: Some(fields) },
        }
    }
}

/// Whose the letters are of groups that were handed over or forgotten: up to which letter, and to whom (nobody: empty).
pub(super) struct Moved(HashMap<String, Vec<(EntryId, String)>>);

impl Moved {
    pub async fn ask(store: &Store) -> Result<Self, BusError> {
        let answer = store.call(redis::cmd("HGETALL").arg(store.keys.own("moved"))).await?;
        reply::pairs(answer).map(Self::read).map_err(|fault| store.told(fault))
    }

    fn read(pairs: Vec<(Bytes, Bytes)>) -> Self {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let step = |line: &str| {
            let (upto, to) = line.split_once(' ')?;
            Some((reply::parse_id(upto)?, to.to_owned()))
        };
        let steps = |lines: String| lines.lines().filter_map(step).collect();
        Self(pairs.into_iter().map(|(from, lines)| (text(from), steps(text(lines)))).collect())
    }

    /// Whose the letter at `at` is that was `group`'s.
    pub fn now(&self, mut group: String, at: EntryId) -> String {
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
