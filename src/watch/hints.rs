//! The operating system's file events, as far as they come.
//!
//! Owns what they can tell and a scan cannot: that there is something to look at now, and which files somebody is in the
//! middle of writing. Nothing that counts rests on them: they get lost, and on some file systems none ever come.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{EventKind, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::registry::has_ending;

/// A writer that was not heard of for so long has left, or its farewell got lost.
const WRITING_MAX: Duration = Duration::from_secs(1);

/// Hints about one folder.
pub(super) struct Hints {
    root: PathBuf,
    heard: Arc<Heard>,
    watcher: Option<(notify::RecommendedWatcher, Identity)>,
    complained: bool,
}

/// Tells a folder from another one that later has its name.
type Identity = (u64, u64);

#[derive(Default)]
struct Heard {
    hint: Notify,
    /// Scripts that were opened for writing and not closed yet, and when they were last written.
    writing: Mutex<HashMap<PathBuf, Instant>>,
}

impl Hints {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, heard: Arc::default(), watcher: None, complained: false }
    }

    /// Waits for a hint; one that came since the last call counts.
    pub(super) async fn come(&self) {
        self.heard.hint.notified().await;
    }

    /// Makes the next [`Hints::come`] return at once.
    pub(super) fn again(&self) {
        self.heard.hint.notify_one();
    }

    /// Scripts that somebody is writing, as paths below the folder.
    pub(super) fn writing(&self) -> Vec<String> {
        let mut writing = self.heard.writing.lock();
        writing.retain(|_, last| last.elapsed() < WRITING_MAX);
        let below = writing.keys().map(|path| path.strip_prefix(&self.root).unwrap_or(path));
        below.map(|path| path.to_string_lossy().into_owned()).collect()
    }

    /// Watches the root that is there now; it may have been replaced by another folder of that name.
    pub(super) fn keep_up(&mut self) {
        let found = identity(&self.root);
        if found.is_none() || self.watcher.as_ref().map(|(_, watched)| *watched) == found {
            return;
        }
        self.watcher = None;
        self.heard.writing.lock().clear();
        match start(&self.root, self.heard.clone()) {
            Ok(watcher) => self.watcher = found.map(|found| (watcher, found)),
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!("no file events for {}: {error}; scanning instead", self.root.display());
            }
            Err(_) => {}
        }
    }
}

fn start(root: &Path, heard: Arc<Heard>) -> notify::Result<notify::RecommendedWatcher> {
    // Links are not followed: what they lead to inside the folder is watched anyway, and what lies outside is not ours.
    let config = notify::Config::default().with_follow_symlinks(false);
    let mut watcher = notify::RecommendedWatcher::new(move |event| heard.take(event), config)?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

fn identity(root: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(root).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Heard {
    fn take(&self, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if !event.need_rescan() => {
                if !self.note(&event) {
                    return;
                }
            }
            // Some events were lost, a farewell among them perhaps.
            Ok(_) | Err(_) => self.writing.lock().clear(),
        }
        self.hint.notify_one();
    }

    /// False: nothing changed by it.
    fn note(&self, event: &notify::Event) -> bool {
        let scripts = event.paths.iter().filter(|path| has_ending(path));
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                let mut writing = self.writing.lock();
                for path in scripts {
                    writing.remove(path);
                }
            }
            EventKind::Access(_) => return false,
            EventKind::Create(CreateKind::File) => {
                // A link is whole from the start; a file is created by whoever writes it.
                scripts.filter(|path| is_file(path)).for_each(|path| self.is_written(path));
            }
            EventKind::Modify(ModifyKind::Data(_)) => scripts.for_each(|path| self.is_written(path)),
            _ => {}
        }
        true
    }

    fn is_written(&self, path: &Path) {
        self.writing.lock().insert(path.to_owned(), Instant::now());
    }
}

fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}
