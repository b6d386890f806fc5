//! Arguments of our server scripts, packed into one command.
//!
//! Owns the form in which events are handed to the server, and which streams it has to be told of.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Cmd;

use super::entry::{self, Fields};
use super::procedure::Procedure;
use crate::event::EntryId;
use crate::outcome::Emit;

/// Streams that are remembered as known to the server; when there are more, they are told again.
const KNOWN_MAX: usize = 10_000;

/// The streams that the server was told of, for those who look for new ones.
#[derive(Default)]
pub(super) struct KnownStreams(Mutex<HashSet<String>>);

impl KnownStreams {
    /// True the first time.
    fn is_new(&self, stream: &str) -> bool {
        let mut known = self.0.lock();
        if known.contains(stream) {
            return false;
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(stream.to_owned())
    }

    /// The server may have lost what it was told.
    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

/// A call of one of our scripts, as far as it is written.
pub(super) struct Args {
    call: Cmd,
    count: usize,
}

impl Args {
    /// Begins a call.
    pub fn of(procedure: &Procedure) -> Self {
        Self { call: procedure.call(), count: 0 }
    }

    /// The call.
    pub fn done(self) -> Cmd {
        self.call
    }

    /// Arguments so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes, as they are.
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        self.call.arg(bytes.as_ref());
        self.count += 1;
    }

    /// A whole number.
    pub fn int(&mut self, number: impl itoa::Integer) {
        self.push(itoa::Buffer::new().format(number));
    }

    /// `1` or `0`.
    pub fn flag(&mut self, is: bool) {
        self.push(if is { "1" } else { "0" });
    }

    /// Where an entry lies.
    pub fn entry(&mut self, entry: EntryId) {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        let mut text = [0; 41];
        let length = [ms.format(entry.0), "-", seq.format(entry.1)].iter().fold(0, |at, part| {
            text[at..at + part.len()].copy_from_slice(part.as_bytes());
            at + part.len()
        });
        self.push(&text[..length]);
    }

    /// How many names and values there are, and then they.
    pub fn fields(&mut self, fields: &Fields) {
        self.int(fields.len() * 2);
        for (name, value) in fields {
            self.push(name);
            self.push(value);
        }
    }

    /// How many events there are, and then they.
    pub fn events(&mut self, emits: &[Emit], known: &KnownStreams) {
        self.int(emits.len());
        for emit in emits {
            self.push(&emit.stream);
            match emit.delay {
                None => self.push("-"),
                Some(delay) => self.int(millis(delay)),
            }
            self.flag(known.is_new(&emit.stream));
            self.fields(&entry::event_fields(&emit.event));
        }
    }
}

/// Milliseconds that every part of the server can count with.
pub(super) fn millis(duration: Duration) -> u64 {
    /// About 140,000 years: exact in the server's numbers, with room for the time of day.
    const MILLIS_MAX: u128 = 1 << 52;
    duration.as_millis().min(MILLIS_MAX) as u64
}

/// The same for a key that is gone when `duration` is over: the server removes it after its last millisecond.
pub(super) fn lifetime(duration: Duration) -> u64 {
    millis(duration).saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_written_as_the_server_writes_it() {
        for entry in [EntryId(0, 0), EntryId(17, 3), EntryId(u64::MAX, u64::MAX)] {
            let mut args = Args::of(&Procedure::new("return 1"));
            args.entry(entry);
            let packed = args.done().get_packed_command();
            let text = String::from_utf8_lossy(&packed);
            assert!(text.ends_with(&format!("\r\n{entry}\r\n")), "{text}");
        }
    }
}
