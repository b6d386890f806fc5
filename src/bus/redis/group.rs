//! Groups: which streams a handler reads, and where it begins on each.
//!
//! Decides where a group begins on a stream that is new to it: where the handler says, unless the stream appeared while the
//! group was already asking for such streams; then at its first entry. A group that vanished goes on at its low-water mark,
//! so that nothing which it had not settled is missed. All of it is one script, and may be done twice.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use super::discovery;
use super::fault::Fault;
use super::procedure::Procedure;
use super::reply;
use super::store::Store;
use crate::bus::selection::{Selection, discovers};
use crate::bus::{Began, BusError, Start, Subscription};
use crate::failpoint;

/// The script that opens a group.
const OPEN: &str = concat!(
    include_str!("scripts/effects.lua"),
    include_str!("scripts/ids.lua"),
    include_str!("scripts/moving.lua"),
    include_str!("scripts/group.lua")
);
/// The script that counts entries.
const COUNT: &str = include_str!("scripts/count.lua");
/// Entries that one call counts: each is a moment in which the server does nothing else.
const COUNTED: i64 = 1000;

/// Opens the group of `subscription`, and creates it and its streams where they are new. Answers what it reads, its own stream
/// left out, and where it began now.
pub(super) async fn open(store: &Store, wanted: &Subscription) -> Result<(Vec<String>, Vec<Began>), BusError> {
    if let Some(own) = wanted.streams.iter().find(|name| store.keys.is_own(name)) {
        return Err(BusError::Refused(format!("stream {own:?} belongs to the host; read another one")));
    }
    let existing = discovery::existing(store, wanted).await?;
    let known = known(store, &wanted.group).await?;
    let missed = |name: &str| known.as_ref().is_some_and(|known| known.selects(name));
    let streams: BTreeMap<String, bool> = wanted
        .streams
        .iter()
        .cloned()
        .chain(existing.into_iter().filter(|name| discovers(wanted, name)))
        .map(|name| (missed(&name), name))
        .map(|(missed, name)| (name, missed))
        .collect();
    let entering = Entering { all: true, tell: true, streams: &streams };
    let mut began = Vec::new();
    for beginning in enter(store, wanted, &entering).await? {
        // Nothing to tell of an empty stream that a group reads besides.
        if known.is_none() || beginning.length > 0 {
            began.push(beginning.counted(store).await?);
        }
    }
    began.sort_by(|a, b| a.stream.cmp(&b.stream));
    Ok((streams.into_keys().collect(), began))
}

/// Creates again what vanished of a group that is being served: it goes on at its low-water mark, or, where that vanished
/// too, at the first entry.
pub(super) async fn reopen(store: &Store, wanted: &Subscription, streams: &[String]) -> Result<(), BusError> {
    let streams = streams.iter().map(|name| (name.clone(), true)).collect();
    let entering = Entering { all: false, tell: true, streams: &streams };
    enter(store, wanted, &entering).await.map(drop)
}

/// Looks for streams that appeared since; they are read from their first entry. Answers those that are not in `known`.
pub(super) async fn appeared(
    store: &Store,
    wanted: &Subscription,
    known: &BTreeSet<String>,
) -> Result<Vec<String>, BusError> {
    let existing = discovery::listed(store).await?;
    let new = existing.into_iter().filter(|name| discovers(wanted, name) && !known.contains(name));
    let streams: BTreeMap<String, bool> = new.map(|name| (name, true)).collect();
    if !streams.is_empty() {
        enter(store, wanted, &Entering { all: false, tell: false, streams: &streams }).await?;
    }
    Ok(streams.into_keys().collect())
}

/// What a group selected when it was last opened; `None`: there is no such group.
async fn known(store: &Store, group: &str) -> Result<Option<Selection>, BusError> {
    let answer = store.call(redis::cmd("HGET").arg(store.keys.group(group)).arg("selection")).await?;
    let text = reply::bytes(answer).map_err(|fault| store.told(fault))?;
    Ok(text.map(|text| Selection::read(&text)))
}

