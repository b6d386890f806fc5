//! Deliveries that lie at a carrier: the commit record of each, which fences it.
//!
//! Owns the table `carried`. A delivery whose fence stands is settled, whoever brings it again. A fence that was lifted (the
//! carrier knows) still stands for [`LATE_COPIES`], because a copy may be under way in another process. Decides nothing else about
//! settling: that is `settle`, for these deliveries as for all others.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use super::store::Store;
use super::tx::Tx;
use crate::bus::relay::{AT_CARRIER, Fence, Place};
use crate::bus::{BusError, Delivery};
use crate::event::EntryId;

/// How long a lifted fence still stands, by the store's clock.
const LATE_COPIES: Duration = Duration::from_secs(600);

/// Whether the delivery lies at a carrier, and not in one of our spans.
pub(super) fn is_at_carrier(delivery: &Delivery) -> bool {
    delivery.lease.claim == AT_CARRIER
}

/// Whether its fence stands; `None`: the group vanished.
pub(super) fn is_settled(tx: &mut Tx<'_>, group: i64, delivery: &Delivery) -> Result<Option<bool>, Fault> {
    let (stream, (seq, sub)) = (tx.stream(&delivery.stream)?, columns(delivery.entry));
    let mut find = tx.conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM carried WHERE group_id = ?1 AND stream_id = ?2 AND seq = ?3 AND sub = ?4) \
         FROM consumer WHERE id = ?1",
    )?;
    Ok(find.query_row((group, stream, seq, sub), |row| row.get(0)).optional()?)
}

/// Sets its fence.
pub(super) fn settle(tx: &mut Tx<'_>, group: i64, delivery: &Delivery) -> Result<(), Fault> {
    let (stream, (seq, sub)) = (tx.stream(&delivery.stream)?, columns(delivery.entry));
    let mut insert =
        tx.conn.prepare_cached("INSERT OR IGNORE INTO carried(group_id, stream_id, seq, sub) VALUES(?,?,?,?)")?;
    insert.execute((group, stream, seq, sub))?;
    Ok(())
}

/// Removes at most `limit` fences that were lifted long ago; answers how many.
pub(super) fn sweep(tx: &Tx<'_>, limit: usize) -> Result<usize, Fault> {
    let before = tx.now.saturating_sub(i64::try_from(LATE_COPIES.as_millis()).unwrap_or(i64::MAX));
    let mut delete = tx.conn.prepare_cached(
        "DELETE FROM carried WHERE (group_id, stream_id, seq, sub) IN \
         (SELECT group_id, stream_id, seq, sub FROM carried WHERE lifted_at <= ? LIMIT ?)",
    )?;
    Ok(delete.execute((before, limit as i64))?)
}

/// The two numbers of an entry as SQLite keeps integers: the same bits.
fn columns(entry: EntryId) -> (i64, i64) {
    (entry.0 as i64, entry.1 as i64)
}

fn settled(conn: &Connection, group: &str, places: &[Place]) -> Result<Vec<bool>, Fault> {
    let mut find = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM carried WHERE group_id = (SELECT id FROM consumer WHERE name = ?) \
         AND stream_id = (SELECT id FROM stream WHERE name = ?) AND seq = ? AND sub = ?)",
    )?;
    let mut is_settled = |(stream, entry): &Place| {
        let (seq, sub) = columns(*entry);
        Ok(find.query_row((group, &**stream, seq, sub), |row| row.get(0))?)
    };
    places.iter().map(&mut is_settled).collect()
}

fn standing(conn: &Connection, group: &str) -> Result<Vec<Place>, Fault> {
    let mut list = conn.prepare_cached(
        "SELECT s.name, c.seq, c.sub FROM carried c JOIN stream s ON s.id = c.stream_id \
         WHERE c.lifted_at IS NULL AND c.group_id = (SELECT id FROM consumer WHERE name = ?)",
    )?;
    let places = list.query_map([group], |row| {
        let (name, seq, sub): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((name.into(), EntryId(seq as u64, sub as u64)))
    })?;
    Ok(places.collect::<Result<_, _>>()?)
}

fn lift(tx: &Tx<'_>, group: &str, places: &[Place]) -> Result<(), Fault> {
    let mut lift = tx.conn.prepare_cached(
        "UPDATE carried SET lifted_at = ? WHERE group_id = (SELECT id FROM consumer WHERE name = ?) \
         AND stream_id = (SELECT id FROM stream WHERE name = ?) AND seq = ? AND sub = ? AND lifted_at IS NULL",
    )?;
    for (stream, entry) in places {
        let (seq, sub) = columns(*entry);
        lift.execute((tx.now, group, &**stream, seq, sub))?;
    }
    Ok(())
}

/// The fences of one store.
pub(super) struct Fences(pub(super) Arc<Store>);

#[async_trait]
impl Fence for Fences {
    async fn settled(&self, group: &str, places: &[Place]) -> Result<Vec<bool>, BusError> {
        let (group, places) = (group.to_owned(), places.to_vec());
        self.0.read(move |conn, _| settled(conn, &group, &places)).await
    }

    async fn standing(&self, group: &str) -> Result<Vec<Place>, BusError> {
        let group = group.to_owned();
        self.0.read(move |conn, _| standing(conn, &group)).await
    }

    fn lift(&self, group: &str, places: Vec<Place>) {
        let (group, store) = (group.to_owned(), self.0.clone());
        let submitted = self.0.submit(
            move |tx| lift(tx, &group, &places),
            move |end| {
                if let Err(error) = end {
                    tracing::warn!(store = store.name(), %error, "fences stay until their group is opened again");
                }
            },
        );
        // A store that is closed lifts them when the group is opened next.
        drop(submitted);
    }
}
