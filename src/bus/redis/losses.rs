//! What others trimmed before a group had received it: it is lost, and counted.
//!
//! A group that reads on goes past the gap, and then the server does not know any more that there was one. So whoever reads
//! looks just before, in the same round trip, whether a stream begins where it did; what that costs is one look at the first
//! entry. Upkeep looks besides, for groups that nobody reads.

use std::collections::HashMap;

use parking_lot::Mutex;
use redis::Value;

use super::fault::Fault;
use super::reply;
use crate::event::EntryId;

/// Where each stream began when somebody here looked.
#[derive(Default)]
pub(super) struct Beginnings(Mutex<HashMap<String, EntryId>>);

impl Beginnings {
    /// As `look.lua` takes it; `-` where nobody has looked yet.
    pub fn known(&self, stream: &str) -> String {
        self.0.lock().get(stream).map_or_else(|| "-".to_owned(), ToString::to_string)
    }

    /// It begins there now, and whatever was lost before is counted.
    pub fn found(&self, stream: &str, first: EntryId) {
        let mut known = self.0.lock();
        match known.get_mut(stream) {
            Some(known) => *known = first,
            None => drop(known.insert(stream.to_owned(), first)),
        }
    }
}

/// Says what was lost: stream, group and count of each.
pub(super) fn tell(lost: Value) -> Result<(), Fault> {
    let mut parts = reply::list(lost)?.into_iter();
    while let (Some(stream), Some(group), Some(count)) = (parts.next(), parts.next(), parts.next()) {
        let (stream, group, count) = (reply::text(stream)?, reply::text(group)?, reply::int(&count)?);
        tracing::warn!(stream, "group {group} lost {count} events: they were trimmed before it had received them");
    }
    Ok(())
}