/// What every group of ours selected when it was last opened.
pub(super) async fn selections(store: &Store) -> Result<Vec<(String, Selection)>, BusError> {
    let answer = store.call(redis::cmd("SMEMBERS").arg(store.keys.own("groups"))).await?;
    let names = reply::list(answer).map_err(|fault| store.told(fault))?;
    let mut selections = Vec::with_capacity(names.len());
    for name in names.into_iter().filter_map(|name| reply::text(name).ok()) {
        if let Some(selection) = known(store, &name).await? {
            selections.push((name, selection));
        }
    }
    Ok(selections)
}

/// Puts a group that does not stand on `stream` yet at its first entry. It is not noted that the group began there: when it is
/// opened, that is told.
pub(super) async fn stand_at_first(store: &Store, group: &str, stream: &str) -> Result<(), BusError> {
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg(stream).arg(group).arg("0");
    match store.call(&create).await {
        // It stands there, or the stream is gone again.
        Err(BusError::Away { cause, .. }) if cause.starts_with("BUSYGROUP") || cause.starts_with("ERR") => Ok(()),
        answer => answer.map(drop),
    }
}

struct Entering<'a> {
    /// The group reads no other streams.
    all: bool,
    /// What it selects, and whose it is, is written down.
    tell: bool,
    /// True: from the first entry.
    streams: &'a BTreeMap<String, bool>,
}

struct Beginning {
    stream: String,
    position: String,
    newest: String,
    length: u64,
}

async fn enter(store: &Store, wanted: &Subscription, entering: &Entering<'_>) -> Result<Vec<Beginning>, BusError> {
    let script = Procedure::new(OPEN);
    let mut call = script.call();
    call.arg(store.keys.prefix()).arg(&*wanted.group);
    match entering.tell {
        true => call.arg(&*wanted.handler).arg(Selection::of(wanted).text()),
        false => call.arg("").arg(""),
    };
    call.arg(before(wanted.start)).arg(u8::from(entering.all)).arg(entering.streams.len());
    for (name, from_first) in entering.streams {
        call.arg(name).arg(u8::from(*from_first));
    }
    let answer = failpoint::during("open.sent", store.run(&script, &call)).await?;
    let began = reply::list(answer).and_then(|list| list.into_iter().map(Beginning::read).collect());
    began.map_err(|fault| store.told(fault))
}

/// The last id before the beginning.
fn before(start: Start) -> String {
    match start {
        Start::Latest => "$".into(),
        Start::Earliest => "0-0".into(),
        Start::At(time) if time <= 0 => "0-0".into(),
        Start::At(time) => format!("{}-{}", time - 1, u64::MAX),
    }
}

impl Beginning {
    fn read(answer: Value) -> Result<Self, Fault> {
        let mut parts = reply::list(answer)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let (stream, position, newest) = (reply::text(next())?, reply::text(next())?, reply::text(next())?);
        let length = u64::try_from(reply::int(&next())?).unwrap_or_default();
        Ok(Self { stream, position, newest, length })
    }

    /// How many of the retained entries it skips, and how many not.
    async fn counted(self, store: &Store) -> Result<Began, BusError> {
        let taken_in = match self.position.as_str() {
            "0-0" => self.length,
            position if position == self.newest => 0,
            position => count(store, &self.stream, position, &self.newest, None).await?,
        };
        Ok(Began { stream: self.stream, skipped: self.length.saturating_sub(taken_in), taken_in })
    }
}

/// Entries of `stream` after `after` up to `last`, or until `enough` were counted; in steps, so that nobody waits long.
pub(super) async fn count(
    store: &Store,
    stream: &str,
    after: &str,
    last: &str,
    enough: Option<u64>,
) -> Result<u64, BusError> {
    let script = Procedure::new(COUNT);
    let (mut counted, mut after) = (0, after.to_owned());
    loop {
        let mut call = script.call();
        call.arg(stream).arg(format!("({after}")).arg(last).arg(COUNTED);
        let answer = store.run(&script, &call).await?;
        let step = || -> Result<(i64, String), Fault> {
            let mut parts = reply::list(answer)?.into_iter();
            Ok((reply::int(&parts.next().unwrap_or_default())?, reply::text(parts.next().unwrap_or_default())?))
        };
        let (found, reached) = step().map_err(|fault| store.told(fault))?;
        counted += found.unsigned_abs();
        if found < COUNTED || enough.is_some_and(|enough| counted >= enough) {
            return Ok(counted);
        }
        after = reached;
    }
}
