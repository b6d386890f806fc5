//! What a well-formed JSON document must be besides, so that a script can have it: not too deep, and no key twice.
//!
//! Looks only at brackets and keys, in one pass; whether the text is JSON at all was asked before.

use std::borrow::Cow;
use std::collections::HashSet;

/// Deepest nesting that scripts can be given.
const DEPTH_MAX: usize = 128;

/// Checks the text of a well-formed document; the error says what is wrong with it.
pub(super) fn check(text: &[u8]) -> Result<(), String> {
    // The keys of each open object; `None` for a list.
    let mut open: Vec<Option<HashSet<Cow<'_, [u8]>>>> = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' if open.len() == DEPTH_MAX => return Err(format!("more than {DEPTH_MAX} levels of nesting")),
            b'{' => open.push(Some(HashSet::new())),
            b'[' => open.push(None),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let inside = text.get(at..at + length(&text[at..])).unwrap_or_default();
                at += inside.len() + 1;
                if let Some(Some(keys)) = open.last_mut()
                    && text.get(at..).is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"))
                    && !keys.insert(plain(inside))
                {
                    return Err(format!("the key \"{}\" stands twice in one object", String::from_utf8_lossy(inside)));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bytes up to the quote that ends a string.
fn length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// A key without escapes: `"\u0061"` is `"a"`.
fn plain(key: &[u8]) -> Cow<'_, [u8]> {
    if !key.contains(&b'\\') {
        return Cow::Borrowed(key);
    }
    let quoted = [b"\"", key, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or(Cow::Borrowed(key), |text| Cow::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_script_could_have_is_refused() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        for text in [
            "1",
            r#""a""#,
            r#"{"a": {"a": [{"a": 1}, {"a": 2}]}, "b": "a", "\"": "}{", "c": ["a", "a"]}"#,
            r#"{"a\\":1,"a":"\\","b":"\":\""}"#,
            nested(DEPTH_MAX).as_str(),
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
        let deep = nested(DEPTH_MAX + 1);
        for (text, says) in [
            (r#"{"a":1,"a":2}"#, r#"the key "a" stands twice in one object"#),
            (r#"[{"x":{},"a" : 1, "\u0061" :2}]"#, r#"the key "\u0061" stands twice in one object"#),
            (deep.as_str(), "more than 128 levels of nesting"),
        ] {
            assert_eq!(check(text.as_bytes()), Err(says.to_owned()), "{text}");
        }
    }
}
