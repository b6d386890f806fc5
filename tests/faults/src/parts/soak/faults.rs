//! The faults of a soak.

use std::time::Duration;

use super::Soak;
use crate::place::{Bus, FILE};

pub const PULSE: &str = include_str!("../../../handlers/pulse.luau");

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Kill,
    Stop,
    Term,
    /// All connections to the server.
    Cut,
    /// The server answers nobody.
    Pause,
    /// The server is killed and comes back with what it had.
    Restart,
    ScriptFlush,
    /// Somebody else holds the file's lock.
    Lock,
    Reloads,
    Broken,
    Malformed,
}

/// Those that can be made on `bus`.
pub fn faults(bus: Bus) -> &'static [Fault] {
    use Fault::{Broken, Cut, Kill, Lock, Malformed, Pause, Reloads, Restart, ScriptFlush, Stop, Term};
    match bus {
        Bus::Redis => &[Kill, Stop, Term, Reloads, Broken, Cut, Pause, Restart, ScriptFlush, Malformed],
        Bus::Sqlite => &[Kill, Stop, Term, Reloads, Broken, Lock],
    }
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Term => "term",
            Self::Cut => "cut of all connections",
            Self::Pause => "pause of the server",
            Self::Restart => "restart of the server",
            Self::ScriptFlush => "script flush",
            Self::Lock => "foreign lock",
            Self::Reloads => "storm of reloads",
            Self::Broken => "broken script",
            Self::Malformed => "malformed entries",
        }
    }

    /// Makes one that does not concern the other process.
    pub(super) async fn make(self, soak: &mut Soak) {
        match self {
            Self::Cut => drop(soak.stage.server().try_call(&["CLIENT", "KILL", "TYPE", "normal"])),
            Self::ScriptFlush => drop(soak.stage.server().call(&["SCRIPT", "FLUSH"])),
            Self::Pause => {
                soak.stage.server().pause();
                tokio::time::sleep(Duration::from_secs(3)).await;
                soak.stage.server().resume();
            }
            Self::Restart => {
                soak.stage.server().kill();
                tokio::time::sleep(Duration::from_secs(1)).await;
                soak.stage.server().start();
            }
            Self::Lock => lock(soak).await,
            Self::Reloads => reloads(soak).await,
            Self::Broken => {
                soak.stage.write_handler("pulse", "return { on = 'pulse', handle = function(event, ctx)");
                soak.go_on(Duration::from_secs(5)).await;
                soak.stage.write_handler("pulse", PULSE);
            }
            Self::Malformed => malformed(soak),
            Self::Kill | Self::Stop | Self::Term => {}
        }
    }
}

async fn lock(soak: &mut Soak) {
    let file = soak.stage.folder.path().join(FILE);
    let held = rusqlite::Connection::open(file).expect("the file is there");
    held.busy_timeout(Duration::from_secs(10)).expect("it takes a number");
    held.execute_batch("BEGIN IMMEDIATE").expect("nobody holds it for long");
    tokio::time::sleep(Duration::from_secs(2)).await;
    held.execute_batch("ROLLBACK").expect("it was begun");
}

/// A hundred versions of one handler, one after the other.
async fn reloads(soak: &mut Soak) {
    for version in 0..100 {
        soak.stage.write_handler("pulse", &format!("{PULSE}-- version {version}\n"));
        soak.go_on(Duration::from_millis(20)).await;
    }
    soak.stage.write_handler("pulse", PULSE);
}

fn malformed(soak: &mut Soak) {
    for n in 0..50 {
        let _: String =
            soak.stage.server().get(&["XADD", "events:pulse", "*", "id", &format!("bad-{n}"), "data", "{\"n\":"]);
    }
}
