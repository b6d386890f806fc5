//! A client over HTTP that repeats what it sends, under the same key, until it is told that it was taken.

use std::time::Duration;

use moontide::outcome::Emit;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::stage::PATIENCE;

/// Before it sends again.
const PAUSE: Duration = Duration::from_millis(2);
/// How long it waits for one answer.
const ANSWER: Duration = Duration::from_secs(20);
/// What an answer begins with, up to its code.
const STATUS: &str = "HTTP/1.1 ";

/// Sends `emit` to one after another of these ports, until somebody says 202.
///
/// # Errors
/// When it is refused, or never taken.
pub async fn send(ports: &[u16], emit: &Emit) -> Result<(), String> {
    let request = request(emit);
    let sending = async {
        for port in ports.iter().cycle() {
            match timeout(ANSWER, exchange(*port, &request)).await {
                Ok(Ok(202)) => return Ok(()),
                Ok(Ok(code)) if (400..500).contains(&code) && code != 429 => {
                    return Err(format!("refused with {code}"));
                }
                // Cut, away, or asked to come again: nobody knows whether it was stored.
                Ok(Ok(_) | Err(_)) | Err(_) => sleep(PAUSE).await,
            }
        }
        Err("sent to nobody".to_owned())
    };
    timeout(PATIENCE, sending).await.unwrap_or_else(|_| Err("never taken".to_owned()))
}

/// The same bytes whenever it is sent.
fn request(emit: &Emit) -> Vec<u8> {
    let event = &emit.event;
    let data = event.data.as_ref().map_or("null".into(), |data| data.text());
    format!(
        "POST /events/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {}\r\nce-id: {}\r\nce-source: {}\r\nContent-Length: {}\r\n\r\n{data}",
        event.kind,
        event.id,
        event.id,
        event.source,
        data.len()
    )
    .into_bytes()
}

/// The code of the answer, as soon as that much of it is there.
async fn exchange(port: u16, request: &[u8]) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request).await?;
    let mut answer = vec![0; STATUS.len() + 3];
    stream.read_exact(&mut answer).await?;
    let code = std::str::from_utf8(&answer).ok().and_then(|answer| answer.strip_prefix(STATUS)?.parse().ok());
    code.ok_or_else(|| std::io::Error::other("no HTTP"))
}
