//! Strings of JSON: finding their end, taking escapes apart, and writing them.
//!
//! Knows bytes only; that the whole input is UTF-8 was checked before.

/// Bytes that cannot stand for themselves in a JSON string: quote, backslash, controls.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The first byte at or after `at` that does not stand for itself; the end if there is none.
#[inline]
pub(super) fn find_special(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        if has_special(u64::from_le_bytes(*chunk)) {
            break;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|byte| !SPECIAL[usize::from(*byte)]) {
        at += 1;
    }
    at
}

/// Whether any of eight bytes is special (the usual arithmetic on bytes side by side; a false alarm only costs time).
#[inline]
fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c))) & TOPS != 0
}

/// Reads the rest of a string that has escapes into `out`; returns the position after its closing quote. The error is where and why.
pub(super) fn unescape(text: &[u8], mut at: usize, out: &mut Vec<u8>) -> Result<usize, (usize, &'static str)> {
    loop {
        let special = find_special(text, at);
        out.extend_from_slice(text.get(at..special).unwrap_or_default());
        match text.get(special) {
            Some(b'"') => return Ok(special + 1),
            Some(b'\\') => at = unescape_one(text, special, out)?,
            Some(_) => return Err((special, "a control character in a string must be escaped")),
            None => return Err((special, "a string is not closed")),
        }
    }
}

fn unescape_one(text: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, (usize, &'static str)> {
    let byte = match text.get(at + 1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'u') => return unescape_unicode(text, at, out),
        _ => return Err((at, "an unknown escape")),
    };
    out.push(byte);
    Ok(at + 2)
}

fn unescape_unicode(text: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, (usize, &'static str)> {
    let first = hex4(text, at + 2).ok_or((at, "\\u needs four hex digits"))?;
    let (code, end) = match first {
        0xd800..=0xdbff => {
            let low = if text.get(at + 6..at + 8) == Some(b"\\u") { hex4(text, at + 8) } else { None };
            match low {
                Some(low @ 0xdc00..=0xdfff) => (0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00), at + 12),
                _ => return Err((at, "half of a surrogate pair stands alone")),
            }
        }
        _ => (first, at + 6),
    };
    let character = char::from_u32(code).ok_or((at, "half of a surrogate pair stands alone"))?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(end)
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4)?;
    digits.iter().try_fold(0, |value, byte| Some(value << 4 | char::from(*byte).to_digit(16)?))
}

/// Appends `text`, which is UTF-8, as a JSON string.
pub(super) fn write(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut at = 0;
    loop {
        let special = find_special(text, at);
        out.extend_from_slice(text.get(at..special).unwrap_or_default());
        match text.get(special) {
            Some(byte) => write_escape(out, *byte),
            None => break,
        }
        at = special + 1;
    }
    out.push(b'"');
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend([b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        let end = unescape(text.as_bytes(), 1, &mut out).map_err(|(at, _)| at)?;
        assert_eq!(end, text.len());
        Ok(String::from_utf8(out).expect("the input was UTF-8"))
    }

    #[test]
    fn escapes_are_taken_apart() {
        assert_eq!(read(r#""a\"\\\/\b\f\n\r\tz""#), Ok("a\"\\/\u{8}\u{c}\n\r\tz".into()));
        assert_eq!(read(r#""\u0000\u00e9\u20AC\ud83d\ude00é""#), Ok("\0é€😀é".into()));
    }

    #[test]
    fn broken_strings_are_refused_where_they_break() {
        let cases = [
            (r#""\x""#, 1),
            (r#""\u12""#, 1),
            (r#""\u+123""#, 1),
            (r#""ab\ud800""#, 3),
            (r#""\ud800\u0041""#, 1),
            (r#""\udc00""#, 1),
            ("\"a\nb\"", 2),
            (r#""open"#, 5),
            (r#""\"#, 1),
        ];
        for (text, at) in cases {
            assert_eq!(read(text), Err(at), "{text}");
        }
    }

    #[test]
    fn every_byte_is_found_wherever_it_stands() {
        for byte in 0..=255_u8 {
            for place in 0..20 {
                let mut text = [b'x'; 20];
                text[place] = byte;
                let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                assert_eq!(find_special(&text, 0), if special { place } else { 20 }, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let all: String = (0..0x80).map(|byte| char::from(byte as u8)).chain("é€😀".chars()).collect();
        let mut out = Vec::new();
        write(&mut out, all.as_bytes());
        assert_eq!(serde_json::from_slice::<String>(&out).expect("it is a JSON string"), all);
    }
}
