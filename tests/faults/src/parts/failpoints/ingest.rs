//! A client of the HTTP door: sends events, and knows what it was promised.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use moontide::outcome::Emit;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An address at which nobody listens yet.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are free ports");
    listener.local_addr().expect("it is bound")
}

/// Sends `emits`, with an idempotency key or without; true: they were taken, and the store must have them.
pub async fn send(address: SocketAddr, emits: &[Emit], key: Option<&str>) -> bool {
    let events: Vec<Value> = emits.iter().map(cloud_event).collect();
    let body = Value::Array(events).to_string();
    let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
    let request = format!(
        "POST /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}\
         Content-Type: application/cloudevents-batch+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    answer(address, &request).await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 202 "))
}

async fn answer(address: SocketAddr, request: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn cloud_event(emit: &Emit) -> Value {
    let event = &emit.event;
    let data: Value = event
        .data
        .as_ref()
        .map_or(Value::Null, |data| serde_json::from_slice(data.bytes()).expect("the rig's events hold JSON"));
    json!({ "specversion": "1.0", "id": event.id, "source": event.source, "type": event.kind, "data": data })
}
