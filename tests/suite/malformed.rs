//! Malformed events through a whole host: each is handled or ends in a dead letter that says why; nothing is lost, nothing
//! is held up.

use std::time::Duration;

use moontide::bus::{DeadLetter, DeadReason, Undecodable};
use moontide::event::Json;
use moontide::judge::DeathReason;
use moontide::outcome::Emit;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use serde::de::IgnoredAny;

use crate::support::{Desk, event};

const SEED: u64 = 2026;
const BATCH: usize = 100;
pub const PLAIN: &str =
    "return { on = 'bad', handle = function(event, ctx) pcall(ctx.emit, ctx, 'seen', event.data) end }";
pub const KEYED: &str = "return { on = 'bad', idempotency = { key = 'data.id', window = '1h' },
    handle = function(event, ctx) ctx.kv:add('keyed', 1) end }";
const NEIGHBOUR: &str = "return { on = 'fine', handle = function(event, ctx) ctx.kv:add('fine', 1) end }";
const GOOD: &str = r#"{"id":"o-1","lines":[{"sku":"a","quantity":2,"price":12.50},{"sku":"ü€😀","quantity":1}],"n":-1.5e3,"ok":true,"none":null}"#;

/// Texts that are no JSON, or strange.
const TEXTS: &[&str] = &[
    "",
    " ",
    "\n",
    "nul",
    "nulll",
    "TRUE",
    "tru",
    "NaN",
    "Infinity",
    "-Infinity",
    "undefined",
    "'a'",
    "{'a':1}",
    "{a:1}",
    "[1,]",
    "[,1]",
    "{\"a\":1,}",
    "{,}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\" 1}",
    "[1 2]",
    "[1]]",
    "[1",
    "]",
    "}",
    "{",
    "[",
    "\"",
    "\"a",
    "\"\\\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\ud800\"",
    "\"\\udc00\"",
    "\"\\ud800\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\u{1}\"",
    "\"\n\"",
    "\"\t\"",
    "\"\\u0000\"",
    "{\"\\u0000\":1}",
    "{\"a\":1,\"a\":1}",
    "{\"a\":1,\"\\u0061\":2}",
    "{\"x\":{\"a\":1,\"b\":2,\"a\":3}}",
    "{\"\":1,\"\":2}",
    "\u{feff}{}",
    "{}\u{feff}",
    "{} {}",
    "{}x",
    "{}\0",
    "\0",
    "// c\n{}",
    "/* c */{}",
    "#c",
    "<a/>",
    "---\na: 1",
    "01",
    "-01",
    "+1",
    ".5",
    "5.",
    "1.e1",
    "1e",
    "1e+",
    "-",
    "--1",
    "0x10",
    "1_000",
    "1,5",
    "1e400",
    "-1e400",
    "1e-400",
    "1e99999999999999999999",
    "0e99999999999999999999",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827021181583404541015625",
    "3.141592653589793238462643383279",
    "-0",
    "-0.0",
    "1E5",
    "1.7976931348623159e308",
    "4.9e-324",
    "2.4e-324",
    "{\"id\":null}",
    "{\"id\":{}}",
    "{\"id\":[]}",
    "{\"id\":\"\"}",
    "{\"id\":0}",
    "{\"id\":-0.0}",
    "{\"id\":1e400}",
    "{\"id\":9007199254740993}",
    "{\"id\":true}",
    "{\"ID\":1}",
    "{\"id\":\"\\u0000\"}",
    "[{\"id\":1}]",
    "\"id\"",
    "null",
    "true",
    "1",
    "[]",
    "{}",
];
/// Bytes that are no text.
const BYTES: &[&[u8]] = &[
    b"\xff",
    b"\"\xff\"",
    b"\"\xc3\"",
    b"\"\xc0\xaf\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"{\"\x80\":1}",
    b"\xfe\xff\0{\0}",
    b"{\0}\0",
    b"\x1f\x8b\x08\0",
];

/// Documents that are wrong, or strange, one way each.
pub fn strange() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut add = |text: &str| all.push(text.as_bytes().to_vec());
    for depth in [127, 128, 129, 130, 1000, 100_000] {
        add(&("[".repeat(depth) + &"]".repeat(depth)));
        add(&("{\"a\":".repeat(depth) + "1" + &"}".repeat(depth)));
        add(&"[".repeat(depth));
        add(&"{\"a\":[".repeat(depth));
    }
    for keys in [9_999, 10_000, 10_001, 50_000] {
        let fields: Vec<String> = (0..keys).map(|n| format!("\"k{n}\":{n}")).collect();
        add(&format!("{{{}}}", fields.join(",")));
    }
    for len in [256, 257, 100_000] {
        add(&format!("{{\"{}\":1}}", "k".repeat(len)));
        add(&format!("{{\"id\":\"{}\"}}", "v".repeat(len)));
    }
    add(&format!("{{\"id\":\"big\",\"text\":\"{}\"}}", "x".repeat(3 << 20)));
    TEXTS.iter().for_each(|text| add(text));
    all.extend(BYTES.iter().map(|bytes| bytes.to_vec()));
    all
}

