//! JSON from outside, read strictly: what a script could not be given is refused at the door, with its place.
//!
//! Refuses what is no text, names twice in one object, numbers out of any range, and objects that are too large or too
//! deep. What passes is kept byte for byte.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use axum::body::Bytes;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::Json;
use crate::script::convert::{KEY_BYTES_MAX, KEYS_MAX};

/// A document as event data.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(text: Bytes) -> Result<Json, String> {
    check(&text)?;
    Ok(Json::trusted(text))
}

fn check(text: &[u8]) -> Result<(), String> {
    let text =
        std::str::from_utf8(text).map_err(|error| format!("is not UTF-8 from byte {} on", error.valid_up_to()))?;
    if text.starts_with('\u{feff}') {
        return Err("begins with a byte order mark, which cannot stand before JSON".into());
    }
    serde_json::from_str::<Sound>(text).map(drop).map_err(|error| format!("is no JSON document: {error}"))
}

/// The members of an object, each as it was written; no name comes twice.
#[derive(Debug, Default)]
pub struct Members(pub BTreeMap<String, Box<RawValue>>);

impl Members {
    /// Takes a member out; `null` counts as missing.
    pub fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.0.remove(name).filter(|value| value.get() != "null")
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("{name:?} comes twice in one object")));
            }
            members.insert(name, value);
        }
        Ok(Members(members))
    }
}

/// A value in which nothing is left to complain about.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SoundVisitor)
    }
}

struct SoundVisitor;

impl<'de> Visitor<'de> for SoundVisitor {
    type Value = Sound;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sound, A::Error> {
        while list.next_element::<Sound>()?.is_some() {}
        Ok(Sound)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sound, A::Error> {
        let mut names: HashSet<String> = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > KEY_BYTES_MAX {
                return Err(A::Error::custom(format!("a name in an object has more than {KEY_BYTES_MAX} bytes")));
            }
            if names.len() >= KEYS_MAX {
                return Err(A::Error::custom(format!("an object has more than {KEYS_MAX} names")));
            }
            map.next_value::<Sound>()?;
            if let Some(twice) = names.replace(name) {
                return Err(A::Error::custom(format!("{twice:?} comes twice in one object")));
            }
        }
        Ok(Sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_script_could_be_given_is_refused_with_its_place() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let wide = format!("{{{}}}", (0..10_001).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","));
        let long = format!("{{\"{}\":0}}", "k".repeat(257));
        for (text, says) in [
            (&b"\xff"[..], "is not UTF-8 from byte 0 on"),
            (b"\"a\xc3\"", "is not UTF-8 from byte 2 on"),
            (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
            (b"", "EOF while parsing a value at line 1 column 0"),
            (b"{\"a\":}", "expected value at line 1 column 6"),
            (b"1 2", "trailing characters at line 1 column 3"),
            (b"[\n1e400]", "number out of range at line 2 column 5"),
            (b"\"\\ud800\"", "line 1 column"),
            (b"\"a\x00\"", "control character"),
            (b"{\"a\":{\"b\":1,\"b\":2}}", "\"b\" comes twice in one object at line 1 column 18"),
            (b"nul", "line 1 column 3"),
            (b"NaN", "line 1 column 1"),
            (b"01", "line 1 column 2"),
            (deep.as_bytes(), "recursion limit"),
            (wide.as_bytes(), "more than 10000 names"),
            (long.as_bytes(), "more than 256 bytes"),
        ] {
            let problem = check(text).expect_err(&String::from_utf8_lossy(text));
            assert!(problem.contains(says), "{problem}");
        }
        for text in ["null", " [1, 2.50, -0, 18446744073709551616] ", r#"{"a":"\ud83d\ude00","b":{"a":[]}}"#] {
            let kept = read(Bytes::from(text)).expect(text);
            assert_eq!(kept.text(), text);
        }
    }
}
