//! Takes entries for one handler: first what others left behind, then what is new.
//!
//! Claiming writes one span and one cursor per stream, whatever the number of entries. Entries of types that the handler
//! does not ask for are done when they are claimed; where none is asked for, only the cursor moves.

use std::sync::Arc;

use rusqlite::OptionalExtension;
use rusqlite::types::ValueRef;

use super::fault::Fault;
use super::group::{self, Group, Source};
use super::process::Still;
use super::row;
use super::span::{self, Span};
use super::takeover;
use super::tx::{Tx, entry_id, position, seq_of};
use crate::bus::past;
use crate::bus::{Delivery, Lease, Subscription, Undecodable};

/// Entries looked at in one claim, wanted or not: bounds the time of a transaction.
const LOOKED_AT_MAX: usize = 4096;

/// What to claim, and for whom.
#[derive(Clone)]
pub(super) struct Claim {
    pub(super) subscription: Arc<Subscription>,
    pub(super) group: Group,
    /// Deliveries wanted, at least 1.
    pub(super) max: usize,
    /// The source to begin with.
    pub(super) turn: usize,
    /// Look for what others left behind; `dead` are the processes known to be dead.
    pub(super) take_over: bool,
    pub(super) dead: Vec<Still>,
    /// Our own spans that are done, and not needed to recognise a repeated settle any more.
    pub(super) done: Vec<i64>,
}

/// What was claimed.
pub(super) struct Claimed {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) group: Group,
    /// There may be more of what others left behind.
    pub(super) more_left: bool,
    /// There may be more new entries.
    pub(super) more_new: bool,
}

/// Claims at most `claim.max` entries.
pub(super) fn claim(tx: &mut Tx<'_>, claim: &Claim) -> Result<Claimed, Fault> {
    let mut claim = claim.clone();
    for id in &claim.done {
        span::delete(tx.conn, *id)?;
    }
    if group::find(tx.conn, claim.group.id)?.is_none() {
        tracing::warn!(group = %claim.subscription.group, "the group vanished from the store; it is created again");
        claim.group = group::open(tx, &claim.subscription)?.0;
    }
    group::discover(tx, &claim.subscription, &mut claim.group)?;
    let mut deliveries = Vec::new();
    let mut more_left = false;
    if claim.take_over {
        more_left = takeover::take(tx, &claim, &mut deliveries)?;
    }
    let mut looked_at = 0;
    let mut more_new = false;
    let sources = claim.group.sources.len();
    for at in 0..sources {
        let source = &claim.group.sources[(claim.turn + at) % sources];
        if deliveries.len() >= claim.max || looked_at >= LOOKED_AT_MAX {
            more_new = true;
            break;
        }
        more_new |= new_entries(tx, &claim, source, &mut deliveries, &mut looked_at)?;
    }
    Ok(Claimed { deliveries, group: claim.group, more_left, more_new })
}

/// Claims from one stream; true: there may be more.
fn new_entries(
    tx: &Tx<'_>,
    claim: &Claim,
    source: &Source,
    deliveries: &mut Vec<Delivery>,
    looked_at: &mut usize,
) -> Result<bool, Fault> {
    let Some(start) = start(tx, claim.group.id, source.id)? else { return Ok(false) };
    if start.position >= start.last {
        return Ok(false);
    }
    let room = claim.max - deliveries.len();
    let from = deliveries.len();
    let reach = Reach { after: start.position, last: start.last, budget: LOOKED_AT_MAX - *looked_at };
    let mut found = scan(tx, claim, source, room, reach, deliveries)?;
    *looked_at += found.looked_at;
    let end = found.end;
    if let (Some(first), Some(last)) = (found.wanted.first().copied(), found.wanted.last().copied()) {
        let mut span = Span::new(claim.group.id, source.id, first, last, tx.me);
        found.wanted.reverse();
        for seq in first..=last {
            match found.wanted.last() {
                Some(wanted) if *wanted == seq => drop(found.wanted.pop()),
                _ => span.set_done(seq),
            }
        }
        span.insert(tx.conn)?;
        deliveries[from..].iter_mut().for_each(|delivery| delivery.lease = lease(&span));
    }
    advance(tx, claim.group.id, source.id, end)?;
    Ok(end < start.last)
}

/// The right to settle entries of `span`.
pub(super) fn lease(span: &Span) -> Lease {
    Lease { claim: span.id as u64, epoch: span.epoch as u64 }
}

struct Start {
    position: i64,
    last: i64,
}

