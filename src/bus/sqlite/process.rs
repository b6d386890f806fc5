//! Who is alive.
//!
//! Each process raises a counter; peers watch it on their own monotonic clock and take a process for dead when its counter
//! stood still for the recovery time, or at once when the kernel has given up the lock that it held. No wall clock decides.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::due;
use super::fault::Fault;
use super::locks::{self, Alive};
use super::tx::Tx;
use super::{Options, Place};

/// Enters our process; it is visible to others only when its lock is held already.
pub(super) fn register(conn: &mut Connection, options: &Options) -> Result<(i64, Option<Alive>), Fault> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let sql = "INSERT INTO process(name, beat, started_at) VALUES(?,0,?)";
    let id = tx.prepare_cached(sql)?.insert((&options.instance, options.clock.now()))?;
    let alive = match &options.place {
        Place::File(path) => Some(Alive::show(path, id)?),
        Place::Memory => None,
    };
    tx.commit()?;
    Ok((id, alive))
}

/// Raises our counter, and notes that `groups` have a living handler.
pub(super) fn beat(tx: &mut Tx<'_>, name: &str, groups: &[i64]) -> Result<(), Fault> {
    due::keep_time(tx)?;
    let mut beat = tx.conn.prepare_cached(
        "INSERT INTO process(id, name, beat, started_at) VALUES(?,?,1,?) ON CONFLICT(id) DO UPDATE SET beat = beat + 1",
    )?;
    beat.execute((tx.me, name, tx.now))?;
    let mut seen = tx.conn.prepare_cached("UPDATE consumer SET seen_at = ?2 WHERE id = ?1")?;
    for group in groups {
        seen.execute((group, tx.now))?;
    }
    Ok(())
}

/// Our process ends in order: what it still holds goes back uncharged, and nobody has to find it dead.
pub(super) fn farewell(tx: &mut Tx<'_>) -> Result<(), Fault> {
    tx.conn
        .prepare_cached("UPDATE span SET owner = 0, epoch = epoch + 1 WHERE owner = ? AND left > 0")?
        .execute([tx.me])?;
    leave(tx, tx.me).map(drop)
}

/// Removes a process that holds nothing; true: it is gone.
pub(super) fn leave(tx: &Tx<'_>, id: i64) -> Result<bool, Fault> {
    let mut full = tx.conn.prepare_cached("DELETE FROM span WHERE owner = ? AND left = 0")?;
    full.execute([id])?;
    let sql = "DELETE FROM process WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM span WHERE owner = ?1)";
    Ok(tx.conn.prepare_cached(sql)?.execute([id])? == 1)
}

/// Names of the processes whose end nobody has seen: on a file, the kernel still holds their lock.
pub(super) fn alive(conn: &Connection, place: &Place) -> Result<HashSet<String>, Fault> {
    let mut list = conn.prepare_cached("SELECT id, name FROM process")?;
    let processes: Vec<(i64, String)> =
        list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let lives = |id| match place {
        Place::File(path) => !locks::is_dead(path, id),
        Place::Memory => true,
    };
    Ok(processes.into_iter().filter(|(id, _)| lives(*id)).map(|(_, name)| name).collect())
}

/// A process and where its counter stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Still {
    pub(super) process: i64,
    pub(super) beat: i64,
}

/// What we know of the other processes.
#[derive(Default)]
pub(super) struct Peers(Mutex<HashMap<i64, Peer>>);

struct Peer {
    beat: i64,
    since: Instant,
    death: Option<Death>,
}

#[derive(Clone, Copy, PartialEq)]
enum Death {
    /// Its counter stands still; it may be stopped, and come back.
    Silent,
    /// The kernel gave up its lock.
    Certain,
}

impl Peers {
    /// Processes whose claims may be taken over, as long as their counters stand where they stood.
    pub(super) fn dead(&self) -> Vec<Still> {
        let peers = self.0.lock();
        let dead = peers.iter().filter(|(_, peer)| peer.death.is_some());
        dead.map(|(id, peer)| Still { process: *id, beat: peer.beat }).collect()
    }

    /// Processes that will never come back.
    pub(super) fn gone(&self) -> Vec<i64> {
        self.0.lock().iter().filter(|(_, peer)| peer.death == Some(Death::Certain)).map(|(id, _)| *id).collect()
    }

    /// Takes up the counters as they stand; true: somebody died.
    pub(super) fn watch(&self, conn: &Connection, options: &Options, me: i64) -> Result<bool, Fault> {
        let Place::File(path) = &options.place else { return Ok(false) };
        let mut list = conn.prepare_cached("SELECT id, beat FROM process WHERE id <> ?")?;
        let counters: Vec<(i64, i64)> =
            list.query_map([me], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let mut peers = self.0.lock();
        peers.retain(|id, _| counters.iter().any(|(found, _)| found == id));
        let mut died = false;
        for (id, beat) in counters {
            let peer = peers.entry(id).or_insert_with(|| Peer { beat, since: Instant::now(), death: None });
            let was = peer.death;
            peer.look(beat, options.recovery_time, || locks::is_dead(path, id));
            died |= peer.death.is_some() && peer.death != was;
        }
        Ok(died)
    }
}

impl Peer {
    fn look(&mut self, beat: i64, recovery_time: Duration, lock_is_free: impl FnOnce() -> bool) {
        if self.death == Some(Death::Certain) {
            return;
        }
        if beat != self.beat {
            (self.beat, self.since, self.death) = (beat, Instant::now(), None);
        }
        if lock_is_free() {
            self.death = Some(Death::Certain);
        } else if self.since.elapsed() >= recovery_time {
            self.death = Some(Death::Silent);
        }
    }
}
