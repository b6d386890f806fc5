//! Takes over what others left behind: entries given back, and entries of processes that died.
//!
//! A span changes hands by a new owner and a higher epoch, so that whatever its old owner still does is fenced. Who is dead is
//! handed in; the wall clock decides nothing. Takes no more than the caller has room for, so that survivors share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::claim::{Claim, SELECT_EVENTS, count_lost, delivery, is_wanted, lease};
use super::fault::Fault;
use super::process::Still;
use super::span::{self, FREE, Span};
use super::tx::{Tx, position, seq_of};
use crate::bus::{Delivery, ORPHANED_ALONE};
use crate::failpoint;

/// Adds what could be taken to `deliveries`; true: there is more.
pub(super) fn take(tx: &Tx<'_>, claim: &Claim, deliveries: &mut Vec<Delivery>) -> Result<bool, Fault> {
    let living = living(tx, &claim.dead)?;
    let mut more = false;
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
        failpoint::reached("takeover.before");
        let taken = cut(tx, span, room)?;
        more |= taken.more;
        deliver(tx, claim, taken, deliveries)?;
        failpoint::reached("takeover.sent");
    }
    Ok(more)
}

/// Processes whose spans are not to be touched: also one whose counter moved after it was taken for dead.
fn living(tx: &Tx<'_>, dead: &[Still]) -> Result<Vec<i64>, Fault> {
    let mut list = tx.conn.prepare_cached("SELECT id, beat FROM process")?;
    let mut living: Vec<Still> =
        list.query_map([], |row| Ok(Still { process: row.get(0)?, beat: row.get(1)? }))?.collect::<Result<_, _>>()?;
    living.retain(|one| !dead.contains(one));
    Ok(living.into_iter().map(|one| one.process).collect())
}

struct Taken {
    span: Span,
    /// The marks in it were left by a death.
    by_death: bool,
    /// A rest stays behind.
    more: bool,
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
    Ok(Taken { span: ours, by_death, more: rest_begins.is_some() })
}

/// Delivers what is there and asked for; the rest is settled: what the handler no longer asks for, and what was trimmed.
fn deliver(tx: &Tx<'_>, claim: &Claim, taken: Taken, deliveries: &mut Vec<Delivery>) -> Result<(), Fault> {
    let Taken { mut span, by_death, .. } = taken;
    let deaths = if span.orphaned >= i64::from(ORPHANED_ALONE) { deaths(tx, &span, by_death)? } else { HashMap::new() };
    let name: String =
        tx.conn.prepare_cached("SELECT name FROM stream WHERE id = ?")?.query_row([span.stream], |row| row.get(0))?;
    let name: Arc<str> = name.into();
    let own = span.stream == claim.group.retry;
    let (mut delivered, mut unwanted) = (HashSet::new(), HashSet::new());
    let mut select = tx.conn.prepare_cached(SELECT_EVENTS)?;
    let mut rows = select.query((position(span.stream, span.first), position(span.stream, span.last)))?;
    while let Some(entry) = rows.next()? {
        let seq = seq_of(entry.get(0)?);
        if span.is_done(seq) {
            continue;
        }
        if !own && !is_wanted(entry, &claim.subscription)? {
            unwanted.insert(seq);
            continue;
        }
        let mut delivery = delivery(tx, entry, &name)?;
        delivery.lease = lease(&span);
        delivery.orphaned = span.orphaned as u32;
        delivery.deaths = deaths.get(&seq).copied().unwrap_or(0);
        deliveries.push(delivery);
        delivered.insert(seq);
    }
    let others: Vec<i64> = span.undone().filter(|seq| !delivered.contains(seq)).collect();
    end_unrun(tx, &mut span, &others)?;
    match others.len() - unwanted.len() {
        0 => Ok(()),
        trimmed => count_lost(tx, span.group, trimmed as i64),
    }
}

/// Settles entries of `span` without a run.
fn end_unrun(tx: &Tx<'_>, span: &mut Span, entries: &[i64]) -> Result<(), Fault> {
    for seq in entries {
        span.set_done(*seq);
        span.unmark(tx.conn, *seq)?;
    }
    if span.left == 0 {
        span::delete(tx.conn, span.id)?;
    } else if !entries.is_empty() {
        span.update_done(tx.conn)?;
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

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_counter_that_moved_again_belongs_to_the_living() {
        let conn = Connection::open_in_memory().expect("memory opens");
        conn.execute_batch(include_str!("schema.sql")).expect("the schema is valid");
        let beat = |beat: i64| {
            let sql = "INSERT OR REPLACE INTO process(id, name, beat, started_at) VALUES(1, 'a', ?, 0), (2, 'b', 9, 0)";
            conn.execute(sql, [beat]).expect("the row is written");
        };
        let tx = Tx::new(&conn, 0, 3, false);
        let dead = [Still { process: 1, beat: 5 }];
        beat(5);
        assert_eq!(living(&tx, &dead).expect("the table is readable"), [2]);
        beat(6);
        assert_eq!(living(&tx, &dead).expect("the table is readable"), [1, 2]);
    }
}
