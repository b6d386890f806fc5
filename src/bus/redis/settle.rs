//! A settle, as the server's script takes it, and what it answers.
//!
//! Owns the order of the arguments of `scripts/settle.lua` and the letters of verdicts and answers. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use sha1_smol::Sha1;

use super::args::{Args, lifetime, millis};
use super::fault::Fault;
use super::held::{self, Held, Stretch};
use super::reply::{self, parse_id};
use super::store::Store;
use super::{dead, entry};
use crate::bus::{Answer, DeadId, Delivery, Lease, ORPHANED_ALONE, Past, Run, Settling, Subscription};
use crate::clock::Millis;
use crate::event::EntryId;
use crate::failpoint;
use crate::judge::Verdict;
use crate::outcome::{Change, Emit, Read, Seen, Write};

/// Answers of the last settles that the server keeps per inbox.
const RECEIPTS: u64 = 64;
/// Larger values are compared by length and hash.
const COMPARED_BYTES_MAX: usize = 256;
/// Entries that may be pending besides those in hand: unwanted ones, not acknowledged yet.
const PENDING_BESIDES: usize = 8;

/// What a batch is settled as.
pub(super) struct Settler<'a> {
    pub store: &'a Store,
    pub subscription: &'a Subscription,
    /// The stream of the group's retries.
    pub retry: &'a str,
    /// Number of the batch, in all inboxes that the group has had in this process; a repeated batch has the same.
    pub number: u64,
}

/// The entries of a batch in one stream.
struct Span {
    stream: Arc<str>,
    leases: Vec<Lease>,
    last: EntryId,
}

