//! A small client: says exactly these bytes, and reads what comes until the connection ends.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// 0: the connection ended without an answer.
    pub status: u16,
    /// As they came, in small letters.
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header)
    }

    /// Ids of the events that were taken.
    pub fn ids(&self) -> Vec<String> {
        assert_eq!(self.status, 202, "{self:?}");
        let ids = self.json()["ids"].as_array().cloned().unwrap_or_default();
        ids.iter().map(|id| id.as_str().expect("an id is a text").to_owned()).collect()
    }

    /// What a refusal says.
    pub fn problem(&self) -> (u16, String) {
        assert!(self.has("content-type: application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status, "{self:?}");
        (self.status, document["detail"].as_str().expect("it says what is wrong").to_owned())
    }
}

/// Says `request` and reads to the end.
pub async fn say(address: SocketAddr, request: &[u8]) -> Reply {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address).await {
        exchange(&mut stream, request, &mut answer).await;
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn exchange(stream: &mut TcpStream, request: &[u8], answer: &mut Vec<u8>) {
    // Whoever is refused half-way need not be heard to the end.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(answer).await;
}

/// A request as bytes; the connection ends after it.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: localhost\r\n");
    }
    if method == "POST" && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

pub async fn get(address: SocketAddr, path: &str) -> Reply {
    say(address, &request("GET", path, &[], b"")).await
}

/// Plain JSON to `path`.
pub async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    say(address, &request("POST", path, &headers, body.as_bytes())).await
}
