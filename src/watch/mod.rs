//! Notices that the handlers folder changed.
//!
//! File events are hints: they lie by omission. The truth is a scan of contents, at every hint and besides at a fixed
//! period. What is found must stand still before it counts, and nobody may be writing it, so that half a file is not taken
//! for a whole one and many files that change together are taken together; a folder that is never quiet is still read, file
//! by file. Looking takes a bounded share of one core, however large the folder and however many the hints.

mod hints;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use crate::failpoint;
use crate::registry::{Scanner, Skipped};
use crate::script::{Source, Sources};

use hints::Hints;

/// Two scans this far apart must agree, where hints come; long enough for a hint that is late on a busy machine.
const STILL: Duration = Duration::from_millis(40);
/// The same, where a change was found without a hint: there nobody says when a writer is done.
const STILL_UNHINTED: Duration = Duration::from_millis(250);
/// The same, where a file is missing: many editors move the old one away before they write the new one.
const STILL_VANISHED: Duration = Duration::from_millis(200);
/// After this long a file that keeps changing is taken as it is, and nobody waits for it any more.
const STILL_WAIT_MAX: Duration = Duration::from_secs(1);
/// After a scan, rest this many times as long as it took.
const REST: u32 = 4;

/// What the folder says now.
#[derive(Clone, Debug)]
pub struct Change {
    pub sources: Arc<Sources>,
    /// Sorted.
    pub skipped: Vec<Skipped>,
}

/// Sends a [`Change`] whenever the content of `root` differs from the last one sent; ends when nobody listens.
pub async fn watch(root: PathBuf, scan: Duration, mut last: Change, scanner: Scanner, changes: Sender<Change>) {
    let mut look = Look { hints: Hints::new(root), scanner: Some(scanner), took: Duration::ZERO };
    loop {
        look.hints.keep_up();
        let hinted = tokio::select! {
            () = changes.closed() => return,
            hinted = tokio::time::timeout(scan, look.hints.come()) => hinted.is_ok(),
        };
        let found = tokio::select! {
            () = changes.closed() => return,
            found = look.settled(&last, hinted) => found,
        };
        if let Some(change) = found {
            failpoint::reached("reload.read");
            last = change.clone();
            if changes.send(change).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(look.took * REST).await;
    }
}

/// Looks at the folder.
struct Look {
    hints: Hints,
    /// Gone if a scan panicked; then nothing is found any more, and what is loaded goes on serving.
    scanner: Option<Scanner>,
    /// How long the last scan took.
    took: Duration,
}

impl Look {
    /// Scans until two scans agree and nobody writes; `None`: nothing changed, or the folder cannot be read.
    async fn settled(&mut self, last: &Change, hinted: bool) -> Option<Change> {
        let began = Instant::now();
        let mut unsettled: HashMap<String, Instant> = HashMap::new();
        let mut seen = last.clone();
        loop {
            let now = self.scan().await?;
            let changed = now.differences(last);
            if changed.is_empty() {
                return None;
            }
            let mut moving = now.differences(&seen);
            moving.extend(self.hints.writing());
            unsettled.retain(|path, _| moving.contains(path));
            for path in moving {
                unsettled.entry(path).or_insert_with(Instant::now);
            }
            if unsettled.is_empty() {
                return Some(now);
            }
            if began.elapsed() >= STILL_WAIT_MAX {
                return self.without_the_fresh(now, last, &unsettled);
            }
            seen = now;
            tokio::time::sleep(still(&seen, last, hinted).max(self.took * REST)).await;
        }
    }

    /// What is still, and what has not been still for too long; the rest stays as it was until the next look.
    fn without_the_fresh(&self, now: Change, last: &Change, unsettled: &HashMap<String, Instant>) -> Option<Change> {
        self.hints.again();
        let fresh = unsettled.iter().filter(|(_, since)| since.elapsed() < STILL_WAIT_MAX);
        let taken = now.keeping(last, fresh.map(|(path, _)| path.as_str()));
        (!taken.differences(last).is_empty()).then_some(taken)
    }

    async fn scan(&mut self) -> Option<Change> {
        let mut scanner = self.scanner.take()?;
        let began = Instant::now();
        let scanned = tokio::task::spawn_blocking(move || {
            let found = scanner.scan();
            (scanner, found)
        });
        let (scanner, found) = scanned.await.ok()?;
        self.scanner = Some(scanner);
        self.took = began.elapsed();
        let (sources, skipped) = found.ok()?;
        Some(Change { sources, skipped })
    }
}

fn still(now: &Change, last: &Change, hinted: bool) -> Duration {
    let vanished = last.sources.files.keys().any(|path| !now.sources.files.contains_key(path));
    let still = if hinted { STILL } else { STILL_UNHINTED };
    if vanished { still.max(STILL_VANISHED) } else { still }
}

impl Change {
    /// Paths below the folder that are not the same in both.
    fn differences(&self, other: &Self) -> HashSet<String> {
        let (ours, theirs) = (&self.sources.files, &other.sources.files);
        let hash = |source: Option<&Source>| source.map(|source| source.hash);
        let files = ours.keys().filter(|path| hash(ours.get(*path)) != hash(theirs.get(*path)));
        let gone = theirs.keys().filter(|path| !ours.contains_key(*path));
        let skipped = self.skipped.iter().filter(|skipped| other.skipped.binary_search(skipped).is_err());
        let no_more = other.skipped.iter().filter(|skipped| self.skipped.binary_search(skipped).is_err());
        let skipped = skipped.chain(no_more).map(|skipped| &skipped.file);
        files.chain(gone).chain(skipped).cloned().collect()
    }

    /// This, but with `paths` as they were in `before`.
    fn keeping<'a>(self, before: &Self, paths: impl Iterator<Item = &'a str>) -> Self {
        let mut files = self.sources.files.clone();
        let mut skipped = self.skipped;
        for path in paths {
            match before.sources.files.get(path) {
                Some(source) => drop(files.insert(path.to_owned(), source.clone())),
                None => drop(files.remove(path)),
            }
            skipped.retain(|skipped| skipped.file != path);
            skipped.extend(before.skipped.iter().filter(|skipped| skipped.file == path).cloned());
        }
        skipped.sort();
        Self { sources: Arc::new(Sources::of(files)), skipped }
    }
}
