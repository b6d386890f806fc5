//! Settles runs: the one step in which everything a run did comes true, or nothing of it.
//!
//! Owns the order of the checks (ownership, record, reads, writes) and of the effects. Every expected refusal is found before
//! the first write of a run, so no run needs a savepoint of its own; only when SQLite itself fails in the middle, the
//! writer rolls back and does the batch again, with one per run, so that a run does not take its batch mates down.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::fault::Fault;
use super::group::Group;
use super::span::{self, Span};
use super::tx::{RETRY_PREFIX, Tx};
use super::{carried, dead, due, group, record, state, step};
use crate::bus::{Answer, DeadId, Delivery, ORPHANED_ALONE, Past, Run, Settling, Subscription};
use crate::failpoint;
use crate::judge::Verdict;

/// Whose runs are settled.
pub(super) struct Settler<'a> {
    pub(super) subscription: &'a Subscription,
    pub(super) group: &'a Group,
}

/// What settling a batch came to.
pub(super) struct Settled {
    pub(super) answers: Vec<Answer>,
    /// Spans that are done as a whole now.
    pub(super) full: Vec<i64>,
}

/// Settles `runs` in order.
pub(super) fn settle(tx: &mut Tx<'_>, settler: &Settler<'_>, runs: &[Run]) -> Result<Settled, Fault> {
    let mut book = Book::default();
    let mut answers = Vec::with_capacity(runs.len());
    for run in runs {
        answers.push(match tx.apart {
            false => settle_run(tx, settler, &mut book, run)?,
            true => settle_apart(tx, settler, &mut book, run)?,
        });
    }
    finish(tx, book, answers)
}

/// Settles a run under a savepoint; if SQLite fails on it, it alone is invalid.
fn settle_apart(tx: &mut Tx<'_>, settler: &Settler<'_>, book: &mut Book, run: &Run) -> Result<Answer, Fault> {
    let (mark, before) = (tx.save()?, book.clone());
    match settle_run(tx, settler, book, run) {
        Ok(answer) => {
            tx.keep()?;
            Ok(answer)
        }
        Err(fault) if fault.is_environment() => Err(fault),
        Err(fault) => {
            tx.undo(mark)?;
            // What it noted as done is not done.
            *book = before;
            Ok(Answer::Invalid { reason: fault.to_string() })
        }
    }
}

fn finish(tx: &mut Tx<'_>, book: Book, answers: Vec<Answer>) -> Result<Settled, Fault> {
    let mut full = Vec::new();
    for span in book.spans.into_values().flatten().filter(|page| page.changed) {
        span.span.update_done(tx.conn)?;
        if span.span.left == 0 {
            full.push(span.span.id);
        }
    }
    release(tx, book.released)?;
    Ok(Settled { answers, full })
}

/// The spans that a batch touches, as they will be.
#[derive(Clone, Default)]
struct Book {
    spans: HashMap<i64, Option<Page>>,
    released: Vec<Released>,
}

#[derive(Clone)]
struct Page {
    span: Span,
    changed: bool,
}

/// An entry that goes back.
#[derive(Clone)]
struct Released {
    group: i64,
    stream: i64,
    seq: i64,
    orphaned: i64,
}

impl Book {
    fn page(&mut self, tx: &Tx<'_>, id: i64) -> Result<Option<&mut Page>, Fault> {
        let page = match self.spans.entry(id) {
            Entry::Occupied(page) => page.into_mut(),
            Entry::Vacant(empty) => {
                let span = span::find(tx.conn, id)?;
                empty.insert(span.map(|span| Page { span, changed: false }))
            }
        };
        Ok(page.as_mut())
    }
}

/// The number under which the store knows a delivery's claim, and the entry.
fn place(delivery: &Delivery) -> (i64, i64) {
    (delivery.lease.claim as i64, delivery.entry.0 as i64)
}

