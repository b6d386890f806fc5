//! Events from outside: a key claims its body, in the transaction that stores it.

use rusqlite::OptionalExtension;

use super::due;
use super::fault::Fault;
use super::tx::Tx;
use crate::bus::{Claim, TakenIn};
use crate::outcome::Emit;

/// Publishes `emits`, unless the key was claimed before.
pub(super) fn take_in(tx: &mut Tx<'_>, emits: &[Emit], claim: &Claim) -> Result<TakenIn, Fault> {
    let body = claim.body.to_le_bytes();
    let mut find = tx.conn.prepare_cached("SELECT body FROM claim WHERE key = ? AND expires > ?")?;
    let before: Option<Vec<u8>> = find.query_row((&claim.key.0[..], tx.now), |row| row.get(0)).optional()?;
    if let Some(before) = before {
        return Ok(if before == body { TakenIn::Before } else { TakenIn::OtherBody });
    }
    due::publish(tx, emits, None)?;
    let window = i64::try_from(claim.window.as_millis()).unwrap_or(i64::MAX);
    let mut write = tx.conn.prepare_cached("INSERT OR REPLACE INTO claim(key, body, expires) VALUES(?,?,?)")?;
    write.execute((&claim.key.0[..], &body[..], tx.now.saturating_add(window)))?;
    Ok(TakenIn::Stored)
}

/// Removes at most `limit` claims that expired; answers how many.
pub(super) fn sweep(tx: &Tx<'_>, limit: usize) -> Result<usize, Fault> {
    let mut delete =
        tx.conn.prepare_cached("DELETE FROM claim WHERE key IN (SELECT key FROM claim WHERE expires <= ? LIMIT ?)")?;
    Ok(delete.execute((tx.now, limit as i64))?)
}
