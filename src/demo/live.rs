//! The table of handlers while the demo works: redrawn in place on a terminal, a line now and then elsewhere.
//!
//! Owns how progress looks. Is told how things stand and asks nobody.

use std::io::{self, Write};

use super::table::{grouped, plain};

/// Looks between two lines where the output is no terminal.
const LOOKS_PER_LINE: u32 = 10;

/// How one handler stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    /// What this process counted; `None`: others do the work, and only the store tells how it stands.
    pub counts: Option<Counts>,
    pub dead: u64,
    pub in_flight: u64,
    /// Waiting, delayed work included.
    pub lag: u64,
}

/// What a handler did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub done: u64,
    pub retried: u64,
    /// Skipped: their idempotency key was taken.
    pub duplicates: u64,
}

/// A place where progress is drawn.
pub struct Live<W> {
    out: W,
    /// Where the output is a terminal, so that the cursor can go back: its lines and columns now.
    terminal: Option<fn() -> (u16, u16)>,
    lines_drawn: usize,
    /// How often it was told how things stand.
    looks: u32,
    last_line: String,
}

impl<W: Write> Live<W> {
    /// `terminal` says how many lines and columns there are; `None`: the output is no terminal.
    pub fn new(out: W, terminal: Option<fn() -> (u16, u16)>) -> Self {
        Self { out, terminal, lines_drawn: 0, looks: 0, last_line: String::new() }
    }

    /// Shows how things stand now. Without a terminal: in one line, at every tenth look, if anything changed.
    pub fn draw(&mut self, rows: &[Row]) -> io::Result<()> {
        if let Some(size) = self.terminal {
            return self.redraw(&fitting(&table(rows), size()));
        }
        self.looks += 1;
        let line = line(rows);
        if self.looks % LOOKS_PER_LINE == 1 && line != self.last_line {
            writeln!(self.out, "{line}")?;
            self.last_line = line;
        }
        self.out.flush()
    }

    /// Shows the last state, as a table wherever the output goes.
    pub fn finish(&mut self, rows: &[Row]) -> io::Result<()> {
        if self.terminal.is_some() {
            return self.redraw(&table(rows));
        }
        writeln!(self.out, "\n{}", table(rows))
    }

    fn redraw(&mut self, table: &str) -> io::Result<()> {
        if self.lines_drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.lines_drawn)?;
        }
        self.lines_drawn = table.lines().count();
        writeln!(self.out, "{table}")?;
        self.out.flush()
    }
}

/// What of `table` a terminal can show without wrapping or scrolling, which would lead the cursor astray.
fn fitting(table: &str, (lines, columns): (u16, u16)) -> String {
    let cut = |line: &str| line.chars().take(columns.into()).collect::<String>();
    let shown = table.lines().take(usize::from(lines).saturating_sub(1).max(1)).map(cut);
    shown.collect::<Vec<_>>().join("\n")
}

fn table(rows: &[Row]) -> String {
    let counted = rows.iter().any(|row| row.counts.is_some());
    let mut header = vec!["handler", "done", "retries", "duplicates", "dead", "in flight", "lag"];
    if !counted {
        header.drain(1..4);
    }
    let cells = rows.iter().map(|row| {
        let counts = row.counts.map(|it| [it.done, it.retried, it.duplicates]);
        let numbers = counts.into_iter().flatten().chain([row.dead, row.in_flight, row.lag]);
        std::iter::once(row.name.clone()).chain(numbers.map(grouped)).collect()
    });
    plain(&header, header.len(), cells)
}

fn line(rows: &[Row]) -> String {
    let sum = |of: fn(&Row) -> u64| grouped(rows.iter().map(of).sum::<u64>());
    let (dead, to_do) = (sum(|row| row.dead), sum(|row| row.lag + row.in_flight));
    if rows.iter().all(|row| row.counts.is_none()) {
        return format!("{dead} dead, {to_do} to do");
    }
    let done = sum(|row| row.counts.map_or(0, |counts| counts.done));
    let retried = sum(|row| row.counts.map_or(0, |counts| counts.retried));
    format!("{done} done, {retried} retries, {dead} dead, {to_do} to do")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, done: u64, lag: u64) -> Row {
        let counts = Some(Counts { done, retried: 2, duplicates: 0 });
        Row { name: name.into(), counts, dead: 0, in_flight: 0, lag }
    }

    #[test]
    fn what_others_do_has_no_counts() {
        let rows = [Row { counts: None, ..row("audit", 0, 5) }];
        let expected = ["  handler  dead  in flight  lag", "  audit       0          0    5"];
        assert_eq!(table(&rows).lines().collect::<Vec<_>>(), expected);
        assert_eq!(line(&rows), "0 dead, 5 to do");
    }

    #[test]
    fn a_table_has_a_column_per_number() {
        let expected = [
            "  handler   done  retries  duplicates  dead  in flight  lag",
            "  audit    1,234        2           0     0          0    5",
        ];
        assert_eq!(table(&[row("audit", 1234, 5)]).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_terminal_is_redrawn_in_place() {
        let mut live = Live::new(Vec::new(), Some(|| (24, 80)));
        live.draw(&[row("a", 1, 1), row("b", 1, 1)]).expect("a buffer takes everything");
        live.draw(&[row("a", 2, 0), row("b", 2, 0)]).expect("a buffer takes everything");
        let text = String::from_utf8(live.out).expect("it is text");
        assert_eq!(text.matches("\x1b[3A\x1b[J").count(), 1, "back over the header and two rows, once: {text:?}");
    }

    #[test]
    fn a_small_terminal_gets_what_fits() {
        let mut live = Live::new(Vec::new(), Some(|| (3, 10)));
        for done in [1, 2] {
            live.draw(&[row("a", done, 1), row("b", 1, 1)]).expect("a buffer takes everything");
        }
        let text = String::from_utf8(live.out).expect("it is text");
        assert!(text.ends_with("\x1b[2A\x1b[J  handler \n  a       \n"), "{text:?}");
    }

    #[test]
    fn elsewhere_news_is_printed_now_and_then() {
        let mut live = Live::new(Vec::new(), None);
        for look in 0..2 * LOOKS_PER_LINE + 1 {
            live.draw(&[row("a", 1, if look < LOOKS_PER_LINE { 9 } else { 4 })]).expect("a buffer takes everything");
        }
        let text = String::from_utf8(live.out).expect("it is text");
        assert_eq!(text, "1 done, 2 retries, 0 dead, 9 to do\n1 done, 2 retries, 0 dead, 4 to do\n");
    }
}
