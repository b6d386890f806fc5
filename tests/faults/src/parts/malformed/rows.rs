//! Rows that others write into a file, and what must become of each.

use rand::Rng as _;
use rand::rngs::SmallRng;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::Fate;
use super::documents;
use super::entries::id;

const COLUMNS: [&str; 11] = [
    "id",
    "source",
    "type",
    "subject",
    "time",
    "dataschema",
    "correlation_id",
    "causation_id",
    "traceparent",
    "ext",
    "data",
];
const TYPE: usize = 2;
const DATA: usize = 10;
/// Columns that every event has.
const NEEDED: usize = 3;

/// Writes a row as no version of ours would; answers where it lies and what must become of it.
pub fn write(file: &Connection, rng: &mut SmallRng) -> (String, Fate) {
    let mut values: Vec<Value> = vec![Value::Null; COLUMNS.len()];
    for (at, text) in [id(rng), "rig".to_owned(), "odd".to_owned()].into_iter().enumerate() {
        values[at] = Value::Text(text);
    }
    values[DATA] = Value::Text("{}".to_owned());
    let (at, value, cast) = wrong(rng);
    values[at] = value;
    let number = insert(file, &values, cast.then_some(at)).expect("the file takes any row");
    (format!("events:odd/{number}-0"), Fate::Dead)
}

/// What stands in which column, and whether its bytes are to be called a text.
fn wrong(rng: &mut SmallRng) -> (usize, Value, bool) {
    let any = |rng: &mut SmallRng| match rng.random_range(0..10) {
        at if at != TYPE => at,
        _ => DATA,
    };
    match rng.random_range(0..6) {
        0 => (rng.random_range(0..NEEDED - 1), Value::Null, false),
        1 => (any(rng), Value::Integer(rng.random()), false),
        2 => (any(rng), Value::Real(rng.random()), false),
        3 => (any(rng), Value::Blob((0..rng.random_range(0..40)).map(|_| rng.random()).collect()), false),
        4 => (any(rng), Value::Blob(b"a\xffb".to_vec()), true),
        _ => (DATA, Value::Blob(documents::bad(rng)), true),
    }
}

/// The row's number in its stream.
fn insert(file: &Connection, values: &[Value], cast: Option<usize>) -> rusqlite::Result<i64> {
    let place =
        |at: usize| if cast == Some(at) { format!("CAST(?{} AS TEXT)", at + 1) } else { format!("?{}", at + 1) };
    let places: Vec<String> = (0..COLUMNS.len()).map(place).collect();
    file.execute_batch("BEGIN IMMEDIATE; UPDATE stream SET last_seq = last_seq + 1 WHERE name = 'events:odd'")?;
    let sql = format!(
        "INSERT INTO event(pos, stored_at, {}) SELECT id << 40 | last_seq, 0, {} FROM stream WHERE name = 'events:odd'",
        COLUMNS.join(", "),
        places.join(", ")
    );
    file.execute(&sql, params_from_iter(values))?;
    let number =
        file.query_row("SELECT last_seq FROM stream WHERE name = 'events:odd'", (), |row| row.get::<_, i64>(0))?;
    file.execute_batch("COMMIT")?;
    Ok(number)
}
