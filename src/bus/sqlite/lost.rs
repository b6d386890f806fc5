//! When nothing can be stored in this process any more, so that only a new one helps.
//!
//! Owns what counts as that: a thread of the store that panicked, and a file that stays away for longer than the recovery time. Ends
//! nothing; whoever runs the process waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::store::Store;

/// Whether the store is lost, and since when its file is away.
#[derive(Default)]
pub(super) struct Lost {
    why: watch::Sender<Option<String>>,
    away_since: Mutex<Option<Instant>>,
}

impl Lost {
    /// It is, for this reason; the first one stays.
    pub(super) fn because(&self, why: impl Into<String>) {
        self.why.send_if_modified(|known| known.is_none() && known.replace(why.into()).is_none());
    }

    /// The file is there, or is away. It may be about to be put back.
    pub(super) fn saw_file(&self, is_there: bool, patience: Duration) {
        let mut since = self.away_since.lock();
        *since = if is_there { None } else { since.or_else(|| Some(Instant::now())) };
        if since.is_some_and(|since| since.elapsed() > patience) {
            self.because(format!("its file was deleted or replaced, and has not come back within {patience:?}"));
        }
    }

    /// Waits until it is lost.
    pub(super) async fn wait(&self) -> String {
        let mut told = self.why.subscribe();
        let why = told.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
        why.expect("the sender lives as long as self")
    }
}

/// Held by a thread that the store cannot do without.
pub(super) struct Vital {
    pub(super) store: Arc<Store>,
    pub(super) thread: &'static str,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.store.lost.because(format!("its thread {} ended by a defect of Moontide", self.thread));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Place, SqliteStore};
    use super::*;
    use crate::bus::BusError;

    #[tokio::test]
    async fn a_store_whose_writer_panics_is_lost() {
        let store = SqliteStore::open(Options::at(Place::Memory)).expect("it opens");
        let end = store.store.call(|_| -> Result<(), _> { panic!("on purpose") }).await;
        assert!(matches!(end, Err(BusError::Closed)), "{end:?}");
        assert_eq!(store.lost().await, "its thread sqlite-writer ended by a defect of Moontide");
        assert!(store.is_closed());
    }

    #[test]
    fn a_file_that_comes_back_in_time_is_not_lost() {
        let (lost, patience) = (Lost::default(), Duration::from_secs(3600));
        lost.saw_file(false, patience);
        lost.saw_file(true, Duration::ZERO);
        lost.saw_file(false, patience);
        assert_eq!(*lost.why.borrow(), None);
        lost.saw_file(false, Duration::ZERO);
        lost.because("something else");
        let why = lost.why.borrow().clone().expect("it is lost");
        assert!(why.starts_with("its file was deleted or replaced"), "{why}");
    }
}
