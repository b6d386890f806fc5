//! State (`ctx.kv`): plain JSON text under a key.
//!
//! Owns what a read may have missed, what `add` means, and when a key has expired. Plans all writes of a run before the
//! first is done, so that a run whose writes cannot be applied leaves nothing behind.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};

use super::fault::Fault;
use super::tx::Tx;
use crate::bus::StateEntry;
use crate::clock::Millis;
use crate::outcome::{Change, Read, Write};

/// Whole numbers up to here are exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The values of `keys` at `now`.
pub(super) fn read(conn: &Connection, keys: &[String], now: Millis) -> Result<Vec<Option<Bytes>>, Fault> {
    keys.iter().map(|key| with_value(conn, key, now, |value, _| value.map(Bytes::copy_from_slice))).collect()
}

/// The first key among `reads` whose value is no longer what was seen.
pub(super) fn changed(tx: &Tx<'_>, reads: &[Read]) -> Result<Option<String>, Fault> {
    for read in reads {
        if !with_value(tx.conn, &read.key, tx.now, |value, _| read.seen.is_still(value))? {
            return Ok(Some(read.key.clone()));
        }
    }
    Ok(None)
}

/// Hands out the value of `key` and when it expires, without copying it.
fn with_value<T>(
    conn: &Connection,
    key: &str,
    now: Millis,
    take: impl FnOnce(Option<&[u8]>, Option<Millis>) -> T,
) -> Result<T, Fault> {
    let mut find = conn.prepare_cached("SELECT value, expires FROM kv WHERE key = ?")?;
    let mut rows = find.query([key])?;
    let Some(row) = rows.next()? else { return Ok(take(None, None)) };
    let expires: Option<Millis> = row.get(1)?;
    let value = bytes(row, 0)?;
    Ok(if expires.is_some_and(|at| at <= now) { take(None, None) } else { take(Some(value), expires) })
}

/// The bytes of a text or blob; other programs may have written either. Anything else reads as nothing.
fn bytes<'r>(row: &'r Row<'_>, at: usize) -> rusqlite::Result<&'r [u8]> {
    Ok(match row.get_ref(at)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => b"",
    })
}

/// One write as it will lie in the store; no value: the key goes.
pub(super) struct Put<'w> {
    key: &'w str,
    value: Option<Bytes>,
    expires: Option<Millis>,
}

/// What `writes` come to, or why they cannot be applied.
pub(super) fn plan<'w>(tx: &Tx<'_>, writes: &'w [Write]) -> Result<Result<Vec<Put<'w>>, String>, Fault> {
    let mut puts: Vec<Put<'w>> = Vec::with_capacity(writes.len());
    // Where each key was put last; empty for the run that writes one key.
    let mut latest: HashMap<&str, usize> = HashMap::new();
    for write in writes {
        let key = write.key.as_str();
        let put = match &write.change {
            Change::Delete => Put { key, value: None, expires: None },
            Change::Set { value, ttl } => {
                let ttl = ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
                Put { key, value: Some(value.bytes().clone()), expires: ttl.map(|ttl| tx.now.saturating_add(ttl)) }
            }
            Change::Add(n) => {
                let sum = |value: Option<&[u8]>, expires| add(value, *n).map(|sum| (sum, expires));
                let sum = match latest.get(key).and_then(|at| puts.get(*at)) {
                    Some(put) => sum(put.value.as_deref(), put.expires),
                    None => with_value(tx.conn, key, tx.now, sum)?,
                };
                match sum {
                    Ok((sum, expires)) => Put { key, value: Some(sum), expires },
                    Err(why) => return Ok(Err(format!("add to state key {key:?}: {why}"))),
                }
            }
        };
        if writes.len() > 1 {
            latest.insert(key, puts.len());
        }
        puts.push(put);
    }
    Ok(Ok(puts))
}

/// Writes what was planned.
pub(super) fn put(tx: &Tx<'_>, puts: &[Put<'_>]) -> Result<(), Fault> {
    for put in puts {
        match &put.value {
            None => {
                tx.conn.prepare_cached("DELETE FROM kv WHERE key = ?")?.execute([put.key])?;
            }
            Some(value) => {
                let sql = "INSERT INTO kv(key, value, expires) VALUES(?,?,?) \
                           ON CONFLICT(key) DO UPDATE SET value = excluded.value, expires = excluded.expires";
                let value = ToSqlOutput::Borrowed(ValueRef::Text(value));
                tx.conn.prepare_cached(sql)?.execute((put.key, value, put.expires))?;
            }
        }
    }
    Ok(())
}

