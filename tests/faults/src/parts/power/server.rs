//! The append-only file of a server, cut.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use moontide_stage::server::{Kind, Server};
use rand::Rng as _;
use tokio::runtime::Handle;

use super::log::{self, Commit, Predicted};
use crate::findings::Findings;
use crate::parts::merge;
use crate::place::Place;
use crate::seen::server::look;
use crate::stage::{HANDLERS, Stage};
use crate::task::rng;

/// Rounds of a full run, and how often the log is cut in each: at every byte of the first half of that many of a settle, and
/// of the second half up to its end.
pub const ROUNDS: u64 = 11;
const CUTS: usize = 500;
/// Numbers of a round, and how many are published at once.
const NUMBERS: u64 = 60;
const AT_ONCE: u64 = 4;
/// After one of so many cuts the work is finished.
const FINISHED_EVERY: usize = 50;
/// Servers that are started on cut logs side by side.
const SERVERS: usize = 4;
const OPTIONS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
/// Of servers that are started on what the first one had written: what they write must survive nothing.
const AFTERWARDS: &[&str] = &["--appendonly", "yes", "--appendfsync", "no"];
const SETTINGS: &str = "[groups]\nrecovery = \"1s\"\n";

pub async fn round(seed: u64) -> Findings {
    let whole = Arc::new(Log::written(seed).await);
    let (next, mut lanes) = (Arc::new(AtomicUsize::new(0)), Vec::new());
    for _ in 0..SERVERS {
        let (whole, next, runtime) = (whole.clone(), next.clone(), Handle::current());
        lanes.push(tokio::task::spawn_blocking(move || lane(&whole, &next, &runtime)));
    }
    let mut found = Findings::default();
    for lane in lanes {
        found.add(lane.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
    }
    found
}

/// A log as it was when its server was killed, and where it is cut.
struct Log {
    bytes: Vec<u8>,
    commits: Vec<Commit>,
    cuts: Vec<usize>,
    /// The last number that was accepted.
    last: u64,
    seed: u64,
}

impl Log {
    /// Numbers are handled by processes, and the server is killed while they are at it.
    async fn written(seed: u64) -> Self {
        let server = Server::with(Kind::Redis, OPTIONS);
        let mut stage = Stage::new(Place::Server(server), rng(seed), SETTINGS).await;
        let _processes = [stage.start(), stage.start()];
        for _ in 0..NUMBERS / AT_ONCE {
            stage.feed(AT_ONCE).await;
            stage.pause(0..30).await;
        }
        stage.server().kill();
        let bytes = std::fs::read(file(stage.server())).expect("the log is readable");
        let commits = log::commits(&bytes);
        let settles: Vec<&Commit> = commits.iter().filter(|commit| commit.writes_state()).collect();
        let settle = settles[stage.rng.random_range(0..settles.len())];
        let mut cuts: Vec<usize> = (settle.begin..settle.end).take(CUTS / 2).collect();
        cuts.extend((settle.begin..=settle.end).rev().take(CUTS / 2));
        Self { bytes, cuts, commits, last: stage.last(), seed }
    }
}

/// The part of a server's log that is appended to.
fn file(server: &Server) -> PathBuf {
    let folder = server.folder().join("appendonlydir");
    let files = std::fs::read_dir(folder).expect("it has a log").flatten().map(|entry| entry.path());
    let mut incremental = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
    incremental.next().expect("it is appended to")
}

/// Makes one cut after the other, on a server of its own, until all are made.
fn lane(whole: &Log, next: &AtomicUsize, runtime: &Handle) -> Findings {
    let mut found = Findings::default();
    let mut server = Server::with(Kind::Redis, AFTERWARDS);
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        let Some(&cut) = whole.cuts.get(nth) else { return found };
        server.kill();
        std::fs::write(file(&server), &whole.bytes[..cut]).expect("the log is written");
        server.start();
        found.fault("cut", 1);
        let predicted = Predicted::before(&whole.commits, cut);
        check(&server, cut, &predicted, &mut found);
        if nth.is_multiple_of(FINISHED_EVERY) {
            server = runtime.block_on(finish(server, whole, cut, predicted.last, &mut found));
        }
    }
}

/// What the server has is what was predicted, and of no event a part.
fn check(server: &Server, cut: usize, predicted: &Predicted, found: &mut Findings) {
    let seen = look(server);
    let torn = seen.torn();
    found.doubled += torn.len() as u64;
    torn.into_iter().for_each(|text| found.wrong(format!("cut at {cut}: {text}")));
    if seen.state != predicted.state || seen.last() != predicted.last {
        found.lost += 1;
        let (last, keys) = (seen.last(), seen.state.len());
        let expected = (predicted.last, predicted.state.len());
        found.wrong(format!("cut at {cut}: {last} numbers and {keys} keys, where {expected:?} were written"));
    }
}

/// What was taken back is done again, and all that was accepted before the cut is there once.
async fn finish(server: Server, whole: &Log, cut: usize, last: u64, found: &mut Findings) -> Server {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut stage = Stage::over(folder, Place::Server(server), rng(whole.seed), SETTINGS, HANDLERS).await;
    stage.goes_on_after(last);
    let process = stage.start();
    let mut finished = stage.check().await;
    drop(process);
    finished.predicted += whole.last - last;
    merge(found, finished, &format!("cut at {cut}"));
    match stage.place {
        Place::Server(server) => server,
        Place::File => unreachable!("it is on a server"),
    }
}
