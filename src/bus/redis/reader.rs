//! Reads for one inbox: first what others left behind, then what is new.
//!
//! Never blocks inside the server. When nothing is found, the bell is told what the last entries were *before* the read, so
//! that whatever came after them rings. What was trimmed unread is counted before the read as well: it goes past the gap.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::{Pipeline, Value};

use super::beat::Beat;
use super::door::{Door, Reasons};
use super::entry::{self, Read};
use super::fault::Fault;
use super::store::Store;
use super::takeover::{self, Found};
use super::{group, reply};
use crate::bus::Delivery;
use crate::event::EntryId;
use crate::failpoint;

/// Reads once, and enters in the door's books what was found.
pub(super) async fn read(store: Arc<Store>, beat: Arc<Beat>, door: Arc<Door>, max: usize) {
    let reasons = door.reasons();
    match gather(&store, &beat, &door, max, &reasons).await {
        _ if store.is_closed() => {}
        _ if door.is_closed() => {
            store.give_back_later(&door);
            door.read_in_vain();
        }
        Ok(read) => door.read(read.deliveries, read.more),
        Err(fault) => {
            door.again(&reasons);
            if let Fault::NoGroup = fault {
                door.ring_reopen();
                door.read(Vec::new(), true);
            } else {
                door.read_failed(store.told(fault));
            }
        }
    }
}

struct Gathered {
    deliveries: Vec<Delivery>,
    /// There may be more.
    more: bool,
}

async fn gather(
    store: &Store,
    beat: &Beat,
    door: &Arc<Door>,
    max: usize,
    reasons: &Reasons,
) -> Result<Gathered, Fault> {
    if reasons.reopen {
        store.known.forget();
        reopen(store, door).await?;
    }
    let mut deliveries = Vec::new();
    if reasons.left {
        let left = match left_behind(store, beat, door, max, &mut deliveries).await {
            Err(fault) if deliveries.is_empty() => return Err(fault),
            // What was found already is in hand: it is handed out, and the rest is looked for again.
            Err(_) => true,
            Ok(more) => more,
        };
        door.again(&Reasons { left, reopen: false });
    }
    if !deliveries.is_empty() {
        return Ok(Gathered { deliveries, more: true });
    }
    new_entries(store, door, max).await
}

/// Creates again what vanished, and joins the streams that appeared.
async fn reopen(store: &Store, door: &Door) -> Result<(), Fault> {
    let mut sources = door.sources();
    let named: Vec<String> = sources.iter().filter(|source| **source != door.retry).map(ToString::to_string).collect();
    group::reopen(store, &door.subscription, &named).await?;
    if !door.subscription.discover.is_empty() {
        let known = named.into_iter().collect();
        let new = group::appeared(store, &door.subscription, &known).await?;
        sources.extend(new.into_iter().map(Arc::from));
        door.set_sources(sources);
    }
    Ok(())
}