/// The good document, cut, changed, doubled or filled with noise in one place.
pub fn damaged(rng: &mut SmallRng) -> Vec<u8> {
    let mut text = GOOD.as_bytes().to_vec();
    let at = rng.random_range(0..text.len());
    match rng.random_range(0..6) {
        0 => text.truncate(at),
        1 => text[at] = rng.random(),
        2 => text[at] ^= 1 << rng.random_range(0..8),
        3 => {
            text.splice(at..at, b"{}[],:\"\\0e-.\xff"[rng.random_range(0..13)..].iter().take(1).copied()).for_each(drop)
        }
        4 => drop(text.drain(at..(at + rng.random_range(1..9)).min(GOOD.len()))),
        _ => {
            let end = rng.random_range(at..text.len());
            let part = text[at..end].to_vec();
            text.splice(at..at, part).for_each(drop);
        }
    }
    text
}

pub fn bad(number: usize, data: Vec<u8>) -> Emit {
    let mut emit = event("bad", number, "");
    emit.event.data = Some(Json::trusted(data));
    emit
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_handled_or_ends_with_a_reason() {
    let desk = Desk::new(&[("plain", PLAIN), ("keyed", KEYED), ("neighbour", NEIGHBOUR)]).await;
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut documents = strange();
    documents.extend((0..1500).map(|_| damaged(&mut rng)));
    for (batch, chunk) in documents.chunks(BATCH).enumerate() {
        let numbers = batch * BATCH..;
        desk.emit(numbers.zip(chunk).map(|(number, data)| bad(number, data.clone())).collect()).await;
        desk.emit(vec![event("fine", batch, "{}")]).await;
    }
    let count = documents.len() as u64;
    for handler in ["plain", "keyed"] {
        desk.until("each event has ended", |desk| {
            let counts = desk.counts(handler);
            counts.done + counts.dead + counts.duplicates == count
        })
        .await;
    }
    desk.until_state("fine", &documents.chunks(BATCH).len().to_string()).await;
    desk.quiet().await;

    let dead = desk.dead().await;
    let reasons = [DeathReason::Undecodable, DeathReason::Invalid];
    for letter in &dead {
        let last = letter.failures.last().expect("a dead letter has a reason");
        assert!(reasons.map(DeadReason::from).contains(&letter.reason), "{letter:?}");
        assert!(!last.failure.message.is_empty() && letter.attempts == 1, "{letter:?}");
    }
    for (number, data) in documents.iter().enumerate() {
        let letter = dead.iter().find(|letter| letter.handler == "plain" && id_of(letter) == number.to_string());
        let valid = serde_json::from_slice::<IgnoredAny>(data).is_ok();
        let text = String::from_utf8_lossy(&data[..data.len().min(200)]);
        assert!(valid || letter.is_some(), "number {number} of seed {SEED} is no JSON and was handled: {text}");
        if let Some(letter) = letter {
            assert_eq!(data_of(letter), data, "the dead letter keeps the bytes");
            let message = &letter.failures[0].failure.message;
            let placed = message.starts_with("data is not JSON: line ") || message.contains("UTF-8");
            assert!(placed, "{text}: {message}");
        }
    }
}

fn id_of(letter: &DeadLetter) -> String {
    match &letter.event {
        Ok(event) => event.id.clone(),
        Err(raw) => String::from_utf8_lossy(field(raw, b"id")).into_owned(),
    }
}

fn data_of(letter: &DeadLetter) -> &[u8] {
    match &letter.event {
        Ok(event) => event.data.as_ref().expect("it has data").bytes(),
        Err(raw) => field(raw, b"data"),
    }
}

fn field<'a>(raw: &'a Undecodable, name: &[u8]) -> &'a [u8] {
    raw.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| &value[..]).expect("the field is kept")
}

