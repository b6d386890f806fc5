//! What became of the messages of a channel.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bus::ChannelStatus;

/// Counts since the process started.
#[derive(Default)]
pub(super) struct Counts {
    heard: AtomicU64,
    taken: AtomicU64,
    duplicates: AtomicU64,
    undecodable: AtomicU64,
    dropped: AtomicU64,
    gaps: AtomicU64,
}

impl Counts {
    pub fn heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Stored, or handed to a handler.
    pub fn taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody else took it.
    pub fn duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }

    pub fn undecodable(&self) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
    }

    /// Lost here; true: it is time to say so.
    pub fn dropped(&self) -> bool {
        (self.dropped.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two()
    }

    /// Nobody listened here for a time.
    pub fn gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub fn status(&self, channel: &str) -> ChannelStatus {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ChannelStatus {
            channel: channel.to_owned(),
            heard: load(&self.heard),
            taken: load(&self.taken),
            duplicates: load(&self.duplicates),
            undecodable: load(&self.undecodable),
            dropped: load(&self.dropped),
            gaps: load(&self.gaps),
        }
    }
}
