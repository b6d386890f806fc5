//! Lines of an input that may be endless, none longer than allowed.

use std::io::{self, BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 1 << 20;
/// What some programs put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Not blank, without its line break.
    Text(Vec<u8>),
    /// Longer than this many bytes; passed over.
    TooLong(usize),
    End,
}

/// Reads line by line.
pub struct Lines<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    number: u64,
    bytes: u64,
}

impl<R: Read> Lines<R> {
    pub fn new(input: R, bytes_max: usize) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER_BYTES, input), bytes_max, number: 0, bytes: 0 }
    }

    /// Number of the line that was read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a whole further line can be had without waiting for the input.
    pub fn has_more(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }

    /// The next line that is not blank.
    pub fn next(&mut self) -> io::Result<Line> {
        loop {
            let mut text = Vec::new();
            if self.read(&mut text)? == 0 {
                return Ok(Line::End);
            }
            self.number += 1;
            if text.last() == Some(&b'\n') {
                text.pop();
            } else if text.len() > self.bytes_max {
                self.pass_over()?;
            }
            if text.len() > self.bytes_max {
                return Ok(Line::TooLong(self.bytes_max));
            }
            if !text.trim_ascii().is_empty() {
                return Ok(Line::Text(text));
            }
        }
    }

    /// Reads up to a line break, or one byte and a line break more than is allowed.
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<usize> {
        if self.bytes == 0 && self.reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            self.reader.consume(BYTE_ORDER_MARK.len());
            self.bytes += BYTE_ORDER_MARK.len() as u64;
        }
        let read = self.reader.by_ref().take(self.bytes_max as u64 + 2).read_until(b'\n', text)?;
        self.bytes += read as u64;
        Ok(read)
    }

    /// Reads up to the next line break, keeping nothing.
    fn pass_over(&mut self) -> io::Result<()> {
        self.bytes += self.reader.skip_until(b'\n')? as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &str, bytes_max: usize) -> Vec<(u64, Line)> {
        let mut lines = Lines::new(input.as_bytes(), bytes_max);
        let mut read = Vec::new();
        loop {
            match lines.next().expect("memory can be read") {
                Line::End => break,
                line => read.push((lines.number(), line)),
            }
        }
        assert_eq!(lines.bytes(), input.len() as u64);
        read
    }

    #[test]
    fn blank_lines_count_and_long_ones_are_passed_over() {
        let text = |text: &str| Line::Text(text.into());
        assert_eq!(
            all("abc\n\n \r\nabcd\nabcde\nabcdefghijk\nx", 4),
            [(1, text("abc")), (4, text("abcd")), (5, Line::TooLong(4)), (6, Line::TooLong(4)), (7, text("x")),]
        );
        assert_eq!(all("abcdefghijk", 4), [(1, Line::TooLong(4))]);
        assert_eq!(all("\u{feff}abc\n\u{feff}", 4), [(1, text("abc")), (2, text("\u{feff}"))]);
        assert_eq!(all("", 4), []);
    }
}