fn settle_run(tx: &mut Tx<'_>, settler: &Settler<'_>, book: &mut Book, run: &Run) -> Result<Answer, Fault> {
    if let Some(answer) = ownership(tx, settler, book, run)? {
        return Ok(answer);
    }
    if let Some(answer) = taken(tx, run)? {
        run.steps.map_or(Ok(()), |event| step::forget_unlettered(tx, event))?;
        acknowledge_taken(tx, settler, book, run)?;
        return Ok(answer);
    }
    let gives_back = run.deliveries.iter().all(|settling| settling.verdict == Verdict::Release);
    if !gives_back && let Some(key) = state::changed(tx, &run.reads)? {
        return Ok(Answer::Conflict { key });
    }
    let puts = match state::plan(tx, &run.effects.writes)? {
        Ok(puts) => puts,
        Err(reason) => return Ok(Answer::Invalid { reason }),
    };
    if let Some(emit) = run.effects.events.iter().find(|emit| emit.stream.starts_with(RETRY_PREFIX)) {
        return Ok(Answer::Invalid {
            reason: format!("stream {:?} belongs to the host; emit to another one", emit.stream),
        });
    }
    state::put(tx, &puts)?;
    due::take_back(tx, settler.group.id, &run.effects.cancels)?;
    due::publish(tx, &run.effects.events, Some(settler.group.id))?;
    let mut given_up = None;
    for settling in &run.deliveries {
        given_up = end(tx, settler, book, run, settling)?.or(given_up);
    }
    write_record(tx, run, given_up)?;
    end_steps(tx, run)?;
    Ok(Answer::Done { dead: given_up })
}

/// `None`: all deliveries are ours and none is settled.
fn ownership(tx: &mut Tx<'_>, settler: &Settler<'_>, book: &mut Book, run: &Run) -> Result<Option<Answer>, Fault> {
    let (mut settled, mut all) = (0, run.deliveries.len());
    for settling in &run.deliveries {
        if carried::is_at_carrier(&settling.delivery) {
            let Some(fenced) = carried::is_settled(tx, settler.group.id, &settling.delivery)? else {
                return Ok(Some(Answer::StoreReset));
            };
            // What goes back to the carrier is settled there, and leaves no fence here.
            let goes_back = settling.verdict == Verdict::Release;
            all -= usize::from(goes_back);
            settled += usize::from(fenced && !goes_back);
            continue;
        }
        let (id, seq) = place(&settling.delivery);
        let Some(page) = book.page(tx, id)? else {
            let exists = group::find(tx.conn, settler.group.id)?.is_some();
            return Ok(Some(if exists { Answer::Fenced } else { Answer::StoreReset }));
        };
        let span = &page.span;
        let ours = span.owner == tx.me && span.epoch as u64 == settling.delivery.lease.epoch && span.contains(seq);
        if !ours {
            return Ok(Some(Answer::Fenced));
        }
        settled += usize::from(span.is_done(seq));
    }
    Ok(match settled {
        0 => None,
        settled if settled == all => Some(Answer::AlreadyMine),
        _ => Some(Answer::Fenced),
    })
}

/// Whether the run's record is held already, by us or by another delivery.
fn taken(tx: &mut Tx<'_>, run: &Run) -> Result<Option<Answer>, Fault> {
    let (Some(wanted), Some(first)) = (&run.record, run.deliveries.first()) else { return Ok(None) };
    if !run.deliveries.iter().any(|settling| ends(&settling.verdict)) {
        return Ok(None);
    }
    let Some(found) = record::find(tx.conn, wanted.key, tx.now)? else { return Ok(None) };
    let replay_of = first.delivery.past.as_ref().and_then(|past| past.replay_of);
    if replay_of.is_some() && found.dead == replay_of {
        return Ok(None);
    }
    let origin = record::origin(tx, &first.delivery)?;
    if (found.stream, found.entry, found.attempt) == origin {
        return Ok(Some(Answer::AlreadyMine));
    }
    Ok(Some(Answer::Duplicate { by: record::by(tx.conn, &found)? }))
}

fn ends(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Commit | Verdict::Dead { .. })
}

fn acknowledge_taken(tx: &mut Tx<'_>, settler: &Settler<'_>, book: &mut Book, run: &Run) -> Result<(), Fault> {
    for settling in &run.deliveries {
        dead::replay_skipped(tx, &settling.delivery)?;
        acknowledge(tx, settler, book, &settling.delivery)?;
    }
    Ok(())
}

/// Applies a verdict to its delivery; answers the dead letter, if it became one.
fn end(
    tx: &mut Tx<'_>,
    settler: &Settler<'_>,
    book: &mut Book,
    run: &Run,
    settling: &Settling,
) -> Result<Option<DeadId>, Fault> {
    let delivery = &*settling.delivery;
    let mut given_up = None;
    match &settling.verdict {
        Verdict::Commit => dead::replay_done(tx, delivery)?,
        Verdict::Skip { .. } => dead::replay_skipped(tx, delivery)?,
        Verdict::Retry { delay, counted, failure } => {
            failpoint::reached("retry.before");
            let past = Past::after(delivery, failure, &run.version, tx.now, *counted).with_steps(run.steps);
            due::retry(tx, settler.group, delivery, &past, *delay)?;
        }
        Verdict::Dead { reason, failure } => {
            failpoint::reached("dead.before");
            let failures = Past::after(delivery, failure, &run.version, tx.now, true).failures;
            let letter = dead::Letter { settler, run, delivery, reason: *reason, failures: &failures };
            given_up = Some(dead::bury(tx, &letter)?);
        }
        Verdict::Release => return failpoint::after("release.before", give_back(tx, book, delivery)).map(|()| None),
    }
    acknowledge(tx, settler, book, delivery)?;
    Ok(given_up)
}

