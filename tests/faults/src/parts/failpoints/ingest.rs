//! A client of the HTTP door that sends once, and knows what it was promised.

use moontide::outcome::Emit;
use serde_json::{Value, json};

use crate::client::exchange;

/// Sends `emits` in one request, with an idempotency key or without; true: they were taken, and the store must have them.
pub async fn send(port: u16, emits: &[Emit], key: Option<&str>) -> bool {
    let events: Vec<Value> = emits.iter().map(cloud_event).collect();
    let body = Value::Array(events).to_string();
    let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
    let request = format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}\
         Content-Type: application/cloudevents-batch+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(port, request.as_bytes()).await.is_ok_and(|code| code == 202)
}

fn cloud_event(emit: &Emit) -> Value {
    let event = &emit.event;
    let data: Value = event
        .data
        .as_ref()
        .map_or(Value::Null, |data| serde_json::from_slice(data.bytes()).expect("the rig's events hold JSON"));
    json!({ "specversion": "1.0", "id": event.id, "source": event.source, "type": event.kind, "data": data })
}
