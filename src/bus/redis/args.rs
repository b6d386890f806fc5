//! Arguments of our server scripts, packed into one command.
//!
//! Owns the form in which events are handed to the server, and which streams it has to be told of.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::Cmd;
use rmp::{Marker, encode};

use super::entry::Fields;
use super::procedure::Procedure;
use super::store::Store;
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
///
/// All arguments travel as one, in MessagePack: the server takes a list apart in a fraction of the time that as many
/// arguments cost it.
pub(super) struct Args {
    call: Cmd,
    packed: Vec<u8>,
    count: u32,
}

/// Bytes at the beginning of a list that say how long it is.
const HEAD: usize = 5;

impl Args {
    /// Begins a call.
    pub fn of(procedure: &Procedure) -> Self {
        Self { call: procedure.call(), packed: vec![0; HEAD], count: 0 }
    }

    /// The call.
    pub fn done(mut self) -> Cmd {
        self.packed[0] = Marker::Array32.to_u8();
        self.packed[1..HEAD].copy_from_slice(&self.count.to_be_bytes());
        self.call.arg(&self.packed[..]);
        self.call
    }

    /// Arguments so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes, as they are.
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        // The server takes no value of 4 GiB, so a length always fits.
        encode::write_str_len(&mut self.packed, bytes.len() as u32).expect("memory can be written to");
        self.packed.extend_from_slice(bytes);
        self.count += 1;
    }

    /// A whole number.
    pub fn int(&mut self, number: u64) {
        encode::write_uint(&mut self.packed, number).expect("memory can be written to");
        self.count += 1;
    }

    /// 1 or 0.
    pub fn flag(&mut self, is: bool) {
        self.int(u64::from(is));
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
        self.int(fields.len() as u64 * 2);
        for (name, value) in fields {
            self.push(name);
            self.push(value);
        }
    }

    /// How many events there are, and then they.
    pub fn events(&mut self, emits: &[Emit], store: &Store) {
        self.int(emits.len() as u64);
        for emit in emits {
            self.event(emit, store.options.streams.mirrored(&emit.event), store);
        }
    }

    /// One event that is stored and published to no channel.
    pub fn stored(&mut self, emit: &Emit, store: &Store) {
        self.event(emit, Vec::new(), store);
    }

    fn event(&mut self, emit: &Emit, mirrored: Vec<(String, Bytes)>, store: &Store) {
        self.push(&emit.stream);
        match emit.delay {
            None => self.push("-"),
            Some(delay) => self.int(millis(delay)),
        }
        // Each has two parts, at the end of the fields.
        self.int(u64::from(store.known.is_new(&emit.stream)) + 2 * 2 * mirrored.len() as u64);
        let mut fields = store.options.streams.layouts(&emit.stream).write(&emit.event);
        fields.extend(mirrored.into_iter().map(|(channel, message)| (channel.into(), message)));
        self.fields(&fields);
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
            assert!(args.packed.ends_with(entry.to_string().as_bytes()), "{:?}", args.packed);
        }
    }

    #[test]
    fn the_list_says_how_long_it_is() {
        let mut args = Args::of(&Procedure::new("return 1"));
        args.push("a".repeat(300));
        args.int(70_000);
        args.flag(true);
        let packed = args.done().get_packed_command();
        let list = packed.windows(HEAD).position(|bytes| bytes == [0xdd, 0, 0, 0, 3]).expect("the head is there");
        assert_eq!(packed[list + HEAD..list + HEAD + 4], [0xda, 1, 44, b'a'], "a text of 300 bytes");
        assert!(packed.ends_with(b"\xce\x00\x01\x11\x70\x01\r\n"));
    }
}
