//! Letters of ours that are there no more, or are too old.
//!
//! Others may take away any letter, to handle its event anew or for good: then it is counted no more. What is old goes by our
//! rule, and goes on blocking late duplicates. Foreign letters are not ours to expire: they are never looked at.

use std::sync::LazyLock;

use redis::Value;

use super::fault::Fault;
use super::letters::Moved;
use super::procedure::Procedure;
use super::replay;
use super::reply;
use super::store::Store;
use crate::bus::BusError;
use crate::clock::Millis;
use crate::event::EntryId;

/// Letters that are looked at in one step.
const LETTERS_MAX: usize = 200;

static SWEEP: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/letters.lua"),
        include_str!("scripts/sweep.lua")
    ))
});

/// A walk over our letters that never ends.
pub(super) struct Sweep {
    cursor: String,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { cursor: "0".into() }
    }
}

impl Sweep {
    /// One step. `oldest`: letters of before that are too old, and so are replays that began before it.
    pub async fn step(&mut self, store: &Store, oldest: Option<Millis>) -> Result<(), BusError> {
        let mut call = SWEEP.call();
        call.arg(store.keys.prefix()).arg(store.keys.dead()).arg(&self.cursor).arg(LETTERS_MAX);
        let (next, letters) = read(store.run(&SWEEP, &call).await?).map_err(|fault| store.told(fault))?;
        self.cursor = next;
        let goes = letters.into_iter().filter(|letter| letter.goes(oldest)).collect::<Vec<_>>();
        if goes.is_empty() {
            return Ok(());
        }
        let moved = Moved::ask(store).await?;
        let goes: Vec<_> = goes.into_iter().map(|letter| (letter.at, moved.now(letter.group, letter.at))).collect();
        replay::discard(store, &goes).await.map(drop)
    }
}

/// A letter of ours.
struct Kept {
    at: EntryId,
    /// As it was called then.
    group: String,
    is_there: bool,
    replayed_at: Option<Millis>,
}

impl Kept {
    fn goes(&self, oldest: Option<Millis>) -> bool {
        let is_old = |oldest| self.at.0 as Millis <= oldest && self.replayed_at.is_none_or(|at| at <= oldest);
        !self.is_there || oldest.is_some_and(is_old)
    }
}

fn read(answer: Value) -> Result<(String, Vec<Kept>), Fault> {
    let mut parts = reply::list(answer)?.into_iter();
    let next = reply::text(parts.next().unwrap_or_default())?;
    let letter = |value| {
        let mut parts = reply::list(value)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let (at, group, is_there) = (reply::entry_id(next())?, reply::text(next())?, reply::int(&next())? == 1);
        Ok(Kept { at, group, is_there, replayed_at: reply::text(next())?.parse().ok() })
    };
    Ok((next, parts.map(letter).collect::<Result<_, Fault>>()?))
}
