//! What handlers read: state and idempotency records.

use std::collections::HashSet;
use std::sync::LazyLock;

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;

use super::RedisBus;
use super::fault::Fault;
use super::procedure::Procedure;
use super::reply::{self, parse_id};
use crate::bus::{BusError, DeadId, Ledger, Recorded};
use crate::event::EntryId;
use crate::outcome::RecordKey;

static THERE: LazyLock<Procedure> = LazyLock::new(|| {
    Procedure::new(concat!(
        include_str!("scripts/effects.lua"),
        include_str!("scripts/letters.lua"),
        include_str!("scripts/there.lua")
    ))
});

#[async_trait]
impl Ledger for RedisBus {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, BusError> {
        let names = keys.iter().map(|key| self.store.keys.state(key));
        self.values(names).await
    }

    async fn recorded(&self, keys: &[RecordKey]) -> Result<Vec<Option<Recorded>>, BusError> {
        let names = keys.iter().map(|key| self.store.keys.record(key));
        let values = self.values(names).await?;
        let read = values.into_iter().map(|value| value.map(|value| Holder::read(&value)).transpose());
        let mut holders: Vec<_> = read.collect::<Result<_, _>>().map_err(|fault| self.store.told(fault))?;
        let needed: Vec<EntryId> = holders.iter().flatten().filter_map(Holder::needs).collect();
        if !needed.is_empty() {
            let gone = self.gone(needed).await?;
            let holds = |holder: &Holder| holder.needs().is_none_or(|letter| !gone.contains(&letter));
            holders.iter_mut().for_each(|holder| *holder = holder.take().filter(holds));
        }
        let shared = self.store.options.dead_letters_stream.is_some();
        Ok(holders.into_iter().map(|holder| Some(holder?.told(shared))).collect())
    }
}

impl RedisBus {
    /// Which of these letters are not in their stream any more.
    async fn gone(&self, letters: Vec<EntryId>) -> Result<HashSet<EntryId>, BusError> {
        let mut call = THERE.call();
        call.arg(self.store.keys.prefix()).arg(self.store.keys.dead());
        for letter in &letters {
            call.arg(letter.to_string());
        }
        let answer = self.store.run(&THERE, &call).await?;
        let there = reply::list(answer).map_err(|fault| self.store.told(fault))?;
        let gone = letters.into_iter().zip(there).filter(|(_, there)| *there == Value::Int(0));
        Ok(gone.map(|(letter, _)| letter).collect())
    }

    async fn values(&self, names: impl Iterator<Item = String>) -> Result<Vec<Option<Bytes>>, BusError> {
        let mut call = redis::cmd("MGET");
        let mut none = true;
        for name in names {
            call.arg(name);
            none = false;
        }
        if none {
            return Ok(Vec::new());
        }
        let values = self.store.call(&call).await?;
        let values = reply::list(values).and_then(|values| values.into_iter().map(reply::bytes).collect());
        values.map_err(|fault| self.store.told(fault))
    }
}

/// Who holds a record.
struct Holder {
    /// Token of the delivery.
    by: String,
    /// The letter that it became.
    letter: Option<EntryId>,
    /// It holds the record without its letter.
    sealed: bool,
}

impl Holder {
    /// Reads `committed TOKEN`, `dead ENTRY TOKEN` or `discarded ENTRY TOKEN`.
    fn read(value: &[u8]) -> Result<Self, Fault> {
        let text = String::from_utf8_lossy(value);
        if let Some(by) = text.strip_prefix("committed ") {
            return Ok(Self { by: by.to_owned(), letter: None, sealed: true });
        }
        let letter = |kind| {
            let (entry, by) = text.strip_prefix(kind)?.split_once(' ')?;
            Some((parse_id(entry)?, by.to_owned()))
        };
        let found = letter("dead ").map(|found| (found, false)).or_else(|| Some((letter("discarded ")?, true)));
        let ((entry, by), sealed) = found.ok_or_else(|| {
            Fault::Unusable(format!("an idempotency record is not readable by this version of moontide: {text:.80}"))
        })?;
        Ok(Self { by, letter: Some(entry), sealed })
    }

    /// The letter without which it holds nothing: somebody took its event to handle it anew.
    fn needs(&self) -> Option<EntryId> {
        self.letter.filter(|_| !self.sealed)
    }

    /// `shared`: others can take letters away.
    fn told(self, shared: bool) -> Recorded {
        let contested = shared && self.needs().is_some();
        Recorded { by: self.by, dead: self.letter.and_then(DeadId::at), contested }
    }
}
