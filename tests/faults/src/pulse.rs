//! Heartbeats, as the store shows them: whether a process is there, and when it is heard again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use moontide_stage::process::Process;
use tokio::time::Instant;

use crate::findings::Findings;
use crate::place::{FILE, Place};
use crate::stage::{PATIENCE, Stage};

/// How often is looked; times are no finer.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Somebody who can look at heartbeats, also beside whatever else goes on.
#[derive(Clone)]
pub enum Pulse {
    /// The address of a server.
    Server(String),
    File(PathBuf),
}

impl Pulse {
    pub fn of(stage: &Stage) -> Self {
        match &stage.place {
            Place::Server(server) => Self::Server(server.url()),
            Place::File => Self::File(stage.folder.path().join(FILE)),
        }
    }

    /// Counters by the names of processes; processes of one name are added up.
    pub fn beats(&self) -> BTreeMap<String, i64> {
        let mut beats = BTreeMap::new();
        for (process, beat) in self.counters().unwrap_or_default() {
            let name = process.split(':').next().unwrap_or_default().to_owned();
            *beats.entry(name).or_default() += beat;
        }
        beats
    }

    /// One for each process that the store knows of; `None`: it does not answer.
    fn counters(&self) -> Option<Vec<(String, i64)>> {
        match self {
            Self::Server(url) => {
                let mut connection = redis::Client::open(url.as_str()).ok()?.get_connection().ok()?;
                redis::cmd("HGETALL").arg("moontide:beats").query(&mut connection).ok()
            }
            Self::File(file) => {
                let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
                let file = rusqlite::Connection::open_with_flags(file, flags).ok()?;
                let mut list = file.prepare("SELECT name, beat FROM process").ok()?;
                let rows = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).ok()?;
                rows.collect::<Result<_, _>>().ok()
            }
        }
    }

    /// How many processes the store knows of.
    pub fn known(&self) -> usize {
        self.counters().unwrap_or_default().len()
    }

    /// Waits until every process in `names` is heard anew after it was heard `before`.
    ///
    /// # Panics
    /// When that takes longer than patience lasts.
    pub async fn until_heard(&self, names: &[&str], before: &BTreeMap<String, i64>) -> Duration {
        let began = Instant::now();
        let is_heard = |beats: &BTreeMap<String, i64>, name: &&str| beats.get(*name) > before.get(*name);
        loop {
            let beats = self.beats();
            if names.iter().all(|name| is_heard(&beats, name)) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{names:?} are not heard: {beats:?}, and {before:?} before");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Notes which of these processes ended, which none should have.
pub fn note_ended(found: &mut Findings, processes: &mut [(String, Process)]) {
    for (name, process) in processes {
        if let Some(status) = process.status() {
            found.wrong(format!("{name} ended by itself: {status}"));
        }
    }
}
