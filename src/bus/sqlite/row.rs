//! How an event lies in columns, in every table that holds one.
//!
//! Owns the order of the eleven columns and what makes a row no event. An undecodable row keeps its raw fields, and can be
//! written again as it was; fields that are no columns of ours lie framed in `ext`.

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Row};

use crate::bus::Undecodable;
use crate::event::{Event, Json};

/// The columns of an event, in the order in which everything here reads and binds them.
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

/// Begins the fields of what was no event where it came from: for each, name and value, each after its length in four bytes.
/// Only a blob can begin so, and no event has one.
const FRAMED: &[u8] = b"moontide fields 1\0";
/// Where among them `ext` is.
const EXT: usize = 9;

/// How many columns an event has.
pub(super) const WIDTH: usize = COLUMNS.len();
/// Where among them `type` is.
pub(super) const KIND: usize = 2;

/// The columns, for a query of the table of events.
pub(super) fn list() -> String {
    COLUMNS.join(", ")
}

/// Binds an event's columns to the parameters from `first` on.
pub(super) fn bind(
    statement: &mut CachedStatement<'_>,
    first: usize,
    event: &Result<Event, Undecodable>,
) -> rusqlite::Result<()> {
    match event {
        Ok(event) => bind_event(statement, first, event),
        Err(raw) => bind_raw(statement, first, raw),
    }
}

fn text_bytes(text: &Option<String>) -> Option<&[u8]> {
    text.as_deref().map(str::as_bytes)
}

fn json_bytes(json: &Option<Json>) -> Option<&[u8]> {
    json.as_ref().map(|json| &json.bytes()[..])
}

/// Binds an event's columns to the parameters from `first` on.
pub(super) fn bind_event(statement: &mut CachedStatement<'_>, first: usize, event: &Event) -> rusqlite::Result<()> {
    let columns = [
        Some(event.id.as_bytes()),
        Some(event.source.as_bytes()),
        Some(event.kind.as_bytes()),
        text_bytes(&event.subject),
        text_bytes(&event.time),
        text_bytes(&event.dataschema),
        text_bytes(&event.correlation_id),
        text_bytes(&event.causation_id),
        text_bytes(&event.traceparent),
        json_bytes(&event.ext),
        json_bytes(&event.data),
    ];
    for (at, column) in columns.into_iter().enumerate() {
        let value = column.map_or(ValueRef::Null, ValueRef::Text);
        statement.raw_bind_parameter(first + at, ToSqlOutput::Borrowed(value))?;
    }
    Ok(())
}

fn bind_raw(statement: &mut CachedStatement<'_>, first: usize, raw: &Undecodable) -> rusqlite::Result<()> {
    if !are_columns(&raw.fields) {
        for at in 0..WIDTH {
            let value = if at == EXT { Value::Blob(frame(&raw.fields)) } else { Value::Null };
            statement.raw_bind_parameter(first + at, value)?;
        }
        return Ok(());
    }
    for (at, name) in COLUMNS.iter().enumerate() {
        let field = raw.fields.iter().find(|(field, _)| field == name.as_bytes());
        let value = field.map_or(Value::Null, |(_, bytes)| match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Blob(bytes.to_vec()),
        });
        statement.raw_bind_parameter(first + at, value)?;
    }
    Ok(())
}

/// Whether each field is a column, in the order of columns, and none is there twice.
fn are_columns(fields: &[(Bytes, Bytes)]) -> bool {
    let mut columns = COLUMNS.iter();
    fields.iter().all(|(name, _)| columns.any(|column| name == column.as_bytes()))
}

fn frame(fields: &[(Bytes, Bytes)]) -> Vec<u8> {
    let mut framed = FRAMED.to_vec();
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        // SQLite takes no value of 4 GiB, so a length always fits.
        framed.extend_from_slice(&(part.len() as u32).to_le_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

/// The fields that [`frame`] framed; `None`: these bytes are something else.
fn unframe(framed: &[u8]) -> Option<Vec<(Bytes, Bytes)>> {
    let mut rest = framed.strip_prefix(FRAMED)?;
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        Some(Bytes::copy_from_slice(part))
    };
    let mut fields = Vec::new();
    while let Some(name) = part() {
        fields.push((name, part()?));
    }
    rest.is_empty().then_some(fields)
}

/// Reads the event whose columns begin at `first`.
pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Result<Event, Undecodable>> {
    match event(row, first) {
        Ok(event) => Ok(Ok(event)),
        Err(Wrong::Column(reason)) => Ok(Err(Undecodable { reason, fields: fields(row, first)? })),
        Err(Wrong::Row(error)) => Err(error),
    }
}

/// The raw columns of a row that is no event, or not to be taken for one.
pub(super) fn fields(row: &Row<'_>, first: usize) -> rusqlite::Result<Vec<(Bytes, Bytes)>> {
    if let ValueRef::Blob(bytes) = row.get_ref(first + EXT)?
        && let Some(fields) = unframe(bytes)
    {
        return Ok(fields);
    }
    let mut fields = Vec::new();
    for (at, name) in COLUMNS.iter().enumerate() {
        let bytes = match row.get_ref(first + at)? {
            ValueRef::Null => continue,
            ValueRef::Integer(number) => number.to_string().into_bytes(),
            ValueRef::Real(number) => number.to_string().into_bytes(),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        };
        fields.push((Bytes::from_static(name.as_bytes()), Bytes::from(bytes)));
    }
    Ok(fields)
}

enum Wrong {
    Column(String),
    Row(rusqlite::Error),
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Self {
        Self::Row(error)
    }
}

fn event(row: &Row<'_>, first: usize) -> Result<Event, Wrong> {
    let text = |at: usize| text(row, first, at);
    let must = |at: usize| text(at)?.ok_or_else(|| Wrong::Column(format!("column {} is empty", COLUMNS[at])));
    let json = |at: usize| -> Result<Option<Json>, Wrong> { Ok(text(at)?.map(Json::trusted)) };
    Ok(Event {
        id: must(0)?,
        source: must(1)?,
        kind: must(KIND)?,
        subject: text(3)?,
        time: text(4)?,
        dataschema: text(5)?,
        correlation_id: text(6)?,
        causation_id: text(7)?,
        traceparent: text(8)?,
        ext: json(9)?,
        data: json(10)?,
    })
}

fn text(row: &Row<'_>, first: usize, at: usize) -> Result<Option<String>, Wrong> {
    match row.get_ref(first + at)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(Wrong::Column(format!("column {} is not UTF-8", COLUMNS[at]))),
        },
        other => Err(Wrong::Column(format!("column {} is {}, not text", COLUMNS[at], other.data_type()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &[u8], value: &[u8]) -> (Bytes, Bytes) {
        (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value))
    }

    #[test]
    fn foreign_fields_come_back_as_they_were_and_nothing_else_is_taken_for_them() {
        let fields = vec![field(b"key", b""), field(b"value", b"\xff\x00"), field(b"key", b"twice")];
        assert_eq!(unframe(&frame(&fields)), Some(fields.clone()));
        assert_eq!(unframe(&frame(&[])), Some(Vec::new()));
        let framed = frame(&fields);
        assert_eq!(unframe(&framed[..framed.len() - 1]), None, "cut off");
        assert_eq!(unframe(b"{}"), None);
        assert!(!are_columns(&fields));
        assert!(are_columns(&[field(b"id", b"1"), field(b"data", b"2")]));
        assert!(!are_columns(&[field(b"data", b"2"), field(b"id", b"1")]), "their order is kept too");
        assert!(!are_columns(&[field(b"id", b"1"), field(b"id", b"2")]));
    }
}
