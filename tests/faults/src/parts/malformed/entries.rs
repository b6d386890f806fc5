//! Entries that others write to the streams of a server, and what must become of each.

use rand::Rng as _;
use rand::rngs::SmallRng;
use redis::Connection;

use super::Fate;
use super::documents;

type Field = (Vec<u8>, Vec<u8>);

/// Fields of an entry in one of the layouts.
struct Entry {
    stream: &'static str,
    fields: Vec<Field>,
    fate: Fate,
}

/// Writes an entry as no publisher should; answers where it lies and what must become of it.
pub fn write(server: &mut Connection, rng: &mut SmallRng) -> (String, Fate) {
    let Entry { stream, fields, fate } = entry(rng);
    let mut call = redis::cmd("XADD");
    call.arg(stream).arg("*");
    for (name, value) in fields {
        call.arg(name).arg(value);
    }
    let id: String = call.query(server).expect("the server takes any entry");
    (format!("{stream}/{id}"), fate)
}

fn entry(rng: &mut SmallRng) -> Entry {
    match rng.random_range(0..10) {
        0..2 => legacy(rng),
        2..4 => ledger(rng),
        _ => own(rng),
    }
}

fn field(name: &str, value: impl AsRef<[u8]>) -> Field {
    (name.as_bytes().to_vec(), value.as_ref().to_vec())
}

/// A name of its own for every entry: what is decoded is no duplicate of another.
pub fn id(rng: &mut SmallRng) -> String {
    format!("{:016x}", rng.random::<u64>())
}

/// One field per attribute.
fn own(rng: &mut SmallRng) -> Entry {
    let mut fields = vec![field("type", "odd"), field("id", id(rng)), field("source", "rig"), field("data", "{}")];
    let mut fate = Fate::Dead;
    match rng.random_range(0..14) {
        0 => fields[1].1 = b"\xff\xfe".to_vec(),
        1 => fields.push((b"\xff".to_vec(), b"1".to_vec())),
        2 => drop(fields.remove(0)),
        3 => fields = vec![field("foo", "bar")],
        4 => fields.push(field("type", "odd")),
        5 => fields.push(field("data", "[]")),
        6 => fields.extend([field("tenant", "a"), field("tenant", "a")]),
        7 => fields[1].1 = vec![b'i'; 1025],
        8 => fields.push((b"subject".to_vec(), b"\xc3".to_vec())),
        9 => fields.push((b"tenant".to_vec(), b"\xed\xa0\x80".to_vec())),
        10 => {
            fate = Fate::Either;
            *fields.last_mut().expect("there is data") = huge(rng);
        }
        _ => *fields.last_mut().expect("there is data") = field("data", documents::bad(rng)),
    }
    Entry { stream: "events:odd", fields, fate }
}

/// Larger than what is taken at any other door, or just strange.
fn huge(rng: &mut SmallRng) -> Field {
    match rng.random_range(0..20) {
        0 => field("data", format!("\"{}\"", "x".repeat(rng.random_range(1 << 20..5 << 19)))),
        1..5 => {
            let keys: Vec<String> = (0..rng.random_range(9_990..10_010)).map(|n| format!("\"{n}\":{n}")).collect();
            field("data", format!("{{{}}}", keys.join(",")))
        }
        5..10 => field("data", "[".repeat(128) + &"]".repeat(128)),
        10..15 => field("data", "123456789012345678901234567890"),
        _ => field("nothing", "1e400"),
    }
}

/// `type`, `payload`, `ts`.
fn legacy(rng: &mut SmallRng) -> Entry {
    let mut fields = vec![field("type", "legacy"), field("payload", "{}"), field("ts", "1700000000")];
    match rng.random_range(0..7) {
        0 => fields[2] = field("ts", "soon"),
        1 => fields.push(field("ts", "1700000000")),
        2 => fields.push(field("type", "legacy")),
        3 => fields[2] = field("ts", b"\xff"),
        4 => drop(fields.remove(0)),
        _ => fields[1] = field("payload", documents::bad(rng)),
    }
    Entry { stream: "legacy", fields, fate: Fate::Dead }
}

/// One document that has everything.
fn ledger(rng: &mut SmallRng) -> Entry {
    let document = match rng.random_range(0..8) {
        0 => r#"{"event_id":"1","data":{}}"#.into(),
        1 => r#"{"event_id":"1","event_type":{}}"#.into(),
        2 => r#"{"event_id":{},"event_type":"ledger"}"#.into(),
        3 => r#"{"event_id":"1","event_type":"ledger","correlation_id":[1]}"#.into(),
        4 => r#"[{"event_id":"1","event_type":"ledger"}]"#.into(),
        5 => r#""ledger""#.into(),
        _ => documents::bad(rng),
    };
    Entry { stream: "ledger", fields: vec![field("event_data", document)], fate: Fate::Dead }
}