impl Settler<'_> {
    /// The call that settles `runs`.
    pub fn call<'r>(&self, held: &Held, runs: impl Iterator<Item = &'r Run> + Clone) -> Cmd {
        let keys = &self.store.keys;
        let mut args = Args::of(&self.store.procedures.settle);
        args.push(keys.prefix());
        args.push(keys.dead());
        args.push(keys.state_prefix());
        args.push(&*self.subscription.group);
        args.push(&self.store.consumer);
        args.push(keys.receipts(&self.store.process));
        args.push(format!("{}/{}", self.subscription.group, self.number % RECEIPTS));
        args.int(self.number);
        let spans = spans(runs.clone());
        self.spans(&mut args, held, &spans);
        args.int(runs.clone().count() as u64);
        let mut lengths = Vec::new();
        for run in runs {
            let before = args.count();
            self.run(&mut args, &spans, run);
            lengths.push(args.count() - before);
        }
        lengths.into_iter().for_each(|length| args.int(u64::from(length)));
        args.done()
    }

    fn spans(&self, args: &mut Args, held: &Held, spans: &[Span]) {
        args.int(spans.len() as u64);
        for span in spans {
            args.push(&*span.stream);
            args.int(self.kind(&span.stream));
            args.entry(span.last);
            let stretches = held.stretches(&span.leases);
            args.int(stretches.len() as u64);
            for Stretch { first, last, in_hand } in stretches {
                args.entry(first);
                args.entry(last);
                args.int((in_hand + PENDING_BESIDES) as u64);
            }
        }
    }

    /// 1: the host's own stream of the group; 2: a channel, and no stream; 0: a stream of events.
    fn kind(&self, stream: &str) -> u64 {
        match stream {
            own if *own == *self.retry => 1,
            stream if self.store.keys.is_channel(stream) => 2,
            _ => 0,
        }
    }

    fn run(&self, args: &mut Args, spans: &[Span], run: &Run) {
        args.int(run.deliveries.len() as u64);
        for settling in &run.deliveries {
            self.delivery(args, spans, run, settling);
        }
        let released = |settling: &Settling| settling.verdict == Verdict::Release;
        reads(args, if run.deliveries.iter().all(released) { &[] } else { &run.reads });
        self.record(args, run);
        args.push(run.steps.as_ref().map_or_else(String::new, |event| self.store.keys.steps(event)));
        args.events(&run.effects.events, self.store);
        self.writes(args, &run.effects.writes);
        args.int(run.effects.cancels.len() as u64);
        run.effects.cancels.iter().for_each(|id| args.push(id));
        owned(args, &run.effects.events);
    }

    fn delivery(&self, args: &mut Args, spans: &[Span], run: &Run, settling: &Settling) {
        let delivery = &*settling.delivery;
        let span = spans.iter().position(|span| span.stream == delivery.stream);
        args.int(span.map_or(0, |at| at as u64 + 1));
        args.entry(delivery.entry);
        args.int(u64::from(held::times(delivery.lease)));
        args.flag(delivery.orphaned >= ORPHANED_ALONE);
        replay(args, delivery);
        match &settling.verdict {
            Verdict::Commit => args.push("C"),
            Verdict::Skip { .. } => args.push("S"),
            // It lies nowhere that it could go back to.
            Verdict::Release if self.kind(&delivery.stream) == 2 => {
                later(args, delivery, Duration::ZERO, &Past::of(delivery).with_steps(run.steps))
            }
            Verdict::Release => args.push(failpoint::after("release.before", "F")),
            Verdict::Retry { delay, counted, failure } => {
                failpoint::reached("retry.before");
                let past =
                    Past::after(delivery, failure, &run.version, self.store.now(), *counted).with_steps(run.steps);
                later(args, delivery, *delay, &past);
            }
            Verdict::Dead { reason, failure } => {
                failpoint::reached("dead.before");
                let failures = Past::after(delivery, failure, &run.version, self.store.now(), true).failures;
                let laid = self.store.shelf().lay(&dead::Letter {
                    handler: &self.subscription.handler,
                    group: &self.subscription.group,
                    version: &run.version,
                    delivery,
                    reason: *reason,
                    failures: &failures,
                    idempotency_key: run.record.as_ref().map(|record| record.text.as_str()),
                });
                args.push("D");
                args.push(laid.original.unwrap_or_default());
                args.fields(&laid.fields);
            }
        }
    }

    fn record(&self, args: &mut Args, run: &Run) {
        let ends = |settling: &Settling| matches!(settling.verdict, Verdict::Commit | Verdict::Dead { .. });
        let first = run.deliveries.first().filter(|_| run.deliveries.iter().any(ends));
        let (Some(record), Some(first)) = (&run.record, first) else {
            return (0..4).for_each(|_| args.push(""));
        };
        args.push(self.store.keys.record(&record.key));
        args.push(first.delivery.token());
        args.int(lifetime(record.window));
        replay(args, &first.delivery);
    }

    fn writes(&self, args: &mut Args, writes: &[Write]) {
        args.int(writes.len() as u64);
        for write in writes {
            args.push(self.store.keys.state(&write.key));
            match &write.change {
                Change::Set { value, ttl } => {
                    args.push("s");
                    args.push(value.bytes());
                    match ttl {
                        Some(ttl) => args.int(lifetime(*ttl)),
                        None => args.push(""),
                    }
                }
                Change::Delete => ["d", "", ""].iter().for_each(|part| args.push(part)),
                Change::Add(number) => {
                    args.push("a");
                    args.push(ryu::Buffer::new().format(*number));
                    args.push("");
                }
            }
        }
    }
}

/// Which of `emits` the group can take back: number and id of each.
fn owned(args: &mut Args, emits: &[Emit]) {
    let later = || (1..).zip(emits).filter(|(_, emit)| emit.delay.is_some());
    args.int(later().count() as u64);
    for (number, emit) in later() {
        args.int(number);
        args.push(&emit.event.id);
    }
}

/// It is delivered once more after `delay`.
fn later(args: &mut Args, delivery: &Delivery, delay: Duration, past: &Past) {
    args.push("R");
    args.int(millis(delay));
    args.fields(&entry::fields_with_past(&delivery.event, delivery.lay.as_deref(), past));
}

/// The dead letter that a delivery replays, or nothing.
fn replay(args: &mut Args, delivery: &Delivery) {
    match delivery.past.as_ref().and_then(|past| past.replay_of) {
        Some(letter) => args.entry(letter.entry()),
        None => args.push(""),
    }
}

