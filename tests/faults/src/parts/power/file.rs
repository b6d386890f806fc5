//! A SQLite file and its write-ahead log: cut, and with bits that are others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use moontide::bus::BusError;
use moontide::bus::sqlite::{Options, Place as At, SqliteStore, Synchronous};
use parking_lot::Mutex;
use rand::Rng as _;
use rusqlite::Connection;
use tokio::runtime::Handle;

use super::wal;
use crate::findings::Findings;
use crate::parts::merge;
use crate::place::{FILE, Place};
use crate::seen::Seen;
use crate::seen::file::look;
use crate::stage::{HANDLERS, Stage};
use crate::task::rng;

/// Rounds of a full run.
pub const ROUNDS: u64 = 8;
/// Bytes after each other at which the log is cut: before the end of a commit, and after it.
const BEFORE: usize = 700;
const AFTER: usize = 300;
/// Besides: cuts anywhere in the log, bits in it that are others, and cuts of the file itself.
const ANYWHERE: usize = 200;
const FLIPS: usize = 200;
const FILE_CUTS: usize = 50;
/// Numbers of a round, and how many are published at once.
const NUMBERS: u64 = 60;
const AT_ONCE: u64 = 4;
/// After one of so many the work is finished.
const FINISHED_EVERY: usize = 100;
const LANES: usize = 2;
const SETTINGS: &str = "[groups]\nrecovery = \"1s\"\n[sqlite]\nsynchronous = \"normal\"\n";
const LOG: &str = "moontide.db-wal";

/// What is done to the files.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The log ends before this byte.
    Cut(usize),
    /// Bit 0 to 7 of this byte of the log is another.
    Flip(usize, u8),
    /// The file, with all that was in the log, ends before this byte.
    FileCut(usize),
}

pub async fn round(seed: u64) -> Findings {
    let whole = Arc::new(Files::written(seed).await);
    let (next, mut lanes) = (Arc::new(AtomicUsize::new(0)), Vec::new());
    for _ in 0..LANES {
        let (whole, next, runtime) = (whole.clone(), next.clone(), Handle::current());
        lanes.push(tokio::task::spawn_blocking(move || lane(&whole, &next, &runtime)));
    }
    let mut found = Findings::default();
    for lane in lanes {
        found.add(lane.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
    }
    found
}

/// What lay there when all processes were killed.
struct Files {
    file: Vec<u8>,
    log: Vec<u8>,
    /// Where each commit of the log ends.
    ends: Vec<usize>,
    /// The file with all of the log in it.
    merged: Vec<u8>,
    damages: Vec<Damage>,
    /// By how many commits are left: what there is, as SQLite alone sees it.
    expected: Mutex<BTreeMap<usize, Seen>>,
    /// The last number that was accepted.
    last: u64,
    seed: u64,
}

impl Files {
    /// Numbers are handled by processes, which are killed while they are at it. In some rounds the log is begun anew meanwhile.
    async fn written(seed: u64) -> Self {
        let mut stage = Stage::new(Place::File, rng(seed), SETTINGS).await;
        let mut processes = [stage.start(), stage.start()];
        let anew = stage.rng.random_bool(0.5).then(|| stage.rng.random_range(0..NUMBERS / AT_ONCE));
        for nth in 0..NUMBERS / AT_ONCE {
            stage.feed(AT_ONCE).await;
            stage.pause(0..30).await;
            if anew == Some(nth) {
                let file = Connection::open(stage.folder.path().join(FILE)).expect("the file opens");
                file.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).expect("all is moved into the file");
            }
        }
        processes.iter_mut().for_each(|(_, process)| process.kill());
        let read = |name: &str| std::fs::read(stage.folder.path().join(name)).expect("it is readable");
        let (file, log) = (read(FILE), read(LOG));
        let ends = wal::ends(&log);
        let merged = merged(&file, &log);
        let damages = plan(&mut stage, &ends, log.len(), merged.len());
        Self { file, log, ends, merged, damages, expected: Mutex::default(), last: stage.last(), seed }
    }

    /// What SQLite alone sees where so many commits are left.
    fn expected(&self, commits: usize) -> Seen {
        let mut known = self.expected.lock();
        known.entry(commits).or_insert_with(|| self.alone(commits)).clone()
    }

    fn alone(&self, commits: usize) -> Seen {
        let folder = memory();
        let end = commits.checked_sub(1).map_or(0, |last| self.ends[last]);
        put(folder.path(), &self.file, &self.log[..end]);
        let file = Connection::open(folder.path().join(FILE)).expect("the file opens");
        let tables = file.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        // A new file has none.
        if tables.expect("the schema is readable") == 0 {
            Seen::default()
        } else {
            look(&file).expect("it is readable")
        }
    }
}

/// By SQLite alone.
fn merged(file: &[u8], log: &[u8]) -> Vec<u8> {
    let folder = memory();
    put(folder.path(), file, log);
    let opened = Connection::open(folder.path().join(FILE)).expect("the file opens");
    opened.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("all is moved into the file");
    drop(opened);
    std::fs::read(folder.path().join(FILE)).expect("it is readable")
}

