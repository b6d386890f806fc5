//! Takes over what others left behind: entries given back, and entries of processes that died.
//!
//! A span changes hands by a new owner and a higher epoch, so that whatever its old owner still does is fenced. Who is dead is
//! handed in; the wall clock decides nothing. Takes no more than the caller has room for, so that survivors share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::claim::{Claim, SELECT_EVENTS, count_lost, delivery, lease};
use super::fault::Fault;
use super::span::{self, FREE, Span};
use super::tx::{RETRY_PREFIX, Tx, position};
use crate::bus::{Delivery, ORPHANED_ALONE, Subscription};

/// Adds what could be taken to `deliveries`; true: there is more.
pub(super) fn take(tx: &Tx<'_>, claim: &Claim, deliveries: &mut Vec<Delivery>) -> Result<bool, Fault> {
    let living = living(tx, &claim.dead)?;
    for span in span::others(tx.conn, claim.group.id, tx.me)? {
        if living.contains(&span.owner) {
            continue;
        }
        if span.left == 0 {
            span::delete(tx.conn, span.id)?;
            continue;
        }
        let room = claim.max - deliveries.len();
        if room == 0 {
            return Ok(true);
        }
        let taken = cut(tx, span, room)?;
        deliver(tx, &claim.subscription, taken, deliveries)?;
    }
    Ok(false)
}

/// Processes whose spans are not to be touched.
fn living(tx: &Tx<'_>, dead: &[i64]) -> Result<Vec<i64>, Fault> {
    let mut list = tx.conn.prepare_cached("SELECT id FROM process")?;
    let mut living: Vec<i64> = list.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    living.retain(|id| !dead.contains(id));
    Ok(living)
}

struct Taken {
    span: Span,
    /// The marks in it were left by a death.
    by_death: bool,
}

/// Makes at most `room` entries of `span` ours; the rest stays as it is.
fn cut(tx: &Tx<'_>, span: Span, room: usize) -> Result<Taken, Fault> {
    let by_death = span.owner != FREE;
    let last = span.undone().take(room).last().unwrap_or(span.last);
    let rest_begins = span.undone().find(|seq| *seq > last);
    let mut ours = match rest_begins {
        None => span,
        Some(first) => {
            let ours = span.part(span.first, last);
            let mut rest = span.part(first, span.last);
            rest.id = span.id;
            rest.update(tx.conn)?;
            ours
        }
    };
    ours.owner = tx.me;
    ours.epoch += 1;
    ours.orphaned += i64::from(by_death);
    if ours.id == 0 {
        ours.insert(tx.conn)?
    } else {
        ours.update(tx.conn)?
    }
    Ok(Taken { span: ours, by_death })
}

/// Hands out what was taken. Types that the handler does not ask for (any more) are done with it.
fn deliver(
    tx: &Tx<'_>,
    subscription: &Subscription,
    taken: Taken,
    deliveries: &mut Vec<Delivery>,
) -> Result<(), Fault> {
    let Taken { mut span, by_death } = taken;
    let deaths = if span.orphaned >= i64::from(ORPHANED_ALONE) { deaths(tx, &span, by_death)? } else { HashMap::new() };
    let name: String =
        tx.conn.prepare_cached("SELECT name FROM stream WHERE id = ?")?.query_row([span.stream], |row| row.get(0))?;
    let name: Arc<str> = name.into();
    let chosen = |delivery: &Delivery| {
        name.starts_with(RETRY_PREFIX) || delivery.event.as_ref().map_or(true, |event| subscription.wants(&event.kind))
    };
    let (mut here, mut unwanted) = (HashSet::new(), Vec::new());
    let mut select = tx.conn.prepare_cached(SELECT_EVENTS)?;
    let mut rows = select.query((position(span.stream, span.first), position(span.stream, span.last)))?;
    while let Some(entry) = rows.next()? {
        let mut delivery = delivery(tx, entry, &name)?;
        let seq = delivery.entry.0 as i64;
        here.insert(seq);
        if !span.is_done(seq) && !chosen(&delivery) {
            unwanted.push(seq);
        } else if !span.is_done(seq) {
            delivery.lease = lease(&span);
            delivery.orphaned = span.orphaned as u32;
            delivery.deaths = deaths.get(&seq).copied().unwrap_or(0);
            deliveries.push(delivery);
        }
    }
    let missing: Vec<i64> = span.undone().filter(|seq| !here.contains(seq)).collect();
    if missing.is_empty() && unwanted.is_empty() {
        return Ok(());
    }
    count_lost(tx, span.group, missing.len() as i64)?;
    unwanted.into_iter().chain(missing).for_each(|seq| span.set_done(seq));
    span.update_done(tx.conn)?;
    if span.left == 0 {
        span::delete(tx.conn, span.id)?;
    }
    Ok(())
}

/// Deaths per entry under its mark; a mark that was open when its process died counts one more.
fn deaths(tx: &Tx<'_>, span: &Span, by_death: bool) -> Result<HashMap<i64, u32>, Fault> {
    let range = (span.group, span.stream, span.first, span.last);
    let mut close = tx.conn.prepare_cached(
        "UPDATE mark SET deaths = deaths + ?5, open = 0 \
         WHERE group_id = ?1 AND stream_id = ?2 AND seq >= ?3 AND seq <= ?4 AND open = 1",
    )?;
    close.execute((range.0, range.1, range.2, range.3, by_death))?;
    let mut list = tx.conn.prepare_cached(
        "SELECT seq, deaths FROM mark WHERE group_id = ? AND stream_id = ? AND seq >= ? AND seq <= ?",
    )?;
    Ok(list.query_map(range, |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}
