//! Faults of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use moontide_stage::server::{Kind as Program, Server};
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::disk::Disk;
use super::load::{Load, units};
use super::replica;
use crate::findings::Findings;
use crate::place::Place;
use crate::seen::server::{look, look_and};
use crate::seen::{Copy, Kind, Seen, Standing, Unit};
use crate::stage::Stage;
use crate::task::rng;

/// Rounds of a full run; each plays every fault.
pub const ROUNDS: u64 = 8;
/// With a disk that is full it goes on reading.
pub const OPTIONS: &[&str] = &["--appendonly", "yes", "--appendfsync", "everysec", "--busy-reply-threshold", "50"];
const SETTINGS: &str = "[groups]\nrecovery = \"2s\"\n";
const DISK_MEGABYTES: u32 = 16;
/// What is said where a loss is noticed.
const SAID_TRIMMED: &str = "they were trimmed before it had received them";
const SAID_RESET: &str = "the group vanished from the store";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Restart,
    Empty,
    Flush,
    Delete,
    Destroy,
    Trim,
    Memory,
    Busy,
    Pause,
    ReadOnly,
    Scripts,
    Disk,
}

impl Fault {
    const ALL: [Self; 12] = [
        Self::Restart,
        Self::Empty,
        Self::Flush,
        Self::Delete,
        Self::Destroy,
        Self::Trim,
        Self::Memory,
        Self::Busy,
        Self::Pause,
        Self::ReadOnly,
        Self::Scripts,
        Self::Disk,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart kept",
            Self::Empty => "restart empty",
            Self::Flush => "flushall",
            Self::Delete => "del stream",
            Self::Destroy => "group destroyed",
            Self::Trim => "foreign trim",
            Self::Memory => "maxmemory",
            Self::Busy => "busy",
            Self::Pause => "client pause",
            Self::ReadOnly => "readonly",
            Self::Scripts => "script flush",
            Self::Disk => "full disk",
        }
    }
}

pub async fn round(seed: u64) -> Findings {
    let server = Server::with(Program::Redis, OPTIONS);
    server.kill();
    let disk = Disk::mount(server.folder(), DISK_MEGABYTES);
    server.start();
    let stage = Stage::new(Place::Server(server), rng(seed), SETTINGS).await;
    let mut load = Load::new(stage).await;
    let mut faults = Fault::ALL.to_vec();
    faults.retain(|fault| *fault != Fault::Disk || disk.is_some());
    faults.shuffle(&mut load.stage.rng);
    for fault in faults {
        load.begin().await;
        make(&mut load, fault, disk.as_ref()).await;
        load.end(fault.name()).await;
    }
    // Last, since the server is another one from then on.
    let _replica = replica::promote(&mut load).await;
    load.end("promotion").await;
    if load.expects_reset && load.stage.said(SAID_RESET) == 0 {
        load.found.wrong("nobody says that a group vanished".into());
    }
    load.over()
}

async fn make(load: &mut Load, fault: Fault, disk: Option<&Disk>) {
    let kind = *Kind::ALL.choose(&mut load.stage.rng).expect("there are some");
    let time = load.a_while();
    match fault {
        Fault::Restart => {
            load.stage.server().kill();
            tokio::time::sleep(time).await;
            load.stage.server().start();
        }
        Fault::Empty => {
            let seen = look(load.stage.server());
            load.stage.server().lose_everything();
            lose_everything(load, &seen);
        }
        Fault::Flush => {
            let seen = look_and(load.stage.server(), &["FLUSHALL"]).expect("it answers");
            lose_everything(load, &seen);
        }
        Fault::Delete => delete(load, kind),
        Fault::Destroy => drop(load.stage.server().call(&["XGROUP", "DESTROY", &kind.stream(), kind.name()])),
        Fault::Trim => trim(load, kind).await,
        Fault::Scripts => drop(load.stage.server().call(&["SCRIPT", "FLUSH"])),
        Fault::Busy => load.meanwhile(async |stage| busy(stage.server(), time).await).await,
        Fault::Pause => {
            let millis = time.as_millis().to_string();
            load.meanwhile(async |stage| passing(stage.server(), time, &["CLIENT", "PAUSE", &millis], &["PING"]).await)
                .await;
        }
        Fault::Memory => {
            let set = |bytes| ["CONFIG", "SET", "maxmemory", bytes];
            load.meanwhile(async |stage| passing(stage.server(), time, &set("1mb"), &set("0")).await).await;
        }
        Fault::ReadOnly => {
            let (away, back) = (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]);
            load.meanwhile(async |stage| passing(stage.server(), time, &away, &back).await).await;
        }
        Fault::Disk => {
            let disk = disk.expect("faults of a disk are made where there is one");
            let full = async |_: &Stage| {
                let filler = disk.fill();
                // The server tries again once a second.
                tokio::time::sleep(time + Duration::from_secs(1)).await;
                drop(filler);
            };
            load.meanwhile(full).await;
        }
    }
}

