//! At which byte a connection is cut: once, where a test says so, or again and again, as a seed says.
//!
//! Pure: is told of bytes that go by, and answers how many of them still do.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::Way;

/// Connections are cut again and again, each in one direction, at a byte of its own.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Which connection is cut where: the same for the same number of the connection.
    pub seed: u64,
    /// Every other connection counts its bytes from a request with these words on; empty: each from its beginning.
    pub words: &'static str,
    /// Cuts come after fewer bytes than this. Half of them after a few, so that every part of an exchange is met.
    pub bytes_max: usize,
}

/// Where one connection is cut: after so many bytes of what follows on some words to the server, their own request
/// included, or of what is answered.
#[derive(Clone, Copy)]
struct Cut {
    words: &'static [u8],
    way: Way,
    after: usize,
    /// The words went by.
    begun: bool,
}

/// All that is to be cut, and how often that happened.
#[derive(Default)]
pub(super) struct Cuts {
    /// The next connection with the words of this is cut so.
    next: Option<Cut>,
    /// A single cut is yet to be made.
    armed: bool,
    storm: Option<Storm>,
    /// By the numbers of the connections.
    doomed: HashMap<usize, Cut>,
    made: u64,
}

impl Cuts {
    /// Cuts once, `after` bytes of the next request with `words`, or of what is answered from then on.
    pub fn arm(&mut self, words: &'static str, way: Way, after: usize) {
        self.calm();
        self.next = Some(Cut { words: words.as_bytes(), way, after, begun: false });
        self.armed = true;
    }

    /// Whether the single cut is yet to be made.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// Cuts again and again.
    pub fn storm(&mut self, storm: Storm) {
        self.calm();
        self.storm = Some(storm);
    }

    /// Cuts no more.
    pub fn calm(&mut self) {
        (self.next, self.armed, self.storm) = (None, false, None);
        self.doomed.clear();
    }

    /// How many cuts were made.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// `connection` is gone.
    pub fn forget(&mut self, connection: usize) {
        self.doomed.remove(&connection);
    }

    /// How many of `bytes` go on before the connection is cut; `None`: all, and it is not.
    pub fn within(&mut self, connection: usize, way: Way, bytes: &[u8]) -> Option<usize> {
        if let Some(storm) = self.storm {
            self.doomed.entry(connection).or_insert_with(|| storm.cut(connection));
        } else if let Some(next) = self.next.take_if(|next| next.begins(way, bytes)) {
            self.doomed.insert(connection, next);
        }
        let cut = self.doomed.get_mut(&connection)?;
        cut.begun |= cut.begins(way, bytes);
        if !cut.begun || cut.way != way {
            return None;
        }
        if cut.after < bytes.len() {
            (self.made, self.armed) = (self.made + 1, false);
            return self.doomed.remove(&connection).map(|cut| cut.after);
        }
        cut.after -= bytes.len();
        None
    }
}

impl Cut {
    /// Whether its words are among `bytes`.
    fn begins(&self, way: Way, bytes: &[u8]) -> bool {
        way == Way::ToServer && bytes.windows(self.words.len().max(1)).any(|words| words == self.words)
    }
}

impl Storm {
    /// Where `connection` is cut.
    fn cut(&self, connection: usize) -> Cut {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ (connection as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let waits = !self.words.is_empty() && rng.random();
        // As many of 8 to 15 bytes as of 1024 to 2047.
        let scale = self.bytes_max >> rng.random_range(0..=self.bytes_max.ilog2());
        let way = if rng.random() { Way::ToServer } else { Way::ToClient };
        Cut { words: self.words.as_bytes(), way, after: rng.random_range(0..scale.max(1)), begun: !waits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_cut_is_made_where_it_was_asked_for() {
        let mut cuts = Cuts::default();
        cuts.arm("SET", Way::ToClient, 3);
        assert_eq!(cuts.within(7, Way::ToServer, b"GET a"), None);
        assert_eq!(cuts.within(7, Way::ToClient, b"12345"), None, "nobody has said the words");
        assert_eq!(cuts.within(8, Way::ToServer, b"SET a 1"), None);
        assert_eq!(cuts.within(7, Way::ToClient, b"12345"), None, "another connection");
        assert_eq!(cuts.within(8, Way::ToClient, b"12"), None);
        assert!(cuts.is_armed());
        assert_eq!(cuts.within(8, Way::ToClient, b"345"), Some(1));
        assert!(!cuts.is_armed());
        assert_eq!(cuts.within(9, Way::ToServer, b"SET a 1"), None);
        assert_eq!(cuts.made(), 1);
    }

    #[test]
    fn a_storm_cuts_every_connection_and_is_the_same_again() {
        let played = |seed| {
            let mut cuts = Cuts::default();
            cuts.storm(Storm { seed, words: "SET", bytes_max: 1000 });
            let one = |cuts: &mut Cuts, connection| {
                (0..).find_map(|round| {
                    let way = if round % 2 == 0 { Way::ToServer } else { Way::ToClient };
                    cuts.within(connection, way, b"SET a 1").map(|after| (round, after))
                })
            };
            (0..100).map(|connection| one(&mut cuts, connection)).collect::<Vec<_>>()
        };
        assert_eq!(played(1), played(1));
        assert_ne!(played(1), played(2));
        assert!(played(1).contains(&Some((0, 0))), "some at once");
        assert!(played(1).iter().flatten().any(|(round, _)| *round > 100), "some late");
    }

    #[test]
    fn after_a_storm_nothing_is_cut() {
        let mut cuts = Cuts::default();
        cuts.storm(Storm { seed: 1, words: "", bytes_max: 1 });
        assert_eq!(cuts.within(1, Way::ToServer, b"x").or(cuts.within(1, Way::ToClient, b"x")), Some(0));
        cuts.calm();
        assert_eq!(cuts.within(2, Way::ToServer, b"x").or(cuts.within(2, Way::ToClient, b"x")), None);
    }
}
