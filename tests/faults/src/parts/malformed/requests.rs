//! Requests that are refused with a reason, or cut and changed anywhere, and a client that says any bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;
use serde_json::Value;

use super::documents;
use super::entries::id;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
const JSON: (&str, &str) = ("Content-Type", "application/json");
const STRUCTURED: (&str, &str) = ("Content-Type", "application/cloudevents+json");

/// An answer.
pub struct Reply {
    /// 0: the connection ended without one.
    pub status: u16,
    pub body: String,
}

impl Reply {
    /// Ids of what was taken.
    pub fn ids(&self) -> Vec<String> {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let ids = body["ids"].as_array().into_iter().flatten();
        ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
    }

    /// What a refusal says.
    pub fn reason(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        (body["status"] == self.status).then_some(body["detail"].as_str()?.to_owned()).filter(|text| !text.is_empty())
    }
}

/// Says these bytes, and hears what comes.
pub fn say(address: SocketAddr, request: &[u8]) -> Reply {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time is not zero");
        // Whoever is refused half-way need not be heard to the end.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut answer);
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Reply { status: head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0), body: body.to_owned() }
}

fn request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut text =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    [text.as_bytes(), body].concat()
}

/// A request that is taken as the event `id`.
pub fn good(rng: &mut SmallRng) -> (String, Vec<u8>) {
    let id = id(rng);
    let whole =
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/rig","type":"odd","data":{{"n":[1,"a\u0041"]}}}}"#);
    let request = match rng.random_range(0..3) {
        0 => request("/events/odd", &[JSON, ("ce-id", &id)], br#"{"n":[1,"\ud83d\ude00"]}"#),
        1 => request(
            "/events",
            &[("ce-specversion", "1.0"), ("ce-id", &id), ("ce-source", "/rig"), ("ce-type", "odd")],
            b"{}",
        ),
        _ => request("/events", &[STRUCTURED], whole.as_bytes()),
    };
    (id, request)
}

/// A good request, changed in a few places.
pub fn changed(rng: &mut SmallRng) -> Vec<u8> {
    let (_, mut bytes) = good(rng);
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[at] = rng.random(),
            1 if bytes.len() > 1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, b"\0\r\n\"{}%\xff:"[rng.random_range(0..9)]),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// A request that must be refused, and say why.
pub fn bad(rng: &mut SmallRng) -> Vec<u8> {
    let id = id(rng);
    let binary = [JSON, ("ce-specversion", "1.0"), ("ce-source", "/rig"), ("ce-id", &id), ("ce-type", "odd")];
    let without =
        |at: usize| binary.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, header)| *header).collect::<Vec<_>>();
    let with = |name, value| [&binary[..], &[(name, value)]].concat();
    let plain = |headers: &[(&str, &str)], body: &[u8]| request("/events/odd", headers, body);
    let structured = |body: &str| request("/events", &[STRUCTURED], body.as_bytes());
    let document = documents::bad(rng);
    // What only a script finds wrong is taken here, and is a dead letter later.
    let document = if document.starts_with(b"\"\\u") { b"{".to_vec() } else { document };
    match rng.random_range(0..22) {
        0 => plain(&[], b"{}"),
        1 => plain(&[("Content-Type", "text/plain")], b"{}"),
        2 => plain(&[JSON], &vec![b' '; (1 << 20) + 1]),
        3 => plain(&[JSON, ("ce-type", "even")], b"{}"),
        4 => plain(&[JSON, ("ce-time", "soon")], b"{}"),
        5 => plain(&[JSON, ("ce-specversion", "0.3")], b"{}"),
        6 => plain(&[JSON, ("Idempotency-Key", "")], b"{}"),
        7 => plain(&[JSON, ("Idempotency-Key", &"k".repeat(300))], b"{}"),
        8 => plain(&[JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")], b"{}"),
        9 => request("/events/a%20b", &[JSON], b"{}"),
        10 => request("/events/%ff", &[JSON], b"{}"),
        11 => request("/events", &[JSON], b"{}"),
        12 => request("/events", &[], b"{}"),
        13 => structured("[]"),
        14 => structured("{}"),
        15 => structured(&format!(r#"{{"specversion":"1.0","id":"{id}","source":"/rig","type":"odd","tag":[1]}}"#)),
        16 => request("/events", &without(rng.random_range(2..5)), b"{}"),
        17 => request("/events", &with("ce-order_id", "1"), b"{}"),
        18 => request("/events", &with("ce-subject", "%ff"), b"{}"),
        _ => plain(&[JSON], &document),
    }
}
