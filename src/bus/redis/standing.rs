//! How every group stands, for operators: positions, what waits, what is under way.
//!
//! A few round trips, however many groups there are; they are not of one moment. Where the server does not know how many
//! entries lie after a position, some are counted and the rest is estimated, so that the cost does not grow with what waits.

use std::collections::BTreeMap;

use redis::{Pipeline, Value};

use super::fault::Fault;
use super::keys::{CONSUMER, FREE};
use super::store::Store;
use super::{group, reply};
use crate::bus::{BusError, GroupPosition};
use crate::clock::Millis;
use crate::event::EntryId;

/// Entries that are counted where the server does not know how many there are; beyond, they are estimated.
const COUNTED_MAX: u64 = 10_000;

/// One group.
#[derive(Default)]
pub(super) struct Standing {
    pub group: String,
    pub handler: String,
    pub seen_at: Millis,
    pub dead: u64,
    pub lost: u64,
    pub in_flight: u64,
    /// Given back, or left behind by nobody's fault.
    pub free: u64,
    /// Of what is in flight: what consumers of others hold, by their names.
    pub foreign: BTreeMap<String, u64>,
    pub delayed: u64,
    /// Entries of its own stream that were not received.
    pub retries: u64,
    /// All but its own stream.
    pub positions: Vec<Position>,
    pub oldest: Option<Millis>,
}

impl Standing {
    /// Entries that were not received, or given back, and delayed work.
    pub fn lag(&self) -> u64 {
        let unread = self.positions.iter().filter(|position| position.unused.is_none()).map(|position| position.at.lag);
        unread.sum::<u64>() + self.free + self.later()
    }

    /// Of these: delayed work, before it is due and after.
    pub fn later(&self) -> u64 {
        self.delayed + self.retries
    }
}

/// A group on a stream.
pub(super) struct Position {
    pub at: GroupPosition,
    /// The group does not read the stream any more, since then.
    pub unused: Option<Millis>,
}

/// Every group, by name.
pub(super) async fn all(store: &Store) -> Result<Vec<Standing>, BusError> {
    let names = members(store, "groups").await?;
    let mut ask = Pipeline::new();
    ask.cmd("HGETALL").arg(store.keys.own("delayed"));
    for name in &names {
        ask.cmd("HGETALL").arg(store.keys.group(name));
    }
    let mut answers = send(store, &ask).await?.into_iter();
    let delayed: BTreeMap<String, u64> =
        texts(store, answers.next())?.into_iter().map(|(k, v)| (k, number(&v))).collect();
    let mut standings = Vec::with_capacity(names.len());
    for (name, answer) in names.into_iter().zip(answers) {
        let fields = texts(store, Some(answer))?;
        if !fields.is_empty() {
            standings.push(look(store, name, &fields, &delayed).await?);
        }
    }
    Ok(standings)
}

async fn members(store: &Store, set: &str) -> Result<Vec<String>, BusError> {
    let answer = store.call(redis::cmd("SMEMBERS").arg(store.keys.own(set))).await?;
    let names = reply::list(answer).map_err(|fault| store.told(fault))?;
    let mut names: Vec<String> = names.into_iter().filter_map(|name| reply::text(name).ok()).collect();
    names.sort();
    Ok(names)
}

async fn send(store: &Store, ask: &Pipeline) -> Result<Vec<Result<Value, Fault>>, BusError> {
    store.check_open()?;
    store.link.send(ask).await.map_err(|fault| store.told(fault))
}

fn texts(store: &Store, answer: Option<Result<Value, Fault>>) -> Result<BTreeMap<String, String>, BusError> {
    let pairs = answer.unwrap_or(Ok(Value::Nil)).and_then(reply::pairs).map_err(|fault| store.told(fault))?;
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Ok(pairs.into_iter().map(|(name, value)| (text(name), text(value))).collect())
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// What the server says of a group on one stream.
struct Found {
    position: EntryId,
    lag: Option<u64>,
    pending: Pending,
    length: u64,
}

/// A summary of what is pending.
#[derive(Default)]
struct Pending {
    all: u64,
    free: u64,
    foreign: Vec<(String, u64)>,
}

async fn look(
    store: &Store,
    group: String,
    fields: &BTreeMap<String, String>,
    delayed: &BTreeMap<String, u64>,
) -> Result<Standing, BusError> {
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let retry = store.keys.retry(&group);
    let mut standing = Standing {
        handler: field("handler"),
        seen_at: field("seen_at").parse().unwrap_or(0),
        dead: number(&field("dead")),
        lost: number(&field("lost")),
        group,
        ..Standing::default()
    };
    let streams: Vec<String> =
        fields.keys().filter_map(|field| field.strip_prefix("began:")).map(str::to_owned).collect();
    let all: Vec<String> = [retry.clone()].into_iter().chain(streams).collect();
    let found = ask(store, &standing.group, &all).await?;
    for (stream, found) in all.into_iter().zip(found) {
        let unused = fields.get(&format!("unused:{stream}")).and_then(|since| since.parse().ok());
        let Some(found) = found else { continue };
        // What was handed out of its own stream is deleted when it is settled.
        let own = stream == retry;
        let lag =
            if own { found.length.saturating_sub(found.pending.all) } else { lag(store, &stream, &found).await? };
        if unused.is_none() {
            let Pending { all, free, .. } = found.pending;
            standing.in_flight += all - free.min(all);
            standing.free += free;
            standing.delayed += delayed.get(&stream).copied().unwrap_or(0);
            let oldest = oldest(store, &standing.group, &stream, lag > 0, &found).await?;
            standing.oldest = [standing.oldest, oldest].into_iter().flatten().min();
            for (consumer, count) in found.pending.foreign {
                *standing.foreign.entry(consumer).or_default() += count;
            }
        }
        if own {
            standing.retries = lag;
        } else {
            standing.positions.push(Position { at: GroupPosition { stream, position: found.position, lag }, unused });
        }
    }
    Ok(standing)
}

async fn ask(store: &Store, group: &str, streams: &[String]) -> Result<Vec<Option<Found>>, BusError> {
    let mut ask = Pipeline::new();
    for stream in streams {
        ask.cmd("XINFO").arg("GROUPS").arg(stream);
        ask.cmd("XPENDING").arg(stream).arg(group);
        ask.cmd("XLEN").arg(stream);
    }
    let mut answers = send(store, &ask).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
    let mut all = Vec::with_capacity(streams.len());
    for _ in streams {
        let (groups, pending, length) = (next(), next(), next());
        // A stream or a group that vanished has nothing to tell.
        let found = match (groups, pending, length) {
            (Ok(groups), Ok(pending), Ok(length)) => found(group, groups, pending, &length),
            (groups, pending, length) => match [groups, pending, length].into_iter().find_map(Result::err) {
                Some(Fault::Away(cause)) if !cause.starts_with("ERR") => Err(Fault::Away(cause)),
                _ => Ok(None),
            },
        };
        all.push(found.map_err(|fault| store.told(fault))?);
    }
    Ok(all)
}

fn found(group: &str, groups: Value, pending: Value, length: &Value) -> Result<Option<Found>, Fault> {
    for one in reply::list(groups)? {
        let mut values = BTreeMap::new();
        let mut parts = reply::list(one)?.into_iter();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            values.insert(reply::text(name)?, value);
        }
        if !matches!(values.get("name"), Some(Value::BulkString(name)) if name == group.as_bytes()) {
            continue;
        }
        let position = reply::entry_id(values.remove("last-delivered-id").unwrap_or_default())?;
        let lag = values.get("lag").and_then(|lag| reply::int(lag).ok()).and_then(|lag| u64::try_from(lag).ok());
        return Ok(Some(Found { position, lag, pending: summed(pending)?, length: count(length)? }));
    }
    Ok(None)
}