fn reads(args: &mut Args, reads: &[Read]) {
    args.int(reads.len() as u64);
    for read in reads {
        args.push(&read.key);
        match &read.seen {
            Seen::Absent => {
                args.push("-");
                args.push("");
            }
            Seen::Value(value) if value.len() <= COMPARED_BYTES_MAX => {
                args.push("=");
                args.push(value);
            }
            Seen::Value(value) => {
                args.push("#");
                args.int(value.len() as u64);
                args.push(Sha1::from(value).digest().to_string());
            }
        }
    }
}

fn spans<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for settling in runs.flat_map(|run| &run.deliveries) {
        let Delivery { stream, entry, lease, .. } = &*settling.delivery;
        match spans.iter_mut().find(|span| span.stream == *stream) {
            Some(span) => {
                span.leases.push(*lease);
                span.last = span.last.max(*entry);
            }
            None => spans.push(Span { stream: stream.clone(), leases: vec![*lease], last: *entry }),
        }
    }
    spans
}

/// What the server answered a batch.
pub(super) struct Settled {
    /// The server's time.
    pub now: Millis,
    /// `None`: the server does not let us, now; nothing was done.
    pub answers: Vec<Option<Answer>>,
    /// What it does not let us.
    pub barred: Option<String>,
}

/// Reads the answer to a call for `runs` runs.
pub(super) fn read(answer: Value, runs: usize) -> Result<Settled, Fault> {
    let mut parts = reply::list(answer)?.into_iter();
    let now = reply::int(&parts.next().unwrap_or_default())?;
    let again = reply::int(&parts.next().unwrap_or_default())? == 1;
    let (mut answers, mut barred) = (Vec::with_capacity(runs), None);
    for part in parts {
        let text = reply::text(part)?;
        match text.strip_prefix('P') {
            Some(why) => {
                barred = Some(why.to_owned());
                answers.push(None);
            }
            None => answers.push(Some(read_one(&text, again)?)),
        }
    }
    if answers.len() != runs {
        return Err(Fault::Away(format!("it answered {} of {runs} runs", answers.len())));
    }
    Ok(Settled { now, answers, barred })
}

fn read_one(text: &str, again: bool) -> Result<Answer, Fault> {
    let (letter, rest) = text.split_at_checked(1).unwrap_or_default();
    Ok(match letter {
        "D" if again => Answer::AlreadyMine,
        "D" => Answer::Done { dead: parse_id(rest).and_then(DeadId::at) },
        "A" => Answer::AlreadyMine,
        "X" => Answer::Duplicate { by: rest.to_owned() },
        "C" => Answer::Conflict { key: rest.to_owned() },
        "F" => Answer::Fenced,
        "R" => Answer::StoreReset,
        "I" => Answer::Invalid { reason: rest.to_owned() },
        _ => return Err(Fault::Away(format!("it answered a settle with {text:.80}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_a_repeated_one_is_already_ours() {
        let answers = ["D", "D17-3", "A", "Xorders/1-0#1", "Cstock", "F", "R", "Ino", "Pnot now"];
        let value = |again| {
            let head = [Value::Int(5), Value::Int(again)].into_iter();
            Value::Array(head.chain(answers.map(|text| Value::BulkString(text.into()))).collect())
        };
        let first = read(value(0), 9).expect("it is readable");
        assert_eq!(first.now, 5);
        assert_eq!(first.answers[0], Some(Answer::Done { dead: None }));
        assert_eq!(first.answers[1], Some(Answer::Done { dead: DeadId::at(EntryId(17, 3)) }));
        assert_eq!(first.answers[3], Some(Answer::Duplicate { by: "orders/1-0#1".into() }));
        assert_eq!((&first.answers[8], first.barred.as_deref()), (&None, Some("not now")));
        let again = read(value(1), 9).expect("it is readable");
        assert!(again.answers[..3].iter().all(|answer| *answer == Some(Answer::AlreadyMine)));
        assert_eq!(again.answers[3..], first.answers[3..]);
        assert!(read(value(0), 8).is_err());
    }
}