/// Our own pending entries that nobody holds, then those of others; true: there may be more.
async fn left_behind(
    store: &Store,
    beat: &Beat,
    door: &Arc<Door>,
    max: usize,
    deliveries: &mut Vec<Delivery>,
) -> Result<bool, Fault> {
    let group = &door.subscription.group;
    let read: Vec<_> = door.sources().into_iter().map(|stream| (stream, group.clone())).collect();
    let owners = takeover::orphans(store, beat, &read).await?;
    for ((stream, _), owners) in read.iter().zip(owners) {
        let mut after = Some(EntryId(0, 0));
        while let Some(from) = after {
            if deliveries.len() >= max {
                return Ok(true);
            }
            let held = door.with_held(|held| held.entries(stream));
            let is_held = |entry| held.contains(&entry);
            let room = max - deliveries.len();
            let (own, next) = takeover::own_pending(store, stream, group, from, room, is_held).await?;
            deliveries.extend(take_in(store, door, stream, own));
            after = next;
        }
        if owners.is_empty() {
            continue;
        }
        failpoint::reached("takeover.before");
        let taking = takeover::take_over(store, stream, group, &owners, max - deliveries.len());
        let taken = failpoint::during("takeover.sent", taking).await?;
        failpoint::reached("takeover.after");
        deliveries.extend(take_in(store, door, stream, taken.entries));
        if taken.more {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is new in all streams of the inbox.
async fn new_entries(store: &Store, door: &Arc<Door>, max: usize) -> Result<Gathered, Fault> {
    let sources = door.sources();
    let unwanted = door.take_unwanted();
    let mut request = Pipeline::new();
    acknowledge(&mut request, &door.subscription.group, &unwanted);
    let besides = request.len();
    request.add_command(store.look_call(sources.iter().map(|stream| &**stream)));
    read_call(&mut request, store, door, &sources, max);
    failpoint::reached("claim.before");
    let answers = failpoint::during("claim.sent", store.link.send(&request)).await;
    let answers = answers.inspect_err(|_| door.put_back_unwanted(unwanted))?;
    let mut answers = answers.into_iter().skip(besides);
    let (look, read) = (answers.next(), answers.next());
    let read = read.unwrap_or(Ok(Value::Nil))?;
    let looked = match look.unwrap_or(Ok(Value::Nil)) {
        Ok(looked) => Some(store.looked(sources.iter().map(|stream| &**stream), looked)?),
        Err(Fault::NoScript) => None,
        Err(fault) => return Err(fault),
    };
    let found = entries(read)?;
    if found.is_empty() {
        match looked {
            Some(last) => store.bell.arm(door, sources.into_iter().zip(last)),
            None => {
                store.procedures.look.load(&store.link).await?;
                return Ok(Gathered { deliveries: Vec::new(), more: true });
            }
        }
        return Ok(Gathered { deliveries: Vec::new(), more: false });
    }
    failpoint::reached("claim.after");
    let each = found.into_iter().map(|(name, found)| {
        let stream = sources.iter().find(|source| ***source == *name).cloned().unwrap_or_else(|| name.into());
        take_in(store, door, &stream, found)
    });
    Ok(Gathered { deliveries: in_turns(each.collect(), door.next_turn()), more: true })
}

fn acknowledge(request: &mut Pipeline, group: &str, entries: &[(Arc<str>, EntryId)]) {
    for of_one in entries.chunk_by(|(a, _), (b, _)| a == b) {
        let mut call = redis::cmd("XACK");
        call.arg(&*of_one[0].0).arg(group);
        for (_, entry) in of_one {
            call.arg(entry.to_string());
        }
        request.add_command(call);
    }
}

fn read_call(request: &mut Pipeline, store: &Store, door: &Door, sources: &[Arc<str>], max: usize) {
    let mut call = redis::cmd("XREADGROUP");
    call.arg("GROUP").arg(&*door.subscription.group).arg(&store.consumer).arg("COUNT").arg(max).arg("STREAMS");
    for stream in sources {
        call.arg(&**stream);
    }
    for _ in sources {
        call.arg(">");
    }
    request.add_command(call);
}

/// The entries of each stream in the answer to a read.
fn entries(read: Value) -> Result<Vec<(String, Vec<Found>)>, Fault> {
    let streams = match read {
        Value::Map(streams) => streams.into_iter().map(|(name, entries)| Value::Array(vec![name, entries])).collect(),
        other => reply::list(other)?,
    };
    let mut all = Vec::with_capacity(streams.len());
    for stream in streams {
        let mut parts = reply::list(stream)?.into_iter();
        let name = reply::text(parts.next().unwrap_or_default())?;
        let found = reply::list(parts.next().unwrap_or_default())?.into_iter().map(|entry| {
            let (entry, fields) = reply::entry(entry)?;
            Ok(Found { entry, fields: fields.unwrap_or_default(), count: 1, deaths: 0 })
        });
        all.push((name, found.collect::<Result<_, Fault>>()?));
    }
    Ok(all)
}

/// Makes deliveries of what was found, and notes what nobody asked for.
fn take_in(store: &Store, door: &Door, stream: &Arc<str>, found: Vec<Found>) -> Vec<Delivery> {
    let own = *stream == door.retry;
    let streams = &store.options.streams;
    let layouts = streams.layouts(stream);
    let mut wanted = Vec::with_capacity(found.len());
    for mut found in found {
        // Most of what nobody asks for is not even read.
        let asked = own || layouts.kind(&found.fields).is_none_or(|kind| door.subscription.wants(kind));
        let read = asked.then(|| match (own, std::mem::take(&mut found.fields)) {
            (true, fields) => entry::read_own(streams, stream, found.entry, fields),
            (false, fields) => entry::read(streams, stream, found.entry, fields),
        });
        let asked = |read: &Read| own || read.event.as_ref().map_or(true, |event| door.subscription.wants(&event.kind));
        match read.filter(asked) {
            Some(read) => wanted.push((found, read)),
            None => door.unwanted(stream, found.entry),
        }
    }
    let ids: Vec<_> = wanted.iter().map(|(found, _)| (found.entry, found.count)).collect();
    let leases = door.with_held(|held| held.take_in(stream, &ids));
    let received = store.now();
    let deliveries = wanted.into_iter().zip(leases).map(|((found, read), lease)| Delivery {
        lease,
        stream: stream.clone(),
        entry: found.entry,
        event: read.event,
        lay: read.lay,
        past: read.past.map(Box::new),
        orphaned: found.orphaned(),
        deaths: found.deaths,
        received,
    });
    deliveries.collect()
}

/// One of each stream in turn, beginning with another one each time.
fn in_turns(mut each: Vec<Vec<Delivery>>, turn: usize) -> Vec<Delivery> {
    if each.len() == 1 {
        return each.remove(0);
    }
    let streams = each.len().max(1);
    each.rotate_left(turn % streams);
    let mut queues: Vec<VecDeque<_>> = each.into_iter().map(VecDeque::from).collect();
    let mut all = Vec::new();
    while queues.iter().any(|queue| !queue.is_empty()) {
        all.extend(queues.iter_mut().filter_map(VecDeque::pop_front));
    }
    all
}
