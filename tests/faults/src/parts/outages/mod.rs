//! The store goes wrong while work goes on: it is away, full, read-only, emptied, trimmed, replaced.
//!
//! One fault after the other, each under load. What a fault takes away is predicted from what the store held in the very
//! moment of the fault; everything else must be there, once. Then it is measured how long nothing was committed.

mod disk;
mod file;
mod load;
mod replica;
mod server;

use crate::findings::Findings;
use crate::place::Bus;
use crate::task::Task;

pub async fn run(task: Task) -> Findings {
    match task.bus {
        Bus::Redis => super::rounds(&task, server::ROUNDS, server::round).await,
        Bus::Sqlite => super::rounds(&task, file::ROUNDS, file::round).await,
    }
}