fn acknowledge(tx: &mut Tx<'_>, settler: &Settler<'_>, book: &mut Book, delivery: &Delivery) -> Result<(), Fault> {
    if carried::is_at_carrier(delivery) {
        return carried::settle(tx, settler.group.id, delivery);
    }
    let (id, seq) = place(delivery);
    let Some(page) = book.page(tx, id)? else { return Ok(()) };
    page.span.set_done(seq);
    page.changed = true;
    if delivery.orphaned >= ORPHANED_ALONE {
        page.span.unmark(tx.conn, seq)?;
    }
    Ok(())
}

/// The entry leaves its span for one that anybody may take; its mark no longer counts a death.
fn give_back(tx: &Tx<'_>, book: &mut Book, delivery: &Delivery) -> Result<(), Fault> {
    let (id, seq) = place(delivery);
    let Some(page) = book.page(tx, id)? else { return Ok(()) };
    page.span.set_done(seq);
    page.changed = true;
    let span = &page.span;
    let released = Released { group: span.group, stream: span.stream, seq, orphaned: span.orphaned };
    if delivery.orphaned >= ORPHANED_ALONE {
        let sql = "UPDATE mark SET open = 0 WHERE group_id = ? AND stream_id = ? AND seq = ?";
        tx.conn.prepare_cached(sql)?.execute((span.group, span.stream, seq))?;
    }
    book.released.push(released);
    Ok(())
}

/// Neighbours go back together, as one free span.
fn release(tx: &mut Tx<'_>, mut released: Vec<Released>) -> Result<(), Fault> {
    released.sort_unstable_by_key(|entry| (entry.stream, entry.orphaned, entry.seq));
    for together in released.chunk_by(|a, b| a.stream == b.stream && a.orphaned == b.orphaned && a.seq + 1 == b.seq) {
        let (Some(first), Some(last)) = (together.first(), together.last()) else { continue };
        let mut span = Span::new(first.group, first.stream, first.seq, last.seq, span::FREE);
        span.orphaned = first.orphaned;
        span.insert(tx.conn)?;
        tx.news.freed.push(first.group);
    }
    Ok(())
}

/// What was recorded of the event's steps goes with it, or stays with its dead letter.
fn end_steps(tx: &Tx<'_>, run: &Run) -> Result<(), Fault> {
    let Some(event) = run.steps else { return Ok(()) };
    let is = |verdict: fn(&Verdict) -> bool| run.deliveries.iter().any(|settling| verdict(&settling.verdict));
    if is(|verdict| matches!(verdict, Verdict::Dead { .. })) {
        step::keep(tx, event)
    } else if is(|verdict| *verdict == Verdict::Commit) {
        step::forget(tx, event)
    } else {
        Ok(())
    }
}

fn write_record(tx: &mut Tx<'_>, run: &Run, dead: Option<DeadId>) -> Result<(), Fault> {
    let (Some(wanted), Some(first)) = (&run.record, run.deliveries.first()) else { return Ok(()) };
    if run.deliveries.iter().any(|settling| ends(&settling.verdict)) {
        let origin = record::origin(tx, &first.delivery)?;
        record::write(tx, wanted, origin, dead)?;
    }
    Ok(())
}

/// Writes the mark of an entry that runs alone; false: it is not ours any more.
pub(super) fn mark(tx: &Tx<'_>, delivery: &Delivery) -> Result<bool, Fault> {
    let (id, seq) = place(delivery);
    let Some(span) = span::find(tx.conn, id)? else { return Ok(false) };
    let ours = span.owner == tx.me && span.epoch as u64 == delivery.lease.epoch;
    if !ours || span.is_done(seq) {
        return Ok(false);
    }
    let sql =
        "INSERT INTO mark(group_id, stream_id, seq, deaths, open) VALUES(?,?,?,0,1) ON CONFLICT DO UPDATE SET open = 1";
    tx.conn.prepare_cached(sql)?.execute((span.group, span.stream, seq))?;
    Ok(true)
}