/// The JSON number `value` (absent: 0) plus `n`: exact where both are whole, else as doubles.
fn add(value: Option<&[u8]>, n: f64) -> Result<Bytes, &'static str> {
    let text = std::str::from_utf8(value.unwrap_or(b"0")).map_err(|_| "what it holds is not a number")?;
    let whole = (n.fract() == 0.0 && n.abs() <= EXACT_MAX).then_some(n as i64);
    if let (Ok(have), Some(n)) = (text.parse::<i64>(), whole)
        && let Some(sum) = have.checked_add(n)
    {
        return Ok(Bytes::from(itoa::Buffer::new().format(sum).to_owned()));
    }
    let have: f64 = serde_json::from_str(text).map_err(|_| "what it holds is not a number")?;
    let sum = have + n;
    if !sum.is_finite() {
        return Err("the sum is not a finite number");
    }
    if sum.fract() == 0.0 && sum.abs() <= EXACT_MAX {
        return Ok(Bytes::from(itoa::Buffer::new().format(sum as i64).to_owned()));
    }
    Ok(Bytes::from(ryu::Buffer::new().format_finite(sum).to_owned()))
}

/// Applies an operator's writes; answers per write whether the key existed.
pub(super) fn write(tx: &Tx<'_>, writes: &[Write]) -> Result<Vec<bool>, Fault> {
    let mut existed = Vec::with_capacity(writes.len());
    for write in writes {
        existed.push(with_value(tx.conn, &write.key, tx.now, |value, _| value.is_some())?);
        let puts = plan(tx, std::slice::from_ref(write))?.map_err(Fault::Refused)?;
        put(tx, &puts)?;
    }
    Ok(existed)
}

/// Keys that begin with `prefix` and lie after `after`, in order.
pub(super) fn scan(
    conn: &Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    now: Millis,
) -> Result<Vec<StateEntry>, Fault> {
    let sql = "SELECT key, value, expires FROM kv WHERE key >= ?1 AND (?2 IS NULL OR key > ?2) ORDER BY key";
    let mut list = conn.prepare_cached(sql)?;
    let from = after.map_or(prefix, |after| prefix.max(after));
    let mut rows = list.query((from, after))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        if entries.len() >= limit || !key.starts_with(prefix) {
            break;
        }
        let expires: Option<Millis> = row.get(2)?;
        if expires.is_none_or(|at| at > now) {
            entries.push(StateEntry { key, value: Bytes::copy_from_slice(bytes(row, 1)?), expires });
        }
    }
    Ok(entries)
}

/// Removes at most `limit` expired keys; answers how many.
pub(super) fn sweep(tx: &Tx<'_>, limit: usize) -> Result<usize, Fault> {
    let mut next = tx.conn.prepare_cached("SELECT key FROM kv WHERE expires <= ? ORDER BY expires LIMIT 1")?;
    let mut delete = tx.conn.prepare_cached("DELETE FROM kv WHERE key = ?")?;
    let mut removed = 0;
    while removed < limit {
        let key: Option<String> = next.query_row([tx.now], |row| row.get(0)).optional()?;
        let Some(key) = key else { break };
        removed += delete.execute([key])?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::add;

    #[test]
    fn adding_is_exact_for_whole_numbers_and_refuses_what_is_no_number() {
        let sum = |value: Option<&str>, n: f64| {
            add(value.map(str::as_bytes), n).map(|sum| String::from_utf8_lossy(&sum).into_owned())
        };
        for (value, n, expected) in [
            (None, 2.0, "2"),
            (Some("9223372036854775806"), 1.0, "9223372036854775807"),
            (Some("9223372036854775807"), 1.0, "9.223372036854775808e18"),
            (Some("1.5"), 0.25, "1.75"),
            (Some("1.5"), 1.5, "3"),
            (Some("-0.5"), 0.5, "0"),
            (Some("1e300"), 1.0, "1e300"),
        ] {
            let got = sum(value, n).expect("both are numbers");
            assert_eq!(got.parse::<f64>().ok(), expected.parse::<f64>().ok(), "{value:?} + {n}");
            assert_eq!(got.contains(['.', 'e']), expected.contains(['.', 'e']), "{value:?} + {n} is {got}");
        }
        assert!(sum(Some("\"7\""), 1.0).is_err());
        assert!(sum(Some("null"), 1.0).is_err());
        assert!(sum(Some("1e308"), 1e308).is_err());
        assert!(sum(None, f64::NAN).is_err());
    }
}