/// For `time`, things are as `begin` makes them, until `end`.
async fn passing(server: &Server, time: Duration, begin: &[&str], end: &[&str]) {
    server.call(begin);
    tokio::time::sleep(time).await;
    server.call(end);
}

/// A script that runs until it is killed.
async fn busy(server: &Server, time: Duration) {
    let mut connection = server.connect();
    let script = tokio::task::spawn_blocking(move || {
        redis::cmd("EVAL").arg("while true do end").arg(0).query::<redis::Value>(&mut connection)
    });
    tokio::time::sleep(time).await;
    while server.try_call(&["SCRIPT", "KILL"]).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    script.await.expect("it only waits").expect_err("it was killed");
}

/// What was there is gone, handled or not; whoever has some of it in hand is told.
fn lose_everything(load: &mut Load, seen: &Seen) {
    let last = load.stage.last();
    load.gone.extend(units(1, last));
    load.found.predicted += seen.accounts().len() as u64;
    load.expects_reset |= seen.copies.iter().any(|copy| copy.standing == Standing::Pending);
}

/// A stream is deleted, with all in it that was not done.
fn delete(load: &mut Load, kind: Kind) {
    let seen = look_and(load.stage.server(), &["DEL", &kind.stream()]).expect("it answers");
    let (units, _) = taken(&seen, kind, usize::MAX, |standing| standing != Standing::Settled);
    load.lose(units);
    let pending = |copy: &Copy| copy.standing == Standing::Pending && copy.unit.kind == kind && !copy.retry;
    load.expects_reset |= seen.copies.iter().any(pending);
}

/// Others trim a stream: what a process has in hand it ends, what nobody had received is lost, and counted.
async fn trim(load: &mut Load, kind: Kind) {
    load.processes.iter().for_each(|(_, process)| process.signal("STOP"));
    load.begin().await;
    let keep = load.stage.rng.random_range(0..10);
    let trim = ["XTRIM", &kind.stream(), "MAXLEN", &keep.to_string()];
    let seen = look_and(load.stage.server(), &trim).expect("it answers");
    load.processes.iter().for_each(|(_, process)| process.signal("CONT"));
    let length = in_stream(&seen, kind).count();
    let (units, lost) = taken(&seen, kind, length.saturating_sub(keep), |standing| standing == Standing::Unread);
    load.lose(units);
    let before = seen.lost.get(kind.name()).copied().unwrap_or(0);
    let counted = async || look(load.stage.server()).lost.get(kind.name()).copied().unwrap_or(0) == before + lost;
    load.stage.until(&format!("{kind:?} counts {lost} as lost besides {before}"), counted).await;
    if lost > 0 && load.stage.said(SAID_TRIMMED) == 0 {
        load.found.wrong("nobody says what was trimmed".into());
    }
}

/// What lies in the stream of `kind`, in its order.
fn in_stream(seen: &Seen, kind: Kind) -> impl Iterator<Item = &Copy> {
    let is_there = move |copy: &&Copy| copy.unit.kind == kind && !copy.retry && copy.standing != Standing::Later;
    seen.copies.iter().filter(is_there)
}

/// Where the first `count` of the stream of `kind` are taken away: the units that will not happen, since of none of their
/// copies anything `is_left`, and how many entries were lost.
fn taken(seen: &Seen, kind: Kind, count: usize, is_lost: impl Fn(Standing) -> bool) -> (Vec<Unit>, u64) {
    let mut lost = BTreeMap::<Unit, u64>::new();
    for copy in in_stream(seen, kind).take(count).filter(|copy| is_lost(copy.standing)) {
        *lost.entry(copy.unit).or_default() += 1;
    }
    let entries = lost.values().sum();
    let accounts = seen.accounts();
    lost.retain(|unit, lost| accounts[unit].done == 0 && accounts[unit].live == *lost);
    (lost.into_keys().collect(), entries)
}
