//! Moves pending entries between consumers: from the dead and from what was given back to us, and from us back.
//!
//! Nothing is claimed by idle time: owners are named, and one whose counter has moved since it was taken for dead is left
//! alone by the script itself. How often an entry was delivered is its fence: a death raises it by one, nothing else does.
//! Each call looks at no more entries than it may take, however many are pending.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::beat::Beat;
use super::fault::Fault;
use super::keys::{CONSUMER, FREE};
use super::procedure::Procedure;
use super::reply;
use super::store::Store;
use crate::event::EntryId;

/// Entries that one script moves, so that no other client waits long for it.
pub(super) const MOVED_MAX: usize = 500;

static TAKE_OVER: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/claim.lua"), include_str!("scripts/take_over.lua"))));
static OWN: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/claim.lua"), include_str!("scripts/own.lua"))));
static GIVE_BACK: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/claim.lua"), include_str!("scripts/give_back.lua"))));
static MARK: LazyLock<Procedure> =
    LazyLock::new(|| Procedure::new(concat!(include_str!("scripts/claim.lua"), include_str!("scripts/mark.lua"))));

/// A consumer whose entries are anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub consumer: String,
    /// The counter at which its process is dead; `None`: it has no counter any more.
    pub beat: Option<i64>,
    /// Entries that it still has; a dead one without any is only to be removed.
    pub pending: u64,
}

impl Owner {
    /// Its process, unless it is the owner of what was given back.
    fn process(&self) -> &str {
        if self.consumer == FREE { "" } else { self.consumer.strip_prefix(CONSUMER).unwrap_or_default() }
    }
}

/// An entry that is ours now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub entry: EntryId,
    /// How often it was delivered: 1, and one more for each process that died with it.
    pub count: u32,
    /// Deaths under its mark.
    pub deaths: u32,
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Found {
    /// How often its process died.
    pub fn orphaned(&self) -> u32 {
        self.count.saturating_sub(1)
    }
}

/// What a take-over brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Oldest first.
    pub entries: Vec<Found>,
    /// There was more than was asked for.
    pub more: bool,
}

/// For each of `read` (stream, group): whose entries may be taken over. One round trip for all; to be asked when
/// [`Beat::deaths`] changed, when something was given back, and at the beginning.
pub(super) async fn orphans(
    store: &Store,
    beat: &Beat,
    read: &[(Arc<str>, Arc<str>)],
) -> Result<Vec<Vec<Owner>>, Fault> {
    let mut ask = Pipeline::new();
    for (stream, group) in read {
        ask.cmd("XINFO").arg("CONSUMERS").arg(&**stream).arg(&**group);
    }
    // Last: a process registers before it reads, so that one that is seen above and not below is gone.
    ask.cmd("HKEYS").arg(store.keys.own("beats"));
    let mut answers = store.link.send(&ask).await?;
    let known = reply::list(answers.pop().unwrap_or(Ok(Value::Nil))?)?;
    let known: HashSet<String> = known.into_iter().map(reply::text).collect::<Result<_, _>>()?;
    let mut found = Vec::with_capacity(read.len());
    for answer in answers {
        // A group that is not there is found by whoever reads it.
        let consumers = answer.map_or_else(|_| Ok(Vec::new()), reply::list)?;
        let consumers = consumers.into_iter().map(consumer).collect::<Result<Vec<_>, _>>()?;
        let owners = consumers.into_iter().filter_map(|(name, pending)| orphaned(store, beat, &known, name, pending));
        found.push(owners.collect());
    }
    Ok(found)
}

/// Name and number of pending entries.
fn consumer(info: Value) -> Result<(String, u64), Fault> {
    let (mut name, mut pending) = (String::new(), 0);
    for (field, value) in reply::pairs(info)? {
        match &field[..] {
            b"name" => name = String::from_utf8_lossy(&value).into_owned(),
            b"pending" => pending = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            _ => {}
        }
    }
    Ok((name, pending))
}

fn orphaned(store: &Store, beat: &Beat, known: &HashSet<String>, consumer: String, pending: u64) -> Option<Owner> {
    let process = consumer.strip_prefix(CONSUMER)?;
    if consumer == store.consumer {
        return None;
    }
    if consumer == FREE {
        return (pending > 0).then_some(Owner { consumer, beat: None, pending });
    }
    let beat = match beat.dead_at(process) {
        _ if !known.contains(process) => None,
        Some(at) => Some(at),
        None => return None,
    };
    Some(Owner { consumer, beat, pending })
}

