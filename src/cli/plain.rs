//! Text in which nobody can forge a line or steer a terminal.
//!
//! Owns which characters are written as escapes wherever scripts, events and file names have a say: in logs, and in the lines
//! that commands print. What is written so stays one line.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Writes what it is given, but for what could end the line or steer a terminal: that is written as Rust would write it in a
/// literal (`\n`, `\u{1b}`).
pub(super) struct Plain<W>(pub W);

impl<W: Write> Write for Plain<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut written = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| misleads(*c)) {
            self.0.write_str(&text[written..at])?;
            write!(self.0, "{}", c.escape_default())?;
            written = at + c.len_utf8();
        }
        self.0.write_str(&text[written..])
    }
}

/// `text` as one line.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(misleads) {
        return Cow::Borrowed(text);
    }
    let mut plain = Plain(String::with_capacity(text.len() + 8));
    // Writing to a string cannot fail.
    let _ = plain.write_str(text);
    Cow::Owned(plain.0)
}

/// Ends a line, steers a terminal, or changes the direction in which what follows is shown. A tab does nothing of it.
fn misleads(c: char) -> bool {
    let separates = matches!(c, '\u{2028}' | '\u{2029}');
    let turns = matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\t') || separates || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_mislead_is_shown_and_the_rest_stays() {
        for (text, shown) in [
            ("plain, ü€😀 and a \\ stay", "plain, ü€😀 and a \\ stay"),
            ("a\nb\r\nc\td\0", "a\\nb\\r\\nc\td\\u{0}"),
            ("\x1b[31mred\x7f\u{9b}2J", "\\u{1b}[31mred\\u{7f}\\u{9b}2J"),
            ("x\u{2028}y\u{202e}z\u{85}", "x\\u{2028}y\\u{202e}z\\u{85}"),
        ] {
            assert_eq!(line(text), shown);
        }
    }
}
