//! The bare loop on SQLite.

use std::time::Instant;

use rusqlite::Connection;

use super::{BATCH, event};

/// Events per second of the bare loop.
pub fn bare(events: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut conn = Connection::open(folder.path().join("bare.db")).expect("the file opens");
    conn.execute_batch(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 8192;
         CREATE TABLE event(pos INTEGER PRIMARY KEY, id, source, type, time, data);
         CREATE TABLE out(pos INTEGER PRIMARY KEY, id, source, type, time, data);
         CREATE TABLE record(key BLOB PRIMARY KEY, seq INTEGER, expires INTEGER) WITHOUT ROWID;
         CREATE TABLE cursor(position INTEGER)",
    )
    .expect("the tables are made");
    let fill = conn.transaction().expect("a transaction");
    for n in 0..events {
        let event = event(n);
        let data = event.data.as_ref().map(|data| data.text().into_owned());
        fill.prepare_cached("INSERT INTO event VALUES(?,?,?,?,?,?)")
            .and_then(|mut insert| insert.execute((n as i64, event.id, event.source, event.kind, event.time, data)))
            .expect("an event is stored");
    }
    fill.commit().expect("it commits");
    let began = Instant::now();
    for from in (0..events).step_by(BATCH) {
        bare_batch(&mut conn, from);
    }
    events as f64 / began.elapsed().as_secs_f64()
}

fn bare_batch(conn: &mut Connection, from: usize) {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("a transaction");
    let rows: Vec<(i64, String, String)> = {
        let mut read = tx.prepare_cached("SELECT pos, id, data FROM event WHERE pos >= ? AND pos < ?").expect("valid");
        let rows =
            read.query_map((from as i64, (from + BATCH) as i64), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.expect("it reads").collect::<Result<_, _>>().expect("rows are whole")
    };
    for (pos, id, data) in &rows {
        let order: serde_json::Value = serde_json::from_str(data).expect("it is JSON");
        let out = serde_json::json!({
            "order_id": order["order_id"], "client": order["client"]["id"], "total": order["total"],
        });
        let key = xxhash_rust::xxh3::xxh3_128(id.as_bytes()).to_le_bytes();
        tx.prepare_cached("INSERT OR IGNORE INTO record VALUES(?,?,?)")
            .and_then(|mut insert| insert.execute((&key[..], pos, 3_600_000)))
            .expect("a record is stored");
        let emitted = uuid::Uuid::now_v7().to_string();
        tx.prepare_cached("INSERT INTO out(id, source, type, time, data) VALUES(?,?,?,?,?)")
            .and_then(|mut insert| {
                insert.execute((emitted, "bench", "order.accepted", "2026-11-21T00:00:00Z", out.to_string()))
            })
            .expect("an event is stored");
    }
    tx.prepare_cached("UPDATE cursor SET position = ?")
        .and_then(|mut update| update.execute([(from + rows.len()) as i64]))
        .expect("the position is stored");
    tx.commit().expect("it commits");
}