/// Makes at most `max` entries of `owners` ours, and removes those of the dead that have nothing left.
pub(super) async fn take_over(
    store: &Store,
    stream: &str,
    group: &str,
    owners: &[Owner],
    max: usize,
) -> Result<Taken, Fault> {
    let mut call = begin(&TAKE_OVER, store, stream, group);
    call.arg(max.min(MOVED_MAX));
    for owner in owners {
        let beat = owner.beat.map_or_else(String::new, |beat| beat.to_string());
        call.arg(&owner.consumer).arg(owner.process()).arg(beat);
    }
    taken(TAKE_OVER.run(&store.link, &call).await?)
}

/// Entries after `after` that are pending for us and that nobody holds, at most `max`, and where to go on from, if there
/// may be more. To be asked only while no read of ours is under way: what that brings is held by nobody yet.
pub(super) async fn own_pending(
    store: &Store,
    stream: &str,
    group: &str,
    after: EntryId,
    max: usize,
    is_held: impl Fn(EntryId) -> bool,
) -> Result<(Vec<Found>, Option<EntryId>), Fault> {
    let max = max.min(MOVED_MAX);
    let mut list = redis::cmd("XPENDING");
    list.arg(stream).arg(group).arg(format!("({after}")).arg("+").arg(max).arg(&store.consumer);
    let pending = reply::list(store.link.call(&list).await?)?;
    let pending = pending.into_iter().map(delivered).collect::<Result<Vec<_>, _>>()?;
    let next = pending.last().filter(|_| pending.len() == max).map(|(entry, _)| *entry);
    let lost: Vec<_> = pending.into_iter().filter(|(entry, _)| !is_held(*entry)).collect();
    if lost.is_empty() {
        return Ok((Vec::new(), next));
    }
    let call = with_entries(begin(&OWN, store, stream, group), &lost);
    Ok((taken(OWN.run(&store.link, &call).await?)?.entries, next))
}

/// Gives entries (with the count they were received with) back as they came: anybody's at once, and without a trace. Those
/// that are ours no more are left alone.
pub(super) async fn give_back(
    store: &Store,
    stream: &str,
    group: &str,
    entries: &[(EntryId, u32)],
) -> Result<(), Fault> {
    for part in entries.chunks(MOVED_MAX) {
        let call = with_entries(begin(&GIVE_BACK, store, stream, group), part);
        GIVE_BACK.run(&store.link, &call).await?;
    }
    Ok(())
}

/// Writes the durable mark "runs alone" of an entry that was received with `count`; false: it is ours no more.
pub(super) async fn mark(store: &Store, stream: &str, group: &str, entry: EntryId, count: u32) -> Result<bool, Fault> {
    let call = with_entries(begin(&MARK, store, stream, group), &[(entry, count)]);
    match MARK.run(&store.link, &call).await {
        Err(Fault::NoGroup) => Ok(false),
        answer => Ok(reply::int(&answer?)? == 1),
    }
}

/// A call that moves pending entries; what belongs to it is added.
pub(super) fn begin(procedure: &Procedure, store: &Store, stream: &str, group: &str) -> Cmd {
    let mut call = procedure.call();
    call.arg(store.keys.prefix()).arg(stream).arg(group).arg(&store.consumer);
    call
}

fn with_entries(mut call: Cmd, entries: &[(EntryId, u32)]) -> Cmd {
    for (entry, count) in entries {
        call.arg(entry.to_string()).arg(*count);
    }
    call
}

/// A row of XPENDING: id, consumer, idle time, count.
fn delivered(row: Value) -> Result<(EntryId, u32), Fault> {
    let mut row = reply::list(row)?.into_iter();
    let entry = reply::entry_id(row.next().unwrap_or(Value::Nil))?;
    Ok((entry, count(&row.nth(2).unwrap_or(Value::Nil))?))
}

fn count(value: &Value) -> Result<u32, Fault> {
    reply::int(value).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

fn taken(answer: Value) -> Result<Taken, Fault> {
    let mut answer = reply::list(answer)?.into_iter();
    let more = reply::int(&answer.next().unwrap_or(Value::Nil))? == 1;
    let entries = reply::list(answer.next().unwrap_or(Value::Nil))?;
    let mut entries = entries.into_iter().map(found).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|found| found.entry);
    Ok(Taken { entries, more })
}

/// Id, count, deaths, fields.
fn found(value: Value) -> Result<Found, Fault> {
    let mut parts = reply::list(value)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let entry = reply::entry_id(next())?;
    Ok(Found { entry, count: count(&next())?, deaths: count(&next())?, fields: reply::pairs(next())? })
}
