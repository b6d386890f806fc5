//! A service on loopback: answers as its path says, and remembers who asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// Number of the connection, from 1.
    pub connection: usize,
}

/// Ends with what is dropped.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, seen.clone())));
        Self { address, seen, _task: task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Vec<Seen>>>) {
    let (mut connections, mut count) = (JoinSet::new(), 0);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection comes");
        count += 1;
        connections.spawn(serve(stream, count, seen.clone()));
    }
}

async fn serve(stream: TcpStream, connection: usize, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, connection).await {
        let before = {
            let mut seen = seen.lock();
            seen.push(request.clone());
            seen.iter().filter(|one| one.path == request.path).count() - 1
        };
        // Who asked may be gone.
        if answer(stream.get_mut(), &request, before).await.is_none() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, connection: usize) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_owned(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { method, path, headers, body: String::from_utf8_lossy(&body).into_owned(), connection })
}

/// Answers; `None`: the connection ends. `before` is how often the same was asked already.
async fn answer(stream: &mut TcpStream, request: &Seen, before: usize) -> Option<()> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let again = before > 0;
    match path {
        "/stall" => std::future::pending().await,
        // As if it had been away.
        "/stall-once" if !again => std::future::pending().await,
        "/garbage" => send(stream, "220 mail.example ESMTP\r\n\r\n").await.and(None),
        "/half" => send(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await.and(None),
        "/hang-up" => None,
        "/endless" => endless(stream).await,
        "/long" => {
            let body = "x".repeat(query.parse().expect("a length"));
            whole(stream, "200 OK", "", &body).await
        }
        "/to" => whole(stream, "302 Found", &format!("Location: {}\r\n", decoded(query)), "").await,
        "/around" => whole(stream, "307 Temporary Redirect", "Location: /around\r\n", "").await,
        "/busy" if !again => whole(stream, "503 Service Unavailable", "Retry-After: 1\r\n", "busy").await,
        "/flaky" if !again => whole(stream, "500 Internal Server Error", "", "broken").await,
        "/zipped" => whole(stream, "200 OK", "Content-Encoding: gzip\r\n", "not unpacked").await,
        "/down" => whole(stream, "503 Service Unavailable", "", "").await,
        _ => whole(stream, "200 OK", "X-Twice: a\r\nx-twice: b\r\n", r#"{"ok":true,"n":[1,2]}"#).await,
    }
}

fn decoded(text: &str) -> String {
    text.replace("%3A", ":").replace("%2F", "/")
}

async fn send(stream: &mut TcpStream, text: &str) -> Option<()> {
    stream.write_all(text.as_bytes()).await.ok()
}

async fn whole(stream: &mut TcpStream, status: &str, headers: &str, body: &str) -> Option<()> {
    let length = body.len();
    send(stream, &format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")).await
}

async fn endless(stream: &mut TcpStream) -> Option<()> {
    send(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    loop {
        send(stream, &chunk).await?;
    }
}
