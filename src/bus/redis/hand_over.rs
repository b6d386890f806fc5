//! Hands a group over to another.
//!
//! Owns the order of the steps. Each is one script over few entries, so that nobody waits long for the server, and moves what
//! it moves at once: from one group's hands into the other's. Whoever is interrupted begins again and goes on where it
//! stopped; until then the server lets nobody open either group.

use std::sync::LazyLock;

use redis::Value;

use super::fault::Fault;
use super::procedure::Procedure;
use super::reply;
use super::store::Store;
use crate::bus::{BusError, Moved};

/// Entries of one step.
const STEP: usize = 500;

static HAND_OVER: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/letters.lua"),
        include_str!("scripts/ids.lua"),
        include_str!("scripts/moving.lua"),
        include_str!("scripts/leave.lua"),
        include_str!("scripts/hand_over.lua")
    ))
});

/// One group on its way to another.
pub(super) struct HandOver<'s> {
    store: &'s Store,
    from: &'s str,
    to: &'s str,
    next: Step,
    moved: Moved,
}

#[derive(Debug, PartialEq)]
enum Step {
    Begin,
    /// The streams that are left, last first.
    Streams(Vec<String>),
    /// Where the walk over delayed work is.
    Delayed(String),
    Retries,
    Finish,
    Done,
}

impl<'s> HandOver<'s> {
    pub fn new(store: &'s Store, from: &'s str, to: &'s str) -> Self {
        Self { store, from, to, next: Step::Begin, moved: Moved::default() }
    }

    /// All steps, one after the other. Answers what was moved now, and not before an interruption.
    pub async fn run(mut self) -> Result<Moved, BusError> {
        while !self.step().await? {}
        Ok(self.moved)
    }

    /// The next step; true: it was the last one.
    pub async fn step(&mut self) -> Result<bool, BusError> {
        let (name, about) = match &self.next {
            Step::Begin => ("begin", ""),
            Step::Streams(left) => ("stream", left.last().map_or("", String::as_str)),
            Step::Delayed(cursor) => ("delayed", cursor.as_str()),
            Step::Retries => ("retries", ""),
            Step::Finish => ("finish", ""),
            Step::Done => return Ok(true),
        };
        let mut call = HAND_OVER.call();
        call.arg(self.store.keys.prefix()).arg(self.store.keys.dead());
        call.arg(self.from).arg(self.to).arg(STEP).arg(name).arg(about);
        let answer = self.store.run(&HAND_OVER, &call).await?;
        self.take(answer).map_err(|fault| self.store.told(fault))?;
        Ok(self.next == Step::Done)
    }

    /// Counts what a step moved, and decides on the next.
    fn take(&mut self, answer: Value) -> Result<(), Fault> {
        let answer = reply::list(answer)?;
        let count = || answer.get(1).map_or(Ok(0), reply::int).map(i64::unsigned_abs);
        let is_over = || answer.first().map_or(Ok(0), reply::int).map(|over| over == 1);
        match &mut self.next {
            Step::Begin => {
                let mut left = answer.into_iter().map(reply::text).collect::<Result<Vec<_>, _>>()?;
                left.reverse();
                self.moved.streams = left.len() as u64;
                self.next = after_streams(left);
            }
            Step::Streams(left) => {
                self.moved.taken_in += count()?;
                if is_over()? {
                    left.pop();
                    self.next = after_streams(std::mem::take(left));
                }
            }
            Step::Delayed(cursor) => {
                self.moved.delayed += count()?;
                *cursor = reply::text(answer.into_iter().next().unwrap_or_default())?;
                if cursor == "0" {
                    self.next = Step::Retries;
                }
            }
            Step::Retries => {
                self.moved.delayed += count()?;
                if is_over()? {
                    self.next = Step::Finish;
                }
            }
            Step::Finish => {
                self.moved.dead = count()?;
                self.next = Step::Done;
            }
            Step::Done => {}
        }
        Ok(())
    }
}

fn after_streams(left: Vec<String>) -> Step {
    if left.is_empty() { Step::Delayed("0".into()) } else { Step::Streams(left) }
}

/// Whether handing `from` over to `to` was begun and not ended: then nobody serves either.
pub(super) async fn is_underway(store: &Store, from: &str, to: &str) -> Result<bool, BusError> {
    let answer = store.call(redis::cmd("HGET").arg(store.keys.group(from)).arg("moving")).await?;
    let moving = reply::bytes(answer).map_err(|fault| store.told(fault))?;
    Ok(moving.is_some_and(|moving| moving == format!("{from} {to}")))
}