fn summed(pending: Value) -> Result<Pending, Fault> {
    let mut parts = reply::list(pending)?.into_iter();
    let mut summed = Pending { all: count(&parts.next().unwrap_or(Value::Int(0)))?, ..Pending::default() };
    for (name, count) in reply::pairs(parts.nth(2).unwrap_or_default().flattened())? {
        let (name, count) = (String::from_utf8_lossy(&name), number(&String::from_utf8_lossy(&count)));
        if name == FREE {
            summed.free = count;
        } else if !name.starts_with(CONSUMER) {
            summed.foreign.push((name.into_owned(), count));
        }
    }
    Ok(summed)
}

fn count(value: &Value) -> Result<u64, Fault> {
    Ok(u64::try_from(reply::int(value)?).unwrap_or(0))
}

/// A list of lists as one list.
trait Flattened {
    fn flattened(self) -> Self;
}

impl Flattened for Value {
    fn flattened(self) -> Self {
        let inner = |value| match value {
            Self::Array(values) => values,
            other => vec![other],
        };
        match self {
            Self::Array(values) => Self::Array(values.into_iter().flat_map(inner).collect()),
            other => other,
        }
    }
}

/// Entries after the position.
async fn lag(store: &Store, stream: &str, found: &Found) -> Result<u64, BusError> {
    if let Some(lag) = found.lag {
        return Ok(lag);
    }
    let counted = group::count(store, stream, &found.position.to_string(), "+", Some(COUNTED_MAX)).await?;
    if counted < COUNTED_MAX {
        return Ok(counted);
    }
    // As if they had come evenly.
    let (Some(first), Some(last)) = (edge(store, stream, "XRANGE").await?, edge(store, stream, "XREVRANGE").await?)
    else {
        return Ok(counted);
    };
    let after = last.0.saturating_sub(found.position.0) as f64 / last.0.saturating_sub(first.0).max(1) as f64;
    Ok(counted.max((found.length as f64 * after.min(1.0)) as u64))
}

async fn edge(store: &Store, stream: &str, command: &str) -> Result<Option<EntryId>, BusError> {
    let (from, to) = if command == "XRANGE" { ("-", "+") } else { ("+", "-") };
    first_id(store, redis::cmd(command).arg(stream).arg(from).arg(to).arg("COUNT").arg(1)).await
}

/// The id of the first of the entries that `command` lists.
async fn first_id(store: &Store, command: &redis::Cmd) -> Result<Option<EntryId>, BusError> {
    let answer = store.call(command).await?;
    let id = || -> Result<Option<EntryId>, Fault> {
        let Some(entry) = reply::list(answer)?.into_iter().next() else { return Ok(None) };
        reply::entry_id(reply::list(entry)?.into_iter().next().unwrap_or_default()).map(Some)
    };
    id().map_err(|fault| store.told(fault))
}

/// When the oldest entry was stored that waits to be received.
async fn oldest(
    store: &Store,
    group: &str,
    stream: &str,
    waits: bool,
    found: &Found,
) -> Result<Option<Millis>, BusError> {
    let mut oldest = None;
    if waits {
        let after = format!("({}", found.position);
        oldest = first_id(store, redis::cmd("XRANGE").arg(stream).arg(after).arg("+").arg("COUNT").arg(1)).await?;
    }
    if found.pending.free > 0 {
        let mut pending = redis::cmd("XPENDING");
        pending.arg(stream).arg(group).arg("-").arg("+").arg(1).arg(FREE);
        oldest = [oldest, first_id(store, &pending).await?].into_iter().flatten().min();
    }
    Ok(oldest.and_then(|entry| Millis::try_from(entry.0).ok()))
}
