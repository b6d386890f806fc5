//! Listening, and what one client, or many, can make us hold: connections, headers, time.
//!
//! A connection that says nothing, says it slowly or never ends is closed; one too many is told so and closed at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Listen;

/// Open connections per listener.
const CONNECTIONS_MAX: usize = 1024;
/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Time for a request's line and headers, and for the next request of a connection to begin.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// After this time a connection ends with the request under way.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// Time for the requests under way when a connection ends.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(45);
/// Pause after the system could not give us a connection: it has no more, and asking at once does not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Ports tried after the default one.
const MORE_PORTS: u16 = 10;

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 76\r\n\r\n\
    {\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections\"}";

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}): {cause}; {cure}")]
pub struct ListenError {
    address: SocketAddr,
    key: &'static str,
    cause: std::io::Error,
    cure: String,
}

impl ListenError {
    fn new(address: SocketAddr, key: &'static str, cause: std::io::Error) -> Self {
        let port = address.port();
        let cure = match cause.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("end what uses it (ss -ltnp 'sport = :{port}' names it), or choose another port")
            }
            std::io::ErrorKind::PermissionDenied => "choose a port above 1023".to_owned(),
            _ => "choose an address of this machine".to_owned(),
        };
        Self { address, key, cause, cure }
    }
}

/// Opens the address of `key`. A default that is taken gives way to the next free port, because several processes on one
/// machine are ordinary; a default that cannot be had at all is `None`.
///
/// # Errors
/// When somebody chose the address and it cannot be had.
pub async fn bind(listen: Listen, key: &'static str) -> Result<Option<TcpListener>, ListenError> {
    let mut address = listen.address;
    let error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(Some(listener)),
        Err(cause) => ListenError::new(address, key, cause),
    };
    if listen.explicit {
        return Err(error);
    }
    for port in (listen.address.port()..=u16::MAX).skip(1).take(usize::from(MORE_PORTS)) {
        address.set_port(port);
        if let Ok(listener) = TcpListener::bind(address).await {
            tracing::warn!("{} is taken; HTTP is on {address} instead ({key} chooses another)", listen.address);
            return Ok(Some(listener));
        }
    }
    tracing::warn!("{error}; going on without HTTP");
    Ok(None)
}

/// An open listener and its connections.
pub struct Door {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Door {
    /// Begins to serve.
    ///
    /// # Errors
    /// When the listener does not know its own address.
    pub fn open(listener: TcpListener, routes: Router) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, routes, stop.clone(), CONNECTIONS_MAX));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nobody in any more, and waits for the requests under way.
    pub async fn close(self) {
        self.stop.cancel();
        if let Err(defect) = self.task.await {
            tracing::error!("the HTTP listener ended by a defect: {defect}");
        }
    }
}

async fn accept(listener: TcpListener, routes: Router, stop: CancellationToken, connections_max: usize) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            // What does not fit into the socket's buffer is not worth waiting for.
            let _ = stream.try_write(FULL);
            continue;
        };
        let (routes, stop) = (routes.clone(), stop.clone());
        connections.spawn(async move {
            serve(stream, routes, &stop).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn serve(stream: TcpStream, routes: Router, stop: &CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection is served with delay: {error}");
    }
    let mut http = http1::Builder::new();
    // A client may say all it has to say, close its side, and wait.
    http.half_close(true);
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => end(connection).await,
        () = tokio::time::sleep(CONNECTION_TIME) => end(connection).await,
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended early: {error}");
    }
}

type Connection = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

async fn end(mut connection: std::pin::Pin<&mut Connection>) -> hyper::Result<()> {
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(LAST_REQUEST_TIME, connection).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_unless_nobody_chose_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
        let address = taken.local_addr().expect("it is bound");
        let error = bind(Listen { address, explicit: true }, "http.listen").await.expect_err("the port is taken");
        let says = format!("cannot listen on {address} (http.listen): ");
        assert!(error.to_string().starts_with(&says) && error.to_string().contains("ss -ltnp"), "{error}");
        let other = bind(Listen { address, explicit: false }, "http.listen").await.expect("the default gives way");
        assert_ne!(other.map(|other| other.local_addr().expect("it is bound")), Some(address));
    }

    async fn started(connections_max: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(accept(listener, Router::new(), CancellationToken::new(), connections_max));
        address
    }

    /// Time stands still but when everybody waits for it.
    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_half_a_request_is_shown_out() {
        let address = started(8).await;
        for said in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1\r\n"] {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(said.as_bytes()).await.expect("it is open");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("it is closed in order");
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{said:?}: {}", String::from_utf8_lossy(&answer));
        }
    }

    #[tokio::test]
    async fn one_too_many_is_told_so_and_the_next_one_finds_room() {
        let address = started(1).await;
        let mut first = TcpStream::connect(address).await.expect("it listens");
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        first.write_all(request).await.expect("it is open");
        first.read_u8().await.expect("it is served");
        let mut second = TcpStream::connect(address).await.expect("it listens");
        let mut answer = Vec::new();
        second.read_to_end(&mut answer).await.expect("it is closed in order");
        assert_eq!(answer, FULL);
        drop(first);
        loop {
            let mut third = TcpStream::connect(address).await.expect("it listens");
            let mut status = [0; 12];
            if third.write_all(request).await.is_ok()
                && third.read_exact(&mut status).await.is_ok()
                && status == *b"HTTP/1.1 404"
            {
                return;
            }
        }
    }

    #[test]
    fn the_answer_to_one_too_many_is_whole() {
        let text = std::str::from_utf8(FULL).expect("it is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("it has a head");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("it is JSON");
    }
}
