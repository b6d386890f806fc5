//! What a run knows of the steps of its event.
//!
//! Owns that names are unique in a run, and the bounds of what steps come to together. Records nothing: that is the store's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Limits;
use super::buffer::OverLimit;
use crate::bus::Delivery;
use crate::outcome::RecordKey;

/// The book of one run.
#[derive(Default)]
pub(super) struct Book {
    /// Names the steps of the event; none is run before it is known.
    event: Option<RecordKey>,
    /// What is recorded, by name; `None`: nobody asked yet.
    recorded: Option<HashMap<Arc<str>, Bytes>>,
    /// Names that this run has used.
    used: HashSet<Arc<str>>,
    bytes: usize,
}

/// How a step stands that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What it came to is recorded.
    Known,
    /// It is to be run.
    New,
    /// The run has a step of that name already.
    Twice,
}

impl Book {
    /// Names the steps of the run's event.
    pub fn belong_to(&mut self, event: RecordKey) {
        self.event = Some(event);
    }

    /// Names the steps that have to be asked for before anything is known of one.
    pub fn unknown(&self) -> Option<RecordKey> {
        self.event.filter(|_| self.recorded.is_none())
    }

    /// Names the steps of the run's event.
    pub fn event(&self) -> Option<RecordKey> {
        self.event
    }

    /// Takes in what is recorded.
    pub fn remember(&mut self, recorded: Vec<(String, Bytes)>) {
        self.bytes = recorded.iter().map(|(name, result)| name.len() + result.len()).sum();
        self.recorded = Some(recorded.into_iter().map(|(name, result)| (name.into(), result)).collect());
    }

    /// Whether a step has to be run; the run has used its name from now on.
    pub fn ask(&mut self, name: &Arc<str>, limits: &Limits) -> Result<Asked, OverLimit> {
        if !self.used.insert(name.clone()) {
            return Ok(Asked::Twice);
        }
        let recorded = self.recorded.get_or_insert_default();
        if recorded.contains_key(name) {
            return Ok(Asked::Known);
        }
        OverLimit::check(recorded.len(), "limits.steps", limits.steps_max)?;
        Ok(Asked::New)
    }

    /// Whether there is room for what a step came to.
    pub fn check_room(&self, name: &str, result: &[u8], limits: &Limits) -> Result<(), OverLimit> {
        let bytes = self.bytes + name.len() + result.len();
        let (what, max) = ("limits.effects_bytes, in results of steps,", limits.effects_bytes_max);
        OverLimit::check(bytes.saturating_sub(1), what, max)
    }

    /// A step is recorded.
    pub fn keep(&mut self, name: Arc<str>, result: Bytes) {
        self.bytes += name.len() + result.len();
        self.recorded.get_or_insert_default().insert(name, result);
    }

    /// What a step came to, as it is recorded.
    pub fn result(&self, name: &str) -> Option<Bytes> {
        self.recorded.as_ref()?.get(name).cloned()
    }

    /// Where the settle finds what may be recorded; `None`: nothing can be.
    pub fn to_settle(&self, delivery: &Delivery) -> Option<RecordKey> {
        let before = delivery.past.as_ref().and_then(|past| past.steps);
        // Who died under it did not say whether it had recorded any.
        let asked = self.recorded.is_some() || delivery.orphaned > 0;
        self.event.filter(|_| asked).or(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_good_for_one_step_of_a_run() {
        let (mut book, limits) = (Book::default(), Limits { steps_max: 2, ..Limits::default() });
        let name = |name: &str| Arc::<str>::from(name);
        book.belong_to(RecordKey([1; 16]));
        assert_eq!(book.unknown(), Some(RecordKey([1; 16])));
        book.remember(vec![("charge".into(), Bytes::from("17"))]);
        assert_eq!(book.unknown(), None, "it is asked for once");
        assert_eq!(book.ask(&name("charge"), &limits), Ok(Asked::Known));
        assert_eq!(book.ask(&name("charge"), &limits), Ok(Asked::Twice));
        assert_eq!(book.ask(&name("ship"), &limits), Ok(Asked::New));
        book.keep(name("ship"), Bytes::new());
        assert_eq!((book.result("charge"), book.result("ship")), (Some(Bytes::from("17")), Some(Bytes::new())));
        let over = book.ask(&name("third"), &limits).expect_err("two are recorded");
        assert!(over.to_string().starts_with("more than limits.steps = 2;"), "{over}");
    }

    #[test]
    fn all_results_together_have_a_bound() {
        let (mut book, limits) = (Book::default(), Limits { effects_bytes_max: 10, ..Limits::default() });
        book.remember(vec![("a".into(), Bytes::from("12345"))]);
        assert_eq!(book.check_room("b", b"123", &limits), Ok(()));
        let over = book.check_room("b", b"1234", &limits).expect_err("eleven bytes");
        assert!(over.to_string().starts_with("more than limits.effects_bytes"), "{over}");
    }
}
