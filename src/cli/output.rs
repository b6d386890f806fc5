//! What commands print: tables that also read well when piped, JSON listings, messages and questions.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::registry::Registry;

/// Widest text of a table's cell; JSON listings have everything.
const CELL_CHARS_MAX: usize = 72;
/// Least width that a folded column is readable in.
const FOLDED_CHARS_MIN: usize = 16;

/// Whether to use colours on an output that is, or is not, a terminal (<https://no-color.org>).
pub fn colours(is_terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Lines and columns of the terminal that standard output is.
pub fn terminal_size() -> (u16, u16) {
    console::Term::stdout().size()
}

/// Prints a line to standard output.
pub fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Prints a remark to standard error; that nobody reads it is no failure.
pub fn remark(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Says what makes a handler, where there is none.
pub fn remark_if_empty(registry: &Registry, folder: &Path) {
    if registry.handlers.is_empty() {
        remark(&format!("there is no handler in {} yet: a file order.created.luau there is one", folder.display()));
    }
}

/// Prints an error to standard error.
pub fn complain(message: &str) {
    let label = if colours(io::stderr().is_terminal()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    remark(&format!("{label} {message}"));
}

/// Prints a table with a header line. A terminal that is too narrow for it gets the last column folded.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if io::stdout().is_terminal() {
        fold(&mut table, terminal_size().1);
    }
    let mut out = io::stdout().lock();
    let bold = colours(io::stdout().is_terminal());
    for (at, line) in table.lines().enumerate() {
        match line.trim_end() {
            line if at == 0 && bold => writeln!(out, "\x1b[1m{line}\x1b[0m")?,
            line => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

/// Folds the last column, if what the others leave of the terminal's `columns` is enough to read it.
fn fold(table: &mut Table, columns: u16) {
    let widths = table.column_max_content_widths();
    let others: usize = widths.iter().rev().skip(1).map(|width| usize::from(*width) + 2).sum();
    if others + FOLDED_CHARS_MIN > columns.into() {
        return;
    }
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    let last = widths.len() - 1;
    for column in table.column_iter_mut().take(last) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// Prints a listing as one JSON array, an element per line.
pub fn json<T: Serialize>(list: &[T]) -> anyhow::Result<()> {
    let mut array = JsonArray::default();
    list.iter().try_for_each(|element| array.push(element))?;
    array.close()
}

/// A JSON array that is printed as it comes.
#[derive(Default)]
pub struct JsonArray {
    begun: bool,
}

impl JsonArray {
    /// Prints one more element.
    pub fn push<T: Serialize>(&mut self, element: &T) -> anyhow::Result<()> {
        let text = serde_json::to_string(element)?;
        write!(io::stdout().lock(), "{}{text}", if self.begun { ",\n" } else { "[" })?;
        self.begun = true;
        Ok(())
    }

    /// Ends the array.
    pub fn close(self) -> anyhow::Result<()> {
        Ok(say(if self.begun { "]" } else { "[]" })?)
    }
}

/// A number of things: `1 event`, `2 events`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A text that fits a table's cell: one line, cut.
pub fn cell(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

/// A cell for what may not be there.
pub fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).map_or_else(|| "-".to_owned(), cell)
}

/// Asks a yes-or-no question; without a terminal nobody can answer: `None`.
pub fn ask(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    Some(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_one_line_and_cut_between_characters() {
        assert_eq!(cell("a\nb\tc"), "a b c");
        assert_eq!(cell(&"é".repeat(CELL_CHARS_MAX)), "é".repeat(CELL_CHARS_MAX));
        assert_eq!(cell(&"é".repeat(CELL_CHARS_MAX + 1)), format!("{}…", "é".repeat(CELL_CHARS_MAX)));
        assert_eq!(cell("\x1b[31mred"), " [31mred", "what events carry cannot steer a terminal");
    }
}
