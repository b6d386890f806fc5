//! Stands between a client and a server and does what networks do: cuts, loses, holds back.
//!
//! Nothing is decided by time: a fault begins when a test says so, or at a byte after some words went by.

mod cuts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use cuts::Cuts;
pub use cuts::Storm;

/// What becomes of bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Pass,
    /// They are lost, and so is whatever the same connection carries that way later: nobody is told.
    Lose,
    /// They arrive when the mode is another.
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    ToServer,
    ToClient,
}

#[derive(Default)]
struct Faults {
    cuts: Mutex<Cuts>,
    accepted: AtomicUsize,
    modes: Option<watch::Sender<[Mode; 2]>>,
}

pub struct Proxy {
    port: u16,
    faults: Arc<Faults>,
    /// Ends with the proxy.
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let modes = Some(watch::Sender::new([Mode::Pass; 2]));
        let faults = Arc::new(Faults { modes, ..Faults::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, faults.clone()));
        Self { port, faults, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections that were made so far.
    pub fn accepted(&self) -> usize {
        self.faults.accepted.load(Ordering::SeqCst)
    }

    /// Cuts once, `after` bytes of the next request with `words`, or of what is answered from then on.
    pub fn cut_at(&self, words: &'static str, way: Way, after: usize) {
        self.faults.cuts.lock().arm(words, way, after);
    }

    /// Whether the cut was made; it is not made any more.
    pub fn was_cut(&self) -> bool {
        let mut cuts = self.faults.cuts.lock();
        let made = !cuts.is_armed();
        cuts.calm();
        made
    }

    /// Cuts every connection, those that are made anew, too, until the proxy is healed.
    pub fn storm(&self, storm: Storm) {
        self.faults.cuts.lock().storm(storm);
    }

    /// Cuts that were made so far.
    pub fn cuts(&self) -> u64 {
        self.faults.cuts.lock().made()
    }

    pub fn set(&self, way: Way, mode: Mode) {
        self.faults.modes().send_modify(|modes| modes[way as usize] = mode);
    }

    pub fn heal(&self) {
        self.faults.cuts.lock().calm();
        self.faults.modes().send_replace([Mode::Pass; 2]);
    }
}

impl Faults {
    fn modes(&self) -> &watch::Sender<[Mode; 2]> {
        self.modes.as_ref().expect("the proxy has them")
    }
}

async fn accept(listener: TcpListener, server: u16, faults: Arc<Faults>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = faults.accepted.fetch_add(1, Ordering::SeqCst);
        connections.spawn(carry(client, server, faults.clone(), number));
    }
}

async fn carry(client: TcpStream, server: u16, faults: Arc<Faults>, number: usize) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    for end in [&client, &server] {
        end.set_nodelay(true).expect("it is TCP");
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let lost = AtomicBool::new(false);
    tokio::select! {
        () = pump(from_client, to_server, &faults, number, Way::ToServer, &lost) => {}
        () = pump(from_server, to_client, &faults, number, Way::ToClient, &lost) => {}
    }
    faults.cuts.lock().forget(number);
    if lost.load(Ordering::SeqCst) {
        // Whoever is at the other end never hears that this one is gone.
        std::future::pending::<()>().await;
    }
}

/// Ends when the connection does.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: &Faults,
    number: usize,
    way: Way,
    lost: &AtomicBool,
) {
    let mut modes = faults.modes().subscribe();
    let mut buffer = vec![0; 64 << 10];
    let mut loses = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mode =
            modes.wait_for(|modes| modes[way as usize] != Mode::Hold).await.expect("the proxy lives")[way as usize];
        loses |= mode == Mode::Lose;
        if loses {
            lost.store(true, Ordering::SeqCst);
            continue;
        }
        let cut = faults.cuts.lock().within(number, way, &buffer[..count]);
        if to.write_all(&buffer[..cut.unwrap_or(count)]).await.is_err() || cut.is_some() {
            return;
        }
    }
}
