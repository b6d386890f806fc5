//! Reads a server's append-only file: where each transaction ends, and what the ones before a byte come to.
//!
//! The prediction is made of the bytes alone: whatever lies wholly before a cut must be there, and nothing else.

use std::collections::BTreeMap;

use serde_json::Value;

/// What one command, or all of a transaction, changed.
pub struct Commit {
    /// The first byte, and the first one after it.
    pub begin: usize,
    pub end: usize,
    commands: Vec<Vec<Vec<u8>>>,
}

/// What the kept part of a log comes to.
#[derive(Debug, Default, PartialEq)]
pub struct Predicted {
    pub state: BTreeMap<String, Value>,
    /// The largest number that was published.
    pub last: u64,
}

/// The commits of a whole log, in their order.
pub fn commits(log: &[u8]) -> Vec<Commit> {
    let (mut commits, mut at) = (Vec::new(), 0);
    let mut open: Option<Commit> = None;
    while at < log.len() {
        let begin = at;
        let command = command(log, &mut at);
        let is = |name: &[u8]| command[0].eq_ignore_ascii_case(name);
        if is(b"MULTI") {
            open = Some(Commit { begin, end: 0, commands: Vec::new() });
        } else if is(b"EXEC") {
            let commit = open.take().expect("a transaction began");
            commits.push(Commit { end: at, ..commit });
        } else if let Some(open) = &mut open {
            open.commands.push(command);
        } else {
            commits.push(Commit { begin, end: at, commands: vec![command] });
        }
    }
    commits
}

impl Commit {
    /// Writes what a handler left.
    pub fn writes_state(&self) -> bool {
        self.commands.iter().any(|command| is_set(command).is_some())
    }
}

impl Predicted {
    /// What commits whose last byte lies before `cut` come to.
    pub fn before(commits: &[Commit], cut: usize) -> Self {
        let mut predicted = Self::default();
        for command in commits.iter().filter(|commit| commit.end <= cut).flat_map(|commit| &commit.commands) {
            if let Some((key, value)) = is_set(command) {
                predicted.state.insert(key, value);
            }
            predicted.last = predicted.last.max(published(command).unwrap_or(0));
        }
        predicted
    }
}

/// The key of state that is set, and to what.
fn is_set(command: &[Vec<u8>]) -> Option<(String, Value)> {
    let [name, key, value, ..] = command else { return None };
    let key = std::str::from_utf8(key).ok()?.strip_prefix("state:")?;
    name.eq_ignore_ascii_case(b"SET").then(|| (key.to_owned(), serde_json::from_slice(value).unwrap_or_default()))
}

/// The number of a tick that is published.
fn published(command: &[Vec<u8>]) -> Option<u64> {
    let [name, stream, _, fields @ ..] = command else { return None };
    if !name.eq_ignore_ascii_case(b"XADD") || stream != b"events:tick" {
        return None;
    }
    let data = fields.chunks(2).find(|field| field[0] == b"data")?;
    serde_json::from_slice::<Value>(data.get(1)?).ok()?["n"].as_u64()
}

fn command(log: &[u8], at: &mut usize) -> Vec<Vec<u8>> {
    let words = number(log, at, b'*');
    (0..words).map(|_| word(log, at)).collect()
}

fn word(log: &[u8], at: &mut usize) -> Vec<u8> {
    let length = number(log, at, b'$');
    let word = log[*at..*at + length].to_vec();
    *at += length + 2;
    word
}

fn number(log: &[u8], at: &mut usize, sign: u8) -> usize {
    assert_eq!(log[*at], sign, "byte {at} of the log");
    let line = log[*at + 1..].iter().position(|byte| *byte == b'\r').expect("a line has an end");
    let text = std::str::from_utf8(&log[*at + 1..*at + 1 + line]).expect("a number");
    *at += line + 3;
    text.parse().expect("a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_transaction_counts_from_its_last_byte_on() {
        let write = |words: &[&str]| {
            let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
            format!("*{}\r\n{words}", words.matches('$').count())
        };
        let first = write(&["XADD", "events:tick", "1-1", "id", "3", "data", "{\"n\":3}"]);
        let second = [
            write(&["MULTI"]),
            write(&["set", "state:a", "[1]", "KEEPTTL"]),
            write(&["SET", "other", "7"]),
            write(&["EXEC"]),
        ];
        let log = first.clone() + &second.concat();
        let commits = commits(log.as_bytes());
        let ends: Vec<(usize, usize)> = commits.iter().map(|commit| (commit.begin, commit.end)).collect();
        assert_eq!(ends, [(0, first.len()), (first.len(), log.len())]);
        assert!(!commits[0].writes_state() && commits[1].writes_state());
        let at = |cut| Predicted::before(&commits, cut);
        assert_eq!(at(first.len() - 1), Predicted::default());
        assert_eq!(at(log.len() - 1), Predicted { last: 3, ..Predicted::default() });
        assert_eq!(at(log.len()).state, [("a".to_owned(), json!([1]))].into());
    }
}
