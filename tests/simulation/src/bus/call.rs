//! What is between a process and the store: time, and calls of which one end hears nothing.

use std::time::Duration;

use moontide::bus::BusError;

use crate::process::Process;
use crate::trace::Step;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the store hears a call, and the caller the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    Both,
    /// It is done, and the caller does not know.
    ReplyLost,
}

/// Goes to the store.
///
/// # Errors
/// The store hears nothing.
pub async fn to_store(process: &Process, call: &'static str) -> Result<Luck, BusError> {
    let world = &process.world;
    if process.is_closed() {
        return Err(BusError::Closed);
    }
    world.shake().await;
    let cut = world.cut.lock().or(*process.cut.lock());
    if let Some(silent) = cut {
        return Err(lost(process, call, "cut", silent).await);
    }
    world.way().await;
    if process.is_closed() {
        return Err(BusError::Closed);
    }
    if !world.chance(world.plan.failing) {
        return Ok(Luck::Both);
    }
    match world.below(3) {
        0 => Ok(Luck::ReplyLost),
        1 => Err(lost(process, call, "request", false).await),
        _ => Err(lost(process, call, "request", true).await),
    }
}

/// The caller learns that it will not hear anything: at once, or when it has waited long enough.
pub async fn lost(process: &Process, call: &'static str, lost: &'static str, silent: bool) -> BusError {
    if silent {
        tokio::time::sleep(PATIENCE).await;
    }
    process.world.note(Step::Failed { process: process.id, call, lost });
    process.world.truth.lock().tally(match lost {
        "reply" => "reply lost",
        "cut" => "call cut off",
        _ => "request lost",
    });
    let (store, cause) = ("the model".to_owned(), lost.to_owned());
    match process.world.below(4) {
        0 => BusError::Full { store, cause },
        1 => BusError::Unusable { store, cause },
        _ => BusError::Away { store, cause },
    }
}