/// Where the group stands on a stream. What was trimmed before it was read is counted, once, and passed over.
fn start(tx: &Tx<'_>, group: i64, stream: i64) -> Result<Option<Start>, Fault> {
    let mut find = tx.conn.prepare_cached(
        "SELECT c.position, s.first_seq, s.last_seq FROM cursor c JOIN stream s ON s.id = c.stream_id \
         WHERE c.group_id = ? AND c.stream_id = ?",
    )?;
    let found: Option<(i64, i64, i64)> =
        find.query_row((group, stream), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let Some((position, first, last)) = found else { return Ok(None) };
    let trimmed = first - 1 - position;
    if trimmed > 0 {
        count_lost(tx, group, trimmed)?;
        advance(tx, group, stream, first - 1)?;
    }
    Ok(Some(Start { position: position.max(first - 1), last }))
}

/// Counts entries of a group that were gone before they were settled.
pub(super) fn count_lost(tx: &Tx<'_>, group: i64, entries: i64) -> Result<(), Fault> {
    tx.conn.prepare_cached("UPDATE consumer SET lost = lost + ?2 WHERE id = ?1")?.execute((group, entries))?;
    Ok(())
}

fn advance(tx: &Tx<'_>, group: i64, stream: i64, to: i64) -> Result<(), Fault> {
    let mut advance =
        tx.conn.prepare_cached("UPDATE cursor SET position = ?3 WHERE group_id = ?1 AND stream_id = ?2")?;
    advance.execute((group, stream, to))?;
    Ok(())
}

struct Reach {
    after: i64,
    last: i64,
    budget: usize,
}

struct Found {
    /// Entries to deliver, in order.
    wanted: Vec<i64>,
    looked_at: usize,
    /// The last entry that is claimed, wanted or not.
    end: i64,
}

fn scan(
    tx: &Tx<'_>,
    claim: &Claim,
    source: &Source,
    room: usize,
    reach: Reach,
    deliveries: &mut Vec<Delivery>,
) -> Result<Found, Fault> {
    let mut select = tx.conn.prepare_cached(SELECT_EVENTS)?;
    let mut rows = select.query((position(source.id, reach.after + 1), position(source.id, reach.last)))?;
    let mut found = Found { wanted: Vec::new(), looked_at: 0, end: reach.last };
    let own = source.id == claim.group.retry;
    while let Some(entry) = rows.next()? {
        if found.wanted.len() >= room || found.looked_at >= reach.budget {
            found.end = seq_of(entry.get(0)?) - 1;
            break;
        }
        found.looked_at += 1;
        if own || is_wanted(entry, &claim.subscription)? {
            let delivery = delivery(tx, entry, &source.name)?;
            found.wanted.push(delivery.entry.0 as i64);
            deliveries.push(delivery);
        }
    }
    Ok(found)
}

/// Entries from a position to another one, in the columns that [`delivery`] reads.
pub(super) const SELECT_EVENTS: &str = "SELECT pos, id, source, type, subject, time, dataschema, correlation_id, \
     causation_id, traceparent, ext, data, past FROM event WHERE pos >= ? AND pos <= ? ORDER BY pos";

/// Whether the handler asks for the entry's type; what has no type is delivered, to be given up.
pub(super) fn is_wanted(entry: &rusqlite::Row<'_>, subscription: &Subscription) -> Result<bool, Fault> {
    Ok(match entry.get_ref(1 + row::KIND)? {
        ValueRef::Text(kind) => std::str::from_utf8(kind).map_or(true, |kind| subscription.wants(kind)),
        _ => true,
    })
}

/// The delivery of a row of [`SELECT_EVENTS`], without its lease.
pub(super) fn delivery(tx: &Tx<'_>, entry: &rusqlite::Row<'_>, stream: &Arc<str>) -> Result<Delivery, Fault> {
    let mut event = row::read(entry, 1)?;
    let past = match entry.get_ref(1 + row::WIDTH)? {
        ValueRef::Null => None,
        ValueRef::Text(text) | ValueRef::Blob(text) => match past::read(text) {
            Ok(past) => Some(Box::new(past)),
            Err(error) => {
                event = Err(undecodable(entry, format!("what it went through is not readable: {error}"))?);
                None
            }
        },
        other => {
            event = Err(undecodable(entry, format!("column past is {}, not text", other.data_type()))?);
            None
        }
    };
    Ok(Delivery {
        lease: Lease { claim: 0, epoch: 0 },
        stream: stream.clone(),
        entry: entry_id(seq_of(entry.get(0)?)),
        event,
        lay: None,
        past,
        orphaned: 0,
        deaths: 0,
        received: tx.now,
    })
}

fn undecodable(entry: &rusqlite::Row<'_>, reason: String) -> Result<Undecodable, Fault> {
    Ok(Undecodable { reason, fields: row::fields(entry, 1)? })
}
