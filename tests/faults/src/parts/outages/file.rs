//! Faults of a SQLite file.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moontide::host::EXIT_LOST;
use rand::seq::SliceRandom as _;
use rusqlite::Connection;

use super::disk::Disk;
use super::load::Load;
use crate::findings::Findings;
use crate::place::{FILE, Place};
use crate::stage::{HANDLERS, Stage};
use crate::task::rng;

/// Rounds of a full run; each plays every fault.
pub const ROUNDS: u64 = 8;
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n";
const DISK_MEGABYTES: u32 = 48;
/// Longer than the store waits for a lock of others.
const LOCKED_LONG: Duration = Duration::from_secs(6);
/// What a process says that can store nothing any more.
const SAID_LOST: &str = "its file was deleted or replaced";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Locked,
    LockedLong,
    ReadOnly,
    Away,
    Deleted,
    Disk,
}

impl Fault {
    const ALL: [Self; 6] = [Self::Locked, Self::LockedLong, Self::ReadOnly, Self::Away, Self::Deleted, Self::Disk];

    fn name(self) -> &'static str {
        match self {
            Self::Locked => "foreign lock",
            Self::LockedLong => "foreign lock for long",
            Self::ReadOnly => "read-only file",
            Self::Away => "file away",
            Self::Deleted => "file deleted",
            Self::Disk => "full disk",
        }
    }
}

pub async fn round(seed: u64) -> Findings {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk::mount(folder.path(), DISK_MEGABYTES);
    let mut load = Load::new(Stage::over(folder, Place::File, rng(seed), SETTINGS, HANDLERS).await).await;
    let mut faults = Fault::ALL.to_vec();
    faults.retain(|fault| *fault != Fault::Disk || disk.is_some());
    faults.shuffle(&mut load.stage.rng);
    for fault in faults {
        load.begin().await;
        make(&mut load, fault, disk.as_ref()).await;
        load.end(fault.name()).await;
    }
    load.over()
}

async fn make(load: &mut Load, fault: Fault, disk: Option<&Disk>) {
    let time = load.a_while();
    match fault {
        Fault::Locked => load.meanwhile(async |stage| locked(&file(stage), time).await).await,
        Fault::LockedLong => load.meanwhile(async |stage| locked(&file(stage), LOCKED_LONG).await).await,
        Fault::ReadOnly => read_only(load),
        Fault::Away => {
            let back = move_away(&file(&load.stage));
            refused(load, "put the file back");
            back();
        }
        Fault::Deleted => deleted(load).await,
        Fault::Disk => {
            let disk = disk.expect("faults of a disk are made where there is one");
            let full = async |_: &Stage| {
                let filler = disk.fill();
                tokio::time::sleep(time).await;
                drop(filler);
            };
            load.meanwhile(full).await;
        }
    }
}

fn file(stage: &Stage) -> PathBuf {
    stage.folder.path().join(FILE)
}

/// Another program writes, and takes its time.
async fn locked(file: &Path, time: Duration) {
    let other = Connection::open(file).expect("the file opens");
    other.busy_timeout(Duration::from_secs(10)).expect("it can be set");
    other.execute_batch("BEGIN IMMEDIATE").expect("it gets its turn");
    tokio::time::sleep(time).await;
    other.execute_batch("COMMIT").expect("it had the lock");
}

/// Whoever has the file open goes on.
fn read_only(load: &mut Load) {
    let file = file(&load.stage);
    let before = std::fs::metadata(&file).expect("it is there").permissions();
    std::fs::set_permissions(&file, Permissions::from_mode(0o444)).expect("it is ours");
    refused(load, "make it and its folder writable");
    std::fs::set_permissions(&file, before).expect("it is ours");
}

/// No process starts on the file as it is, and it says what to do.
fn refused(load: &mut Load, cure: &str) {
    let (_, mut process) = load.stage.start();
    let status = tokio::task::block_in_place(|| process.wait());
    if status.success() || load.stage.said(cure) == 0 {
        load.found.wrong(format!("a process ended by {status}, and nobody said to {cure}: {}", load.stage.tail()));
    }
}

/// Moves the file away; what is answered puts it back.
fn move_away(file: &Path) -> impl FnOnce() + use<> {
    let (file, elsewhere) = (file.to_owned(), file.with_extension("elsewhere"));
    std::fs::rename(&file, &elsewhere).expect("it is there");
    move || std::fs::rename(elsewhere, file).expect("nobody made another one")
}

/// The file stays away: every process ends, and says why. Where it is found again, nothing of it is lost.
async fn deleted(load: &mut Load) {
    let said = load.stage.said(SAID_LOST);
    let back = move_away(&file(&load.stage));
    for (name, process) in &mut load.processes {
        let status = tokio::task::block_in_place(|| process.wait());
        if status.code() != Some(EXIT_LOST) {
            load.found.wrong(format!("process {name} ended by {status}, its file being deleted"));
        }
    }
    if load.stage.said(SAID_LOST) < said + load.processes.len() as u64 {
        load.found.wrong(format!("not every process says that its file is gone: {}", load.stage.tail()));
    }
    back();
    for place in &mut load.processes {
        *place = load.stage.start();
    }
}
