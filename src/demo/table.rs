//! Tables and numbers as the demo prints them.
//!
//! Owns alignment and grouping, nothing else.

use comfy_table::{CellAlignment, Table, presets};

/// A table without lines, indented by two; the columns after the first, up to `numeric_end`, are right-aligned.
pub(super) fn plain(header: &[&str], numeric_end: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec()).add_rows(rows);
    for column in table.column_iter_mut().take(numeric_end).skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines: Vec<_> = table.lines().map(|line| format!(" {}", line.trim_end())).collect();
    lines.join("\n")
}

/// A number with its thousands set apart: 12,345.
pub(super) fn grouped(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0, 999, 1_000, -1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "-1,234,567"]);
    }
}
