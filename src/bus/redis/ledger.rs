//! What handlers read: state and idempotency records.

use async_trait::async_trait;
use bytes::Bytes;

use super::RedisBus;
use super::dead;
use super::fault::Fault;
use super::reply::{self, parse_id};
use crate::bus::{BusError, Ledger, Recorded};
use crate::outcome::RecordKey;

#[async_trait]
impl Ledger for RedisBus {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, BusError> {
        let names = keys.iter().map(|key| self.store.keys.state(key));
        self.values(names).await
    }

    async fn recorded(&self, keys: &[RecordKey]) -> Result<Vec<Option<Recorded>>, BusError> {
        let names = keys.iter().map(|key| self.store.keys.record(key));
        let values = self.values(names).await?;
        let read = values.into_iter().map(|value| value.map(|value| recorded(&value)).transpose());
        read.collect::<Result<_, _>>().map_err(|fault| self.store.told(fault))
    }
}

impl RedisBus {
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

/// Reads `committed TOKEN` or `dead ENTRY TOKEN`.
fn recorded(value: &[u8]) -> Result<Recorded, Fault> {
    let text = String::from_utf8_lossy(value);
    if let Some(by) = text.strip_prefix("committed ") {
        return Ok(Recorded { by: by.to_owned(), dead: None });
    }
    let dead = text.strip_prefix("dead ").and_then(|rest| rest.split_once(' '));
    let dead = dead.and_then(|(entry, by)| Some((parse_id(entry)?, by)));
    match dead {
        Some((entry, by)) => Ok(Recorded { by: by.to_owned(), dead: Some(dead::number(entry)) }),
        None => Err(Fault::Unusable(format!(
            "an idempotency record is not readable by this version of moontide: {text:.80}"
        ))),
    }
}
