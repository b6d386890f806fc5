//! Reads a write-ahead log: which commits lie wholly before a byte.

/// Bytes of the log's header, and of that of each frame.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Where each commit ends, in their order. Frames of a log that was begun anew have other salts, and are none of it.
pub fn ends(wal: &[u8]) -> Vec<usize> {
    let Some(page) = number(wal, 8) else { return Vec::new() };
    let frame = FRAME_HEADER + page;
    let salts = |at: usize| wal.get(at..at + 8);
    let mut ends = Vec::new();
    let mut at = HEADER;
    while at + frame <= wal.len() && salts(at + 8) == salts(16) {
        // Pages that the file has after it; other frames have 0.
        if number(wal, at + 4).is_some_and(|pages| pages > 0) {
            ends.push(at + frame);
        }
        at += frame;
    }
    ends
}

/// How many commits lie wholly before `byte`: what is left where the log ends there, or where that byte is another.
pub fn kept(ends: &[usize], byte: usize) -> usize {
    ends.partition_point(|end| *end <= byte)
}

fn number(wal: &[u8], at: usize) -> Option<usize> {
    let bytes = wal.get(at..at + 4)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_from_its_last_byte_on() {
        let frame = |commits: bool, salt: u8| {
            [&[0, 0, 0, 1, 0, 0, 0, u8::from(commits)], &[salt; 8][..], &[0; 8], &[0; 8]].concat()
        };
        let header = [&[0; 8][..], &[0, 0, 0, 8], &[0; 4], &[7; 8], &[0; 8]].concat();
        let wal = [header, frame(false, 7), frame(true, 7), frame(true, 7), frame(true, 6)].concat();
        let ends = ends(&wal);
        assert_eq!(ends, [96, 128]);
        assert_eq!([0, 95, 96, 127, 128, 160].map(|byte| kept(&ends, byte)), [0, 0, 1, 1, 2, 2]);
        assert!(super::ends(&[]).is_empty());
    }
}