/// A value of some type that a column may have, whoever wrote it.
fn any_value(rng: &mut SmallRng) -> Value {
    match rng.random_range(0..8) {
        0 => Value::Null,
        1 => Value::Integer(rng.random()),
        2 => Value::Real(rng.random()),
        3 => Value::Blob((0..rng.random_range(0..40)).map(|_| rng.random()).collect()),
        4 => Value::Text(String::new()),
        5 => Value::Text("x".repeat(rng.random_range(1..5000))),
        6 => Value::Text(GOOD.to_owned()),
        _ => Value::Blob(GOOD.as_bytes().to_vec()),
    }
}

/// Writes an entry as no version of ours would.
fn write_entry(shell: &Connection, rng: &mut SmallRng) {
    let columns =
        "id, source, type, subject, time, dataschema, correlation_id, causation_id, traceparent, ext, data, past";
    let values: Vec<Value> = (0..12).map(|_| any_value(rng)).collect();
    shell
        .execute_batch("BEGIN IMMEDIATE; UPDATE stream SET last_seq = last_seq + 1 WHERE name = 'events:bad'")
        .expect("it is there");
    let sql = format!(
        "INSERT INTO event(pos, stored_at, {columns}) SELECT id << 40 | last_seq, 0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 \
         FROM stream WHERE name = 'events:bad'"
    );
    shell.execute(&sql, params_from_iter(values)).expect("the row is written");
    shell.execute_batch("COMMIT").expect("the row is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_any_form_hold_up_nobody() {
    let handler =
        "return { on = '*', streams = { 'events:bad' }, idempotency = { window = 'off' }, retry = { attempts = 1 },
        handle = function(event, ctx) if event.type == 'bad' then ctx.kv:add('good', 1) end end }";
    let desk = Desk::new(&[("plain", handler)]).await;
    desk.emit(vec![event("bad", 0, "{}")]).await;
    desk.until_state("good", "1").await;
    let shell = Connection::open(desk.dir.path().join("moontide.db")).expect("the file opens");
    shell.busy_timeout(Duration::from_secs(30)).expect("a timeout is set");
    let mut rng = SmallRng::seed_from_u64(SEED);
    for _ in 0..300 {
        write_entry(&shell, &mut rng);
    }
    desk.emit(vec![event("bad", 1, "{}")]).await;
    desk.until_state("good", "2").await;
    desk.quiet().await;
    // The store is quiet a moment before its last answer is counted.
    let ended = |desk: &Desk| desk.counts("plain").done + desk.counts("plain").dead;
    desk.until("all are counted", |desk| ended(desk) >= 302).await;
    assert_eq!(ended(&desk), 302);
    assert!(desk.dead().await.iter().all(|letter| !letter.failures.is_empty()));
}