/// A folder in memory, where there is that: nothing here depends on the disk, and it is slow.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

fn put(folder: &Path, file: &[u8], log: &[u8]) {
    std::fs::write(folder.join(FILE), file).expect("the file is written");
    std::fs::write(folder.join(LOG), log).expect("the log is written");
}

fn plan(stage: &mut Stage, ends: &[usize], log: usize, file: usize) -> Vec<Damage> {
    let rng = &mut stage.rng;
    let end = ends[rng.random_range(0..ends.len())];
    let mut damages: Vec<Damage> = (end.saturating_sub(BEFORE)..(end + AFTER).min(log)).map(Damage::Cut).collect();
    damages.extend((0..ANYWHERE).map(|_| Damage::Cut(rng.random_range(0..=log))));
    damages.extend((0..FLIPS).map(|_| Damage::Flip(rng.random_range(0..log), rng.random_range(0..8))));
    damages.extend((0..FILE_CUTS).map(|_| Damage::FileCut(rng.random_range(1..file))));
    damages
}

/// Does one damage after the other, each to files of its own, until all are done.
fn lane(whole: &Files, next: &AtomicUsize, runtime: &Handle) -> Findings {
    let mut found = Findings::default();
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        let Some(damage) = whole.damages.get(nth) else { return found };
        let folder = memory();
        let mut step = Findings::default();
        match *damage {
            Damage::FileCut(byte) => refused(whole, folder.path(), byte, &mut step),
            Damage::Cut(byte) => {
                put(folder.path(), &whole.file, &whole.log[..byte]);
                step.fault("cut", 1);
                opened(whole, &folder, wal::kept(&whole.ends, byte), &mut step);
            }
            Damage::Flip(byte, bit) => {
                let mut log = whole.log.clone();
                log[byte] ^= 1 << bit;
                put(folder.path(), &whole.file, &log);
                step.fault("flipped bit", 1);
                opened(whole, &folder, wal::kept(&whole.ends, byte), &mut step);
            }
        }
        if nth.is_multiple_of(FINISHED_EVERY) && !matches!(damage, Damage::FileCut(_)) {
            runtime.block_on(finish(whole, folder, &mut step));
        }
        merge(&mut found, step, &format!("{damage:?}"));
    }
}

fn open(folder: &Path) -> Result<Arc<SqliteStore>, BusError> {
    let at = Options::at(At::File(folder.join(FILE)));
    SqliteStore::open(Options { synchronous: Synchronous::Normal, ..at })
}

/// The product finds what SQLite alone finds in the commits that are left, and of no event a part.
fn opened(whole: &Files, folder: &tempfile::TempDir, commits: usize, found: &mut Findings) {
    let store = match open(folder.path()) {
        Ok(store) => store,
        Err(error) => {
            found.lost += 1;
            return found.wrong(format!("it is refused: {error}"));
        }
    };
    let file = Connection::open(folder.path().join(FILE)).expect("the file opens");
    let (seen, expected) = (look(&file).expect("it is readable"), whole.expected(commits));
    drop(store);
    let torn = seen.torn();
    found.doubled += torn.len() as u64;
    torn.into_iter().for_each(|text| found.wrong(text));
    // What was due may have gone into its stream meanwhile.
    let told = |seen: &Seen| (seen.accounts(), seen.state.clone(), seen.records);
    if told(&seen) != told(&expected) {
        found.lost += 1;
        found.wrong(format!("of {commits} commits: {seen:?}, where there should be {expected:?}"));
    }
}

/// A file that ends too early is not worked with, and the text says which and what to do.
fn refused(whole: &Files, folder: &Path, byte: usize, found: &mut Findings) {
    put(folder, &whole.merged[..byte], &[]);
    found.fault("cut file", 1);
    match open(folder) {
        Err(BusError::Unusable { store, cause }) if store.contains(FILE) && is_cure(&cause) => {}
        Err(error) => found.wrong(format!("it is refused without a cure: {error}")),
        Ok(_) => {
            found.lost += 1;
            found.wrong("it is worked with".into());
        }
    }
}

fn is_cure(cause: &str) -> bool {
    cause.contains("restore a backup") || cause.contains("name another file")
}

/// What was taken back is done again by a process, and all that is left of what was accepted is there once.
async fn finish(whole: &Files, folder: tempfile::TempDir, found: &mut Findings) {
    let last = {
        let file = Connection::open(folder.path().join(FILE)).expect("the file opens");
        look(&file).expect("it is readable").last()
    };
    let mut stage = Stage::over(folder, Place::File, rng(whole.seed), SETTINGS, HANDLERS).await;
    stage.goes_on_after(last);
    let process = stage.start();
    let mut finished = stage.check().await;
    drop(process);
    finished.predicted += whole.last - last;
    found.add(finished);
}
