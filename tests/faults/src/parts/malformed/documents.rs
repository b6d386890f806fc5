//! Texts that are no JSON document, or none that a script can have.

use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;

const GOOD: &str =
    r#"{"id":"o-1","lines":[{"sku":"a","quantity":2,"price":12.50},{"sku":"ü€😀","quantity":1}],"n":-1.5e3}"#;
/// Each is refused by every reader of JSON, or by ours: a key twice, half a pair of surrogates.
const BAD: &[&str] = &[
    "nul",
    "TRUE",
    "NaN",
    "Infinity",
    "undefined",
    "'a'",
    "{a:1}",
    "{'a':1}",
    "[1,]",
    "[,1]",
    "{\"a\":1,}",
    "{,}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\" 1}",
    "[1 2]",
    "[1]]",
    "]",
    "}",
    "{",
    "[",
    "\"",
    "\"a",
    "\"\\\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\ud800\"",
    "\"\\udc00\"",
    "\"\u{1}\"",
    "\"\n\"",
    "{} {}",
    "{}x",
    "{}\0",
    "\0",
    "// c\n{}",
    "/* c */{}",
    "#c",
    "<a/>",
    "---\na: 1",
    "01",
    "-01",
    "+1",
    ".5",
    "5.",
    "1.e1",
    "1e",
    "1e+",
    "-",
    "--1",
    "0x10",
    "1_000",
    "1,5",
    "\u{feff}{}",
    "{\"a\":1,\"a\":1}",
    "{\"a\":1,\"\\u0061\":2}",
    "{\"x\":{\"a\":1,\"b\":2,\"a\":3}}",
];
const BYTES: &[&[u8]] = &[
    b"\xff",
    b"\"\xff\"",
    b"\"\xc3\"",
    b"\"\xc0\xaf\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"{\"\x80\":1}",
    b"\xfe\xff\0{\0}",
    b"\x1f\x8b\x08\0",
];

/// One of them.
pub fn bad(rng: &mut SmallRng) -> Vec<u8> {
    match rng.random_range(0..5) {
        0 => GOOD.as_bytes()[..rng.random_range(1..GOOD.len())].to_vec(),
        1 => {
            let depth = rng.random_range(129..1000);
            ("[".repeat(depth) + &"]".repeat(depth)).into_bytes()
        }
        2 => BYTES.choose(rng).expect("there are some").to_vec(),
        _ => BAD.choose(rng).expect("there are some").as_bytes().to_vec(),
    }
}

/// As [`bad`], without a line break.
pub fn bad_line(rng: &mut SmallRng) -> Vec<u8> {
    loop {
        let text = bad(rng);
        if !text.contains(&b'\n') && !text.trim_ascii().is_empty() {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use moontide::event::Json;

    use super::*;

    #[test]
    fn none_of_them_is_taken_but_for_halves_of_characters() {
        let taken = BAD.iter().filter(|text| Json::parse(text.as_bytes()).is_ok());
        assert_eq!(taken.collect::<Vec<_>>(), [&"\"\\ud800\"", &"\"\\udc00\""], "which scripts are not given");
        assert!(BYTES.iter().all(|bytes| Json::parse(*bytes).is_err() || std::str::from_utf8(bytes).is_err()));
        assert!((1..GOOD.len()).all(|cut| Json::parse(&GOOD.as_bytes()[..cut]).is_err()));
        assert!(Json::parse(GOOD.as_bytes()).is_ok());
    }
}
