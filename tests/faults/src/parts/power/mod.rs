//! Power that fails: what a store had written down ends at any byte, or has a bit that is not what it was.
//!
//! From the bytes alone it is predicted what must still be there: every commit that lies wholly before the damage, and
//! nothing of any other. After one cut of so many, the rest is done by a process of the real binary, and all of it is checked.

mod file;
mod log;
mod server;
mod wal;

use crate::findings::Findings;
use crate::place::Bus;
use crate::task::Task;

pub async fn run(task: Task) -> Findings {
    match task.bus {
        Bus::Redis => super::rounds(&task, server::ROUNDS, server::round).await,
        Bus::Sqlite => super::rounds(&task, file::ROUNDS, file::round).await,
    }
}
