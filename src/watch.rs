//! Notices that the handlers folder changed.
//!
//! File events are hints: they lie by omission. The truth is a scan of contents, at every hint and besides at a fixed
//! period. What is found must stand still for a moment before it counts, so that a half-written file is rarely compiled
//! and a folder that is never quiet is still read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;

use crate::registry::{Scanner, Skipped};
use crate::script::Sources;

/// Two scans this far apart must agree.
const STILL: Duration = Duration::from_millis(20);
/// After this long a folder that keeps changing is taken as it is.
const STILL_WAIT_MAX: Duration = Duration::from_secs(1);

/// What the folder says now.
#[derive(Clone, Debug)]
pub struct Change {
    pub sources: Arc<Sources>,
    pub skipped: Vec<Skipped>,
}

/// Sends a [`Change`] whenever the content of `root` differs from the last one sent; ends when nobody listens.
pub async fn watch(root: PathBuf, scan: Duration, mut last: Change, scanner: Scanner, changes: Sender<Change>) {
    let hint = Arc::new(Notify::new());
    let mut hints = Hints::new(root, hint.clone());
    let mut scanner = Some(scanner);
    while !changes.is_closed() {
        hints.keep_up();
        let _ = tokio::time::timeout(scan, hint.notified()).await;
        let Some(taken) = scanner.take() else { return };
        let before = last.clone();
        let looked = tokio::task::spawn_blocking(move || look(taken, &before)).await;
        let Ok((kept, changed)) = looked else { return };
        scanner = Some(kept);
        let Some(change) = changed else { continue };
        last = change.clone();
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Scans until two scans agree; `None`: nothing changed, or the folder cannot be read.
fn look(mut scanner: Scanner, last: &Change) -> (Scanner, Option<Change>) {
    let began = Instant::now();
    let mut seen: Option<Change> = None;
    loop {
        let Ok((sources, skipped)) = scanner.scan() else { return (scanner, None) };
        let now = Change { sources, skipped };
        if same(&now, last) {
            return (scanner, None);
        }
        if seen.is_some_and(|seen| same(&seen, &now)) || began.elapsed() > STILL_WAIT_MAX {
            return (scanner, Some(now));
        }
        seen = Some(now);
        std::thread::sleep(STILL);
    }
}

fn same(one: &Change, other: &Change) -> bool {
    let hashes = |change: &Change| -> Vec<(String, u128)> {
        change.sources.files.iter().map(|(path, source)| (path.clone(), source.hash)).collect()
    };
    one.skipped == other.skipped && hashes(one) == hashes(other)
}

/// The operating system's file events, as far as they come.
struct Hints {
    root: PathBuf,
    hint: Arc<Notify>,
    watcher: Option<(notify::RecommendedWatcher, u64)>,
    complained: bool,
}

impl Hints {
    fn new(root: PathBuf, hint: Arc<Notify>) -> Self {
        Self { root, hint, watcher: None, complained: false }
    }

    /// Watches the root that is there now; it may have been replaced by another folder of that name.
    fn keep_up(&mut self) {
        let inode = inode(&self.root);
        if inode.is_none() || self.watcher.as_ref().map(|(_, watched)| *watched) == inode {
            return;
        }
        self.watcher = None;
        match start(&self.root, self.hint.clone()) {
            Ok(watcher) => self.watcher = inode.map(|inode| (watcher, inode)),
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!("no file events for {}: {error}; scanning instead", self.root.display());
            }
            Err(_) => {}
        }
    }
}

fn start(root: &Path, hint: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| event.kind.is_access()) {
            hint.notify_one();
        }
    })?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

fn inode(root: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(root).ok().map(|meta| meta.ino())
}
